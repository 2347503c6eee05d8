"""Find the subjects of a source: a folder of NIfTI files, a BIDS dataset or a table."""

import json
import os
from collections import defaultdict
from pathlib import Path

from cohort.data.bids import is_bids, scan_bids
from cohort.data.entries import NIFTI_SUFFIXES, Rejected, SourceEntry, SourceListing, nifti_stem
from cohort.data.source_table import SUFFIXES, read_table
from cohort.data.subject_ids import id_fault
from cohort.data.unused import unused_files
from cohort.errors import UsageError

_EXPECTED = (
    "need a folder with images/*.nii.gz, a BIDS dataset, "
    "or a .csv or .tsv table with the columns subject and image"
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def find_subjects(source: Path) -> SourceListing:
    """What there is to ingest; no image is opened.

    A hostile or doubled subject id, a file that is missing or a link that leaves the source rejects
    that subject and no other.
    """
    source, unused = Path(source), ()
    if source.is_file() and source.suffix.lower() in SUFFIXES:
        root, found = source.parent, read_table(source)
    elif (source / "images").is_dir():
        root, found = source, _scan_folder(source)
        unused = unused_files(source, _taken(found))
    elif source.is_dir() and is_bids(source):
        root, (found, unused) = source, scan_bids(source)
    else:
        state = "is no source of subjects" if source.exists() else "does not exist"
        raise UsageError("E_SOURCE", f"{source} {state}: {_EXPECTED}")
    if not found:
        raise UsageError("E_SOURCE", f"{source} holds no images: {_EXPECTED}")
    entries, rejected = _check(found, root)
    return SourceListing(entries, rejected, _read_structures(root / "structures.json"), unused)


def _taken(found: list[SourceEntry | Rejected]) -> set[Path]:
    files = [one.files.values() for one in found if isinstance(one, SourceEntry)]
    rejected = [Path(one.source) for one in found if isinstance(one, Rejected)]
    return {path for paths in files for path in paths} | set(rejected)


def _scan_folder(source: Path) -> list[SourceEntry | Rejected]:
    found: list[SourceEntry | Rejected] = []
    for image in sorted((source / "images").iterdir()):
        subject_id = nifti_stem(image.name)
        if subject_id is not None:
            found.append(_folder_entry(source, subject_id, image))
        elif image.suffix == ".hdr" and not image.name.startswith("."):
            message = f"{image} is half of a .hdr/.img pair; need one file, .nii or .nii.gz"
            found.append(Rejected(image.stem, "E_PAIR", message, str(image)))
    return found


def _folder_entry(source: Path, subject_id: str, image: Path) -> SourceEntry:
    def companion(folder: str, suffixes: tuple[str, ...], ending: str = "") -> Path | None:
        names = [source / folder / f"{subject_id}{ending}{suffix}" for suffix in suffixes]
        return next((path for path in names if os.path.lexists(path)), None)

    return SourceEntry(
        subject_id,
        image,
        labels=companion("labels", NIFTI_SUFFIXES),
        mask=companion("masks", NIFTI_SUFFIXES),
        keypoints=companion("keypoints", (".csv",)),
        to_template=companion("truth", NIFTI_SUFFIXES, "_to-template"),
        from_template=companion("truth", NIFTI_SUFFIXES, "_from-template"),
    )


def _check(
    found: list[SourceEntry | Rejected], root: Path
) -> tuple[tuple[SourceEntry, ...], tuple[Rejected, ...]]:
    entries, rejected = [], {}
    by_name = defaultdict(list)
    for item in found:
        by_name[item.subject_id.casefold()].append(item)
    for same in by_name.values():
        for item in same:
            checked = _duplicate(item, same) if len(same) > 1 else _checked(item, root)
            if isinstance(checked, Rejected):
                rejected[checked.subject_id] = checked
            else:
                entries.append(checked)
    entries.sort(key=lambda entry: entry.subject_id)
    return tuple(entries), tuple(rejected[name] for name in sorted(rejected))


def _duplicate(item: SourceEntry | Rejected, same: list[SourceEntry | Rejected]) -> Rejected:
    places = ", ".join(_place(other) for other in same)
    message = (
        f"subject id {item.subject_id!r} is used {len(same)} times, ignoring case ({places}); "
        "none of them is taken, need one each"
    )
    return Rejected(item.subject_id, "E_DUPLICATE", message, _place(item))


def _checked(item: SourceEntry | Rejected, root: Path) -> SourceEntry | Rejected:
    fault = id_fault(item.subject_id)
    if fault:
        return Rejected(item.subject_id, "E_ID", f"{fault} (in {_place(item)})", _place(item))
    if isinstance(item, Rejected):
        return item
    for role, path in item.files.items():
        if _leaves(path, root):
            code, message = "E_SYMLINK", f"{path} is a link to {path.resolve()}, outside of {root}"
        elif not _is_file(path):
            code, message = (
                "E_MISSING",
                f"{str(path)!r} is no file; need the {role} of this subject",
            )
        else:
            continue
        return Rejected(item.subject_id, code, message, str(path))
    return item


def _place(item: SourceEntry | Rejected) -> str:
    return item.source if isinstance(item, Rejected) else str(item.image)


def _leaves(path: Path, root: Path) -> bool:
    """Whether following links leads out of ``root``, or out of the folder that a table names."""
    named = Path(os.path.normpath(path.absolute()))
    top = root if named.is_relative_to(root.absolute()) else named.parent
    return not _resolved(path).is_relative_to(top.resolve())


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, names no file can have
        return path.absolute()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _read_structures(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        structures = json.loads(path.read_bytes())
        wrong = [value for value in structures.items() if not _names_structure(*value)]
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        wrong = [str(error)]
    if wrong:
        needed = 'need label values and their names, such as {"1": "thalamus"}'
        raise UsageError("E_SOURCE", f"{path} cannot be used: {wrong[0]}; {needed}")
    return structures


def _names_structure(value: str, name: object) -> bool:
    # a name that begins so is a formula to spreadsheets, which open the tables that it goes into
    return value.isdecimal() and isinstance(name, str) and not name.startswith(_FORMULA)
