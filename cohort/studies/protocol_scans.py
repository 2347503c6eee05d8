"""The scans of a protocol: found by a pattern, split by position, brought onto the case's grid."""

import csv
import io
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cohort.config.protocol import NATIVE, RANGE, SUBJECT, Case
from cohort.data.geometry import Grid, parse_grid
from cohort.data.ingest import ingest
from cohort.data.ingest_settings import IngestSettings
from cohort.data.nifti import read_grid, write_nifti
from cohort.data.storage import storage_error, to_json, write_atomic
from cohort.data.store import CohortStore
from cohort.errors import UsageError

_MULTIPLE = 16  # pyramids halve a grid four times
_ID = "[A-Za-z0-9._-]+"


class Scan(NamedTuple):
    """One scan of a data set as it came."""

    subject: str
    image: Path
    labels: Path


def find_scans(data: Path, case: Case) -> list[Scan]:
    """The scans of a case in the order of their ids, numbers by their value.

    Raises:
        UsageError: ``E_SOURCE`` if there are more or fewer than the protocol has, or a scan has no
            labels.
    """
    first, *others = (re.escape(part) for part in case.images.split(SUBJECT))
    again = "(?P=subject)".join(others)
    pattern = re.compile(f"{first}(?P<subject>{_ID}){again}")
    scans = []
    for path in data.glob(case.images.replace(SUBJECT, "*")):
        found = pattern.fullmatch(path.relative_to(data).as_posix())
        if found:
            subject = found["subject"]
            scans.append(Scan(subject, path, data / case.labels.replace(SUBJECT, subject)))
    if len(scans) != case.scans:
        raise UsageError(
            "E_SOURCE",
            f"{case.name}: found {len(scans)} scans as {data / case.images}; the protocol has"
            f" {case.scans}",
        )
    without = [scan for scan in scans if not scan.labels.is_file()]
    if without:
        raise UsageError(
            "E_SOURCE",
            f"{case.name}: {len(without)} of {len(scans)} scans have no labels, such as"
            f" {without[0].subject}; need {without[0].labels}",
        )
    return sorted(scans, key=lambda scan: _by_number(scan.subject))


def chosen(selection: str | Sequence[int | str], scans: Sequence[Scan], what: str) -> list[Scan]:
    """The scans of a selection, see :class:`cohort.config.protocol.Fold`; `what` names it.

    Raises:
        UsageError: ``E_CONFIG`` if there is no such scan.
    """
    if isinstance(selection, str):
        bounds = RANGE.fullmatch(selection)
        assert bounds, "the model has checked it"
        first, last = (_at(int(text), len(scans), what) for text in bounds.groups())
        if first > last:
            raise UsageError("E_CONFIG", f"{what}: {selection} of {len(scans)} scans holds none")
        return list(scans[first : last + 1])
    by_id = {scan.subject: scan for scan in scans}
    found = []
    for one in selection:
        if isinstance(one, int):
            found.append(scans[_at(one, len(scans), what)])
        elif one in by_id:
            found.append(by_id[one])
        else:
            raise UsageError("E_CONFIG", f"{what}: no scan {one!r}; some: {', '.join(by_id)[:80]}")
    return found


def ingest_scans(
    folder: Path,
    case: Case,
    scans: Sequence[Scan],
    everyone: Sequence[Scan],
    structures: dict[int, str],
    workers: int,
) -> CohortStore:
    """A store of some scans of a case; again, only what is new or changed is read.

    Args:
        folder: gets ``cohort.zarr``, and beside it the table and the grid that it was made from.
        case: whose scans they are.
        scans: that go into the store.
        everyone: of the case; a native grid is that of all of them.
        structures: names of label values.
        workers: processes; 0 and 1 are this one.

    Raises:
        UsageError: ``E_SOURCE`` if a scan cannot be used, with the reason.
        StorageError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    grid = working_grid(case.grid, scans[0], everyone)
    like, table = folder / "grid.nii.gz", folder / "scans.csv"
    write_nifti(like, np.zeros(grid.shape, np.uint8), grid.affine)
    write_atomic(table, _csv(("subject", "image", "labels"), scans))
    if structures:
        names = {str(value): name for value, name in structures.items()}
        write_atomic(folder / "structures.json", to_json(names))
    settings = IngestSettings(like=like, align=case.align, reference=scans[0].subject)
    at = folder / "cohort.zarr"
    report = ingest(table, at, settings, workers=max(workers, 1))
    if report.quarantined:
        subject, (code, message) = next(iter(report.quarantined.items()))
        raise UsageError(
            "E_SOURCE",
            f"{case.name}: {len(report.quarantined)} of {len(scans)} scans cannot be used, and the"
            f" protocol needs all; {subject}: {code}: {message}",
        )
    return CohortStore.open(at)


def working_grid(text: str, first: Scan, everyone: Sequence[Scan]) -> Grid:
    """The grid of a case around the middle of its first scan.

    A scan of just this shape and spacing keeps its voxels as they are.
    """
    shape_text, spacing_text = text.split("@")
    native = NATIVE in (shape_text, spacing_text)
    grids = [read_grid(scan.image) for scan in everyone] if native else []
    if spacing_text == NATIVE:
        middle = np.round(np.median([grid.spacing_mm for grid in grids], axis=0), 4)
        spacing_mm = tuple(middle.tolist())
    else:
        spacing_mm = parse_grid(f"1x1x1@{spacing_text}")[1]
    if shape_text == NATIVE:
        largest_mm = np.max([grid.extent_mm() for grid in grids], axis=0)
        blocks = np.ceil(largest_mm / np.array(spacing_mm) / _MULTIPLE - 1e-3)
        depth, height, width = (int(count) * _MULTIPLE for count in blocks)
        shape = (depth, height, width)
    else:
        shape = parse_grid(f"{shape_text}@1mm")[0]
    return Grid.axis_aligned(shape, spacing_mm, read_grid(first.image).center_mm)


def write_pairs(path: Path, scans: Sequence[Scan], design: str) -> int:
    """The pairs of a protocol as a table of fixed and moving; returns how many they are.

    ``ordered`` are all, ``consecutive`` has each scan fixed and the next one moving.
    """
    names = [scan.subject for scan in scans]
    if design == "consecutive":
        pairs = list(pairwise(names))
    else:
        pairs = [(fixed, moving) for fixed in names for moving in names if fixed != moving]
    write_atomic(path, _csv(("fixed", "moving"), pairs))
    return len(pairs)


def _at(position: int, count: int, what: str) -> int:
    index = position - 1 if position > 0 else count + position
    if not 0 <= index < count:
        raise UsageError("E_CONFIG", f"{what}: there is no scan {position} among {count}")
    return index


def _by_number(subject: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", subject)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _csv(titles: Sequence[str], rows: Sequence[Sequence[str | Path]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows(
        [one.absolute() if isinstance(one, Path) else one for one in row] for row in rows
    )
    return text.getvalue().encode()
