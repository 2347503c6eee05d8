"""Whether what a run keeps beside its rows is there and can be read."""

from collections.abc import Iterator, Set
from pathlib import Path

import numpy as np
import pyarrow as pa

from cohort.engine.beside import keeps_displacement
from cohort.engine.displacements import FOLDER as DISPLACEMENTS
from cohort.engine.displacements import check_kept
from cohort.engine.events import parse_event
from cohort.engine.inspection import Finding
from cohort.engine.spec import RunSpec
from cohort.engine.sums import FOLDER as SUMS
from cohort.engine.sums import TOTAL, check_sums, has_sums
from cohort.errors import StorageError


def beside_faults(run_dir: Path, spec: RunSpec, tile: str, rows: pa.Table) -> Iterator[Finding]:
    """What is damaged or missing of what was kept beside the rows of a tile.

    Args:
        run_dir: the run.
        spec: its facts, which say what it keeps.
        tile: committed.
        rows: all of it; pairs that failed have nothing beside them.

    Raises:
        StorageError: ``E_STORAGE`` if the file system fails.
    """
    names = ["fixed", "moving", "pair_key", "status"]
    columns = [rows[name].to_pylist() for name in names]
    good = {(f, m): key for f, m, key, status in zip(*columns, strict=True) if status == "ok"}
    path = run_dir / "uncertainty" / f"{tile}.npz"
    fault = _npz_fault(path, set(good) if spec.keep_uncertainty else set())
    if fault:
        yield Finding("E_UNCERTAINTY", str(path), fault, tile)
    kept = {pair for pair, key in good.items() if keeps_displacement(spec, key)}
    try:
        check_kept(run_dir, tile, kept)
    except StorageError as error:
        if error.code != "E_KEPT":
            raise
        yield Finding(error.code, str(run_dir / DISPLACEMENTS / tile), error.message, tile)
    path = run_dir / SUMS / tile
    try:
        check_sums(path)
    except StorageError as error:
        if error.code != "E_SUMS":
            raise
        yield Finding(error.code, str(path), error.message, tile)
    if spec.sums and good and not has_sums(path) and not has_sums(run_dir / TOTAL / "sums"):
        yield Finding("E_SUMS", str(path), "what the tile added is gone", tile)


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


def _npz_fault(path: Path, pairs: Set[tuple[str, str]]) -> str | None:
    if not path.exists():
        return "what was kept of its pairs is gone" if pairs else None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            counts = {len(arrays[name]) for name in arrays.files}
            there = set(zip(arrays["fixed"].tolist(), arrays["moving"].tolist(), strict=True))
    except Exception as error:  # zipfile and numpy have many names for damage
        return f"it cannot be read: {error}"
    if len(counts) != 1:
        return "its arrays are of different numbers of pairs"
    return None if pairs <= there else f"it has nothing of {min(pairs - there)}"
