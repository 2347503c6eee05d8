"""The folders of a template's passes, and what they add up to.

``OUT/pass-1`` and so on are runs; the last pass is ``OUT/run``. Subjects that were added later have
runs of their own beside it, ``OUT/run-added-1`` and so on, to the same template.
"""

import json
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import polars as pl

from cohort.engine.plan import tiles_of
from cohort.engine.results import read_rows
from cohort.engine.spec import RunSpec
from cohort.engine.sums import Sums
from cohort.errors import UsageError
from cohort.studies.atlas.reduction import total_of

FINAL = "run"
FACTS = "pass.json"  # written when a pass is done


def passes_of(out: Path) -> int:
    """How many passes are done, without the last one."""
    number = 0
    while (out / f"pass-{number + 1}" / FACTS).exists():
        number += 1
    return number


def facts_of(run_dir: Path) -> dict[str, Any]:
    """What a pass found."""
    return json.loads((run_dir / FACTS).read_bytes())


def runs_of(run_dir: Path) -> list[Path]:
    """A pass's own run and those of subjects who were added to it and are through."""
    return [run_dir, *(one for one in added_to(run_dir) if (one / FACTS).exists())]


def rows_of(runs: Sequence[Path], columns: Sequence[str] | None = None) -> pl.DataFrame:
    """A row a subject of several runs; who failed and was added again is as in the end.

    Args:
        runs: of one pass.
        columns: to read, with ``status``; all by default.

    Raises:
        StorageError: if rows cannot be read.
    """
    rows = pl.concat([read_rows(one, columns) for one in runs])
    good_first = rows.sort(pl.col("status") != "ok", maintain_order=True)
    return good_first.unique("moving", keep="first", maintain_order=True)


def added_to(run_dir: Path) -> list[Path]:
    """The runs of subjects who were, or are being, added to a pass."""
    return sorted(run_dir.parent.glob(f"{run_dir.name}-added-*"))


def last_added(run_dir: Path) -> tuple[str, ...]:
    """The subjects of the last addition to a pass that is through; none if there is none."""
    runs = runs_of(run_dir)[1:]
    last = max(runs, key=lambda one: int(one.name.rpartition("-")[2]), default=None)
    return () if last is None else tuple(facts_of(last)["added"])


def addition_of(final: Path, subjects: Sequence[str]) -> Path:
    """Where the run of subjects to add goes, or lies if it was stopped.

    Raises:
        UsageError: ``E_ATLAS`` if that of other subjects was stopped.
    """
    runs = added_to(final)
    begun = [one for one in runs if not (one / FACTS).exists()]
    if not begun:
        return final.with_name(f"{final.name}-added-{len(runs) + 1}")
    if (begun[0] / "run.json").exists():
        tiles = tiles_of(begun[0], RunSpec.load(begun[0]))
        before = sorted(moving for tile in tiles for _, moving in tile.pairs)
        if before != sorted(subjects):
            raise UsageError(
                "E_ATLAS",
                f"{', '.join(before)} were being added and are not through: add them first, or"
                f" remove {begun[0]} to give them up",
            )
    return begun[0]


def sums_of(runs: Sequence[Path], workers: int) -> Sums:
    """Over the subjects of several runs; raises as `total_of` does."""
    return reduce(add, (total_of(one, workers) for one in runs))
