"""How far a run is: what ``cohort status`` tells, once or again and again."""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cohort.data.storage import storage_error
from cohort.engine.events import pairs_per_hour, seconds_a_pair
from cohort.engine.results import read_rows
from cohort.engine.spec import RunSpec
from cohort.engine.summary import SUMMARISED, Summary, summarise

_SLOWEST = 3


@dataclass(frozen=True)
class RunProgress:
    """A run at one moment.

    Attributes:
        planned, done, left: pairs.
        pairs_per_hour: None as long as no pair succeeded.
        time_left_s: at that rate; None if it is not known or nothing is left.
        seconds_a_pair: of the workers' time, by kind of work.
        failures: pairs by code.
        slowest: the subjects whose pairs take longest, with their mean seconds.
        run_bytes, free_bytes: what the run takes on its disk, and what is free there.
        summary: of the rows.
    """

    planned: int
    done: int
    left: int
    pairs_per_hour: float | None
    time_left_s: float | None
    seconds_a_pair: dict[str, float]
    failures: dict[str, int]
    slowest: dict[str, float]
    run_bytes: int
    free_bytes: int
    summary: Summary


def progress_of(run_dir: Path) -> RunProgress:
    """How far a run is now.

    Raises:
        UsageError: ``E_RUN`` if there is no run.
        StorageError: if its parts cannot be read.
    """
    spec, rows = RunSpec.load(run_dir), read_rows(run_dir, SUMMARISED)
    summary, rate = summarise(rows), pairs_per_hour(run_dir)
    left = spec.n_pairs - summary.pairs
    counts = rows["status"].value_counts().sort("status").iter_rows()
    try:
        run_bytes = _bytes_below(run_dir)
        free_bytes = shutil.disk_usage(run_dir).free
    except OSError as error:
        raise storage_error(run_dir, error) from error
    return RunProgress(
        planned=spec.n_pairs,
        done=summary.pairs,
        left=left,
        pairs_per_hour=rate,
        time_left_s=3600 * left / rate if rate and left else None,
        seconds_a_pair=seconds_a_pair(run_dir),
        failures={code: count for code, count in counts if code != "ok"},
        slowest=_slowest(rows),
        run_bytes=run_bytes,
        free_bytes=free_bytes,
        summary=summary,
    )


def _bytes_below(folder: Path) -> int:
    """Of all files there; those that workers rename or take away meanwhile do not count."""
    found = 0
    for where, _, names in os.walk(folder):  # it passes over folders that are gone
        for name in names:
            with suppress(FileNotFoundError, NotADirectoryError):
                found += Path(where, name).stat().st_size
    return found


def _slowest(rows: pl.DataFrame) -> dict[str, float]:
    """Mean seconds of the pairs of the subjects that take longest, in either role."""
    roles = [
        rows.select(pl.col(role).alias("subject"), "elapsed_s") for role in ("fixed", "moving")
    ]
    means = pl.concat(roles).drop_nulls().group_by("subject").agg(pl.col("elapsed_s").mean())
    slowest = means.sort("elapsed_s", "subject", descending=[True, False]).head(_SLOWEST)
    return dict(slowest.iter_rows())
