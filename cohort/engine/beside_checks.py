"""Whether what a run keeps beside its rows can be read."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from cohort.engine.displacements import FOLDER as DISPLACEMENTS
from cohort.engine.displacements import check_kept
from cohort.engine.events import parse_event
from cohort.engine.inspection import Finding
from cohort.engine.sums import FOLDER as SUMS
from cohort.engine.sums import TOTAL, check_sums
from cohort.errors import StorageError


def beside_faults(run_dir: Path, tile_ids: Iterable[str]) -> Iterator[Finding]:
    """What is damaged of what was kept of each tile.

    Raises:
        StorageError: ``E_STORAGE`` if the file system fails.
    """
    for tile in sorted(tile_ids):
        path = run_dir / "uncertainty" / f"{tile}.npz"
        fault = _npz_fault(path) if path.exists() else None
        if fault:
            yield Finding("E_UNCERTAINTY", str(path), fault, tile)
        try:
            check_kept(run_dir, tile)
        except StorageError as error:
            if error.code != "E_KEPT":
                raise
            yield Finding(error.code, str(run_dir / DISPLACEMENTS / tile), error.message, tile)
        try:
            check_sums(run_dir / SUMS / tile)
        except StorageError as error:
            if error.code != "E_SUMS":
                raise
            yield Finding(error.code, str(run_dir / SUMS / tile), error.message, tile)


def total_faults(run_dir: Path) -> Iterator[Finding]:
    """Whether what a pass of a template added up to can be read, if it was added up.

    Raises:
        StorageError: ``E_STORAGE`` if the file system fails.
    """
    path = run_dir / TOTAL / "sums"
    try:
        check_sums(path)
    except StorageError as error:
        if error.code != "E_SUMS":
            raise
        yield Finding(error.code, str(path), error.message)


def event_faults(run_dir: Path) -> Iterator[Finding]:
    """A driver that was killed may leave one line unfinished; more, or others, are damage."""
    path = run_dir / "events.jsonl"
    lines = path.read_bytes().splitlines() if path.is_file() else []
    events = [parse_event(line) for line in lines]
    starts = sum(event is not None and event["event"] == "run_started" for event in events)
    broken = [line for line, event in zip(lines, events, strict=True) if event is None]
    unfinished = [line for line in broken if line.isascii() and not line.endswith(b"}")]
    if len(broken) > len(unfinished) or len(unfinished) > starts:
        sentence = f"{len(broken)} of its {len(lines)} lines are unreadable"
        yield Finding("E_EVENTS", str(path), sentence)


def _npz_fault(path: Path) -> str | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            counts = {len(arrays[name]) for name in arrays.files}
    except Exception as error:  # zipfile and numpy have many names for damage
        return f"it cannot be read: {error}"
    return None if len(counts) == 1 else "its arrays are of different numbers of pairs"
