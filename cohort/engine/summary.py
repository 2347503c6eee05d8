"""Counts and means of a run's rows: what a run comes to in a few numbers."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cohort.engine.results import read_rows

MEASURES = (
    "dice_mean", "dice_before", "ncc", "ncc_before", "folding", "sdlogj",
    "displacement_mean_mm", "epe_mm", "epe_before_mm", "tre_mm", "tre_before_mm",
    "hd95_mm_mean", "surface_dice_mean", "ice_mm",
)  # fmt: skip
SUMMARISED = ("status", "message", "elapsed_s", *MEASURES)


@dataclass(frozen=True)
class Summary:
    """Means over the pairs that succeeded; None where nothing was measured."""

    pairs: int
    ok: int
    failed: int
    dice_mean: float | None
    dice_before: float | None
    ncc: float | None
    ncc_before: float | None
    folding: float | None
    sdlogj: float | None
    displacement_mean_mm: float | None
    epe_mm: float | None
    epe_before_mm: float | None
    tre_mm: float | None
    tre_before_mm: float | None
    hd95_mm_mean: float | None
    surface_dice_mean: float | None
    ice_mm: float | None
    busy_s: float
    reasons: dict[str, str]  # of each code of failed pairs, the commonest sentence


def read_summary(run_dir: Path) -> Summary:
    """Counts and means of a run's rows.

    Raises:
        StorageError: as :func:`read_table` does.
    """
    return summarise(read_rows(run_dir, SUMMARISED))


def summarise(rows: pl.DataFrame) -> Summary:
    """Counts and means of a table of rows that has the columns `SUMMARISED`."""
    good = rows.filter(pl.col("status") == "ok")
    means = good.select(pl.col(MEASURES).mean()).row(0, named=True)
    return Summary(
        pairs=len(rows),
        ok=len(good),
        failed=len(rows) - len(good),
        busy_s=float(rows["elapsed_s"].sum()),
        reasons=_reasons(rows.filter(pl.col("status") != "ok")),
        **means,
    )


def _reasons(failed: pl.DataFrame) -> dict[str, str]:
    counted = failed.group_by("status", "message").len().sort("len", "message", descending=True)
    commonest = counted.unique("status", keep="first").sort("status")
    return dict(commonest.select("status", pl.col("message").fill_null("")).iter_rows())
