"""What the tiles of a pass add up to: a tree of sums over worker processes.

A step of the tree adds up to eight files into one, of which there is one in memory at a time with
the sum: memory does not depend on how many subjects or tiles there are. Every step's file is whole
or absent, so that a driver that was killed goes on.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import polars as pl

from cohort.data.processes import in_processes
from cohort.data.storage import storage_error
from cohort.engine.results import read_rows
from cohort.engine.sums import FAN_IN, FOLDER, TOTAL, Sums, read_sums, write_sums
from cohort.errors import StorageError, SubjectError


@dataclass(frozen=True)
class _Addition:
    """Files to add up into one."""

    parts: tuple[Path, ...]
    into: Path


def total_of(run_dir: Path, workers: int = 1) -> Sums:
    """The sums over all of a pass, kept in ``RUN/total.zarr``; what its tiles added is dropped.

    Raises:
        SubjectError: ``E_EMPTY`` if no pair of the pass came to a good end.
        StorageError: if a file is damaged or cannot be written.
    """
    final = run_dir / TOTAL / "sums"
    found = read_sums(final)
    if found is not None:
        _drop(run_dir)
        return found
    parts = [path.parent for path in sorted((run_dir / FOLDER).glob("*/fields"))]
    if not parts:
        first = read_rows(run_dir, ("message",))["message"].to_list()[:1]
        said = f"no subject of {run_dir} could be registered; the first: {' '.join(first)}"
        raise SubjectError("E_EMPTY", said)
    level = 0
    while len(parts) > 1:
        level += 1
        groups = [parts[first : first + FAN_IN] for first in range(0, len(parts), FAN_IN)]
        steps = [
            _Addition(tuple(group), run_dir / TOTAL / f"level-{level}" / str(number))
            for number, group in enumerate(groups)
        ]
        for _ in in_processes(_add, steps, workers):
            pass
        parts = [step.into for step in steps]
    total = _sum_of(parts)
    _check_whole(run_dir, total)
    write_sums(final, total)
    _drop(run_dir)
    return total


def _check_whole(run_dir: Path, total: Sums) -> None:
    """Refuse sums of other subjects than those whose rows say that all went well."""
    rows = read_rows(run_dir, ("status",))
    good = set(rows.filter(pl.col("status") == "ok")["moving"])
    if good != set(total.subjects):
        other = sorted(good ^ set(total.subjects))
        raise StorageError(
            "E_SUMS",
            f"the sums of {run_dir} are not those of its rows: {', '.join(other[:5])}. Remove it:"
            " `cohort atlas` does that pass again",
        )


def _add(step: _Addition) -> None:
    if read_sums(step.into) is None:
        write_sums(step.into, _sum_of(step.parts))


def _sum_of(parts: Sequence[Path]) -> Sums:
    return reduce(lambda found, part: found + part, map(_there, parts))


def _there(part: Path) -> Sums:
    found = read_sums(part)
    assert found is not None, part
    return found


def _drop(run_dir: Path) -> None:
    """Remove what the total holds; warped labels stay."""
    gone = [*(run_dir / TOTAL).glob("level-*")]
    gone += [*(run_dir / FOLDER).glob("*/fields"), *(run_dir / FOLDER).glob("*/histogram")]
    for path in gone:
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise storage_error(path, error) from error
