"""Subjects of a BIDS dataset: one anatomical image per session, labels and masks of derivatives."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from cohort.data.entries import Rejected, SourceEntry, nifti_stem
from cohort.data.unused import told

_PREFERRED = ("T1w", "T2w", "FLAIR")
_NOT_IMAGES = {"bold", "dseg", "mask", "probseg", "defacemask"}
_DERIVED = {"dseg": "labels", "mask": "mask"}
# what tells the images of one session apart
_ENTITY = re.compile(r"_(acq|ce|rec|run)-([A-Za-z0-9]+)")
_SESSION = re.compile(r"(sub-[A-Za-z0-9]+)(?:_(ses-[A-Za-z0-9]+))?_")


def is_bids(source: Path) -> bool:
    """Whether a folder looks like a BIDS dataset."""
    return (source / "dataset_description.json").is_file() or any(source.glob("sub-*/"))


def scan_bids(source: Path) -> tuple[list[SourceEntry | Rejected], tuple[str, ...]]:
    """One entry for each ``sub-XX[/ses-YY]`` folder, and sentences about files that none takes."""
    derived = _derived_files(source / "derivatives")
    found = [_entry(name, folder, derived.get(name, {})) for name, folder in _sessions(source)]
    there = {one.subject_id for one in found}
    nobodys = [roles for name, roles in sorted(derived.items()) if name not in there]
    alone = [path for roles in nobodys for paths in roles.values() for path in paths]
    return found, (
        *told(_left_out(found), source, "of a session of which another image is taken"),
        *told(alone, source / "derivatives", "of no session that there is"),
    )


def _left_out(found: list[SourceEntry | Rejected]) -> list[Path]:
    """Other runs and acquisitions of the images that are taken."""
    taken = [one.image for one in found if isinstance(one, SourceEntry)]
    kinds = [(image, _images(image.parent)[_suffix(image)]) for image in taken]
    return [path for image, same in kinds for path in same if path != image]


def _sessions(source: Path) -> Iterator[tuple[str, Path]]:
    for subject in sorted(source.glob("sub-*/")):
        sessions = sorted(subject.glob("ses-*/"))
        for session in sessions:
            yield f"{subject.name}_{session.name}", session
        if not sessions:
            yield subject.name, subject


def _entry(session_id: str, folder: Path, derived: dict[str, list[Path]]) -> SourceEntry | Rejected:
    by_suffix = _images(folder / "anat")
    suffix = next((suffix for suffix in _PREFERRED if suffix in by_suffix), None)
    if suffix is None and len(by_suffix) == 1:
        (suffix,) = by_suffix
    if suffix is None:
        found = f"images of several kinds ({', '.join(by_suffix)})" if by_suffix else "no image"
        return Rejected(
            session_id,
            "E_AMBIGUOUS" if by_suffix else "E_MISSING",
            f"{folder / 'anat'} has {found}; need one of {', '.join(_PREFERRED)}, or one kind",
            str(folder),
        )
    image, found = by_suffix[suffix][0], dict[str, Path]()
    twice = [path for path in by_suffix[suffix] if nifti_stem(path.name) == nifti_stem(image.name)]
    if len(twice) > 1:
        names = ", ".join(path.name for path in twice)
        message = f"{image.parent} has one image in {len(twice)} files ({names}); need one"
        return Rejected(session_id, "E_AMBIGUOUS", message, str(folder))
    for role, paths in derived.items():
        own = [path for path in paths if _is_of(path, image)]
        if len(own) != 1:
            names = ", ".join(path.name for path in own or paths)
            said = (
                f"{len(own)} files for {role}"
                if own
                else f"no {role} of {image.name}, but of others"
            )
            return Rejected(
                session_id,
                "E_AMBIGUOUS",
                f"{session_id} has {said} ({names}); need one. A CSV table can say which",
                str(folder),
            )
        found[role] = own[0]
    return SourceEntry(session_id, image, **found)


def _images(anat: Path) -> defaultdict[str, list[Path]]:
    """The images of a session by their suffix, such as ``T1w``."""
    by_suffix = defaultdict(list)
    for path in sorted(anat.glob("*")):
        if nifti_stem(path.name) and _suffix(path) not in _NOT_IMAGES:
            by_suffix[_suffix(path)].append(path)
    return by_suffix


def _suffix(path: Path) -> str:
    return (nifti_stem(path.name) or "").rpartition("_")[2]


def _is_of(derivative: Path, image: Path) -> bool:
    """Whether the name of labels or a mask says nothing else of their image than its own does."""
    own = _entities(image)
    return all(own.get(key) == value for key, value in _entities(derivative).items())


def _entities(path: Path) -> dict[str, str]:
    """``run-01`` is ``run-1``: it is a number, the others are names."""
    found = dict(_ENTITY.findall(path.name))
    return {key: one.lstrip("0") if key == "run" else one for key, one in found.items()}


def _derived_files(derivatives: Path) -> defaultdict[str, dict[str, list[Path]]]:
    """Labels and masks in native space: session id -> role -> files."""
    derived: defaultdict[str, dict[str, list[Path]]] = defaultdict(dict)
    for folder, _, names in os.walk(derivatives):  # follows no links, so it always ends
        for name in names:
            session = _SESSION.match(name)
            # space- files were resampled onto another image
            if session is None or "_space-" in name:
                continue
            role = _DERIVED.get(_suffix(Path(name)))
            if role:
                session_id = "_".join(filter(None, session.groups()))
                derived[session_id].setdefault(role, []).append(Path(folder) / name)
    for roles in derived.values():
        for paths in roles.values():
            paths.sort()
    return derived
