"""Subjects of a BIDS dataset: one anatomical image per session, labels and masks of derivatives."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from cohort.data.entries import Rejected, SourceEntry, nifti_stem

_PREFERRED = ("T1w", "T2w", "FLAIR")
_NOT_IMAGES = {"bold", "dseg", "mask", "probseg", "defacemask"}
_DERIVED = {"dseg": "labels", "mask": "mask"}
# what tells the images of one session apart
_ENTITY = re.compile(r"_(acq|ce|rec|run)-([A-Za-z0-9]+)")
_SESSION = re.compile(r"(sub-[A-Za-z0-9]+)(?:_(ses-[A-Za-z0-9]+))?_")


def is_bids(source: Path) -> bool:
    """Whether a folder looks like a BIDS dataset."""
    return (source / "dataset_description.json").is_file() or any(source.glob("sub-*/"))


def scan_bids(source: Path) -> list[SourceEntry | Rejected]:
    """One entry for each ``sub-XX[/ses-YY]`` folder."""
    derived = _derived_files(source / "derivatives")
    return [
        _entry(session_id, folder, derived[session_id]) for session_id, folder in _sessions(source)
    ]


def _sessions(source: Path) -> Iterator[tuple[str, Path]]:
    for subject in sorted(source.glob("sub-*/")):
        sessions = sorted(subject.glob("ses-*/"))
        for session in sessions:
            yield f"{subject.name}_{session.name}", session
        if not sessions:
            yield subject.name, subject


def _entry(session_id: str, folder: Path, derived: dict[str, list[Path]]) -> SourceEntry | Rejected:
    by_suffix = defaultdict(list)
    for path in sorted((folder / "anat").glob("*")):
        stem = nifti_stem(path.name)
        if stem and stem.rpartition("_")[2] not in _NOT_IMAGES:
            by_suffix[stem.rpartition("_")[2]].append(path)
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
            stem = nifti_stem(name)
            session = _SESSION.match(name)
            # space- files were resampled onto another image
            if stem is None or session is None or "_space-" in name:
                continue
            role = _DERIVED.get(stem.rpartition("_")[2])
            if role:
                session_id = "_".join(filter(None, session.groups()))
                derived[session_id].setdefault(role, []).append(Path(folder) / name)
    for roles in derived.values():
        for paths in roles.values():
            paths.sort()
    return derived
