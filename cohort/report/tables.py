"""The tables of a report: frames of result rows in, small frames out.

`rows` is what `cohort.engine.results.read_rows` returns, one row per pair.
"""

import polars as pl


def main_measure(rows: pl.DataFrame) -> str:
    """The column that pairs are judged by: ``dice_mean``, or ``ncc`` where there are no labels."""
    return "ncc" if rows["dice_mean"].is_null().all() else "dice_mean"


def done(rows: pl.DataFrame) -> pl.DataFrame:
    """The pairs that were registered."""
    return rows.filter(pl.col("status") == "ok")


def subject_table(rows: pl.DataFrame, measure: str = "dice_mean") -> pl.DataFrame:
    """Mean `measure` of every subject in both of its roles, lowest first; failed pairs are counted.

    Columns: subject_id, as_fixed, n_fixed, as_moving, n_moving, failed.
    """
    roles = [_by_role(rows, role, measure) for role in ("fixed", "moving")]
    table = roles[0].join(roles[1], on="subject_id", how="full", coalesce=True)
    counts = [pl.col(name).fill_null(0) for name in ("n_fixed", "n_moving", "failed_fixed")]
    return (
        table.with_columns(*counts, pl.col("failed_moving").fill_null(0))
        .with_columns((pl.col("failed_fixed") + pl.col("failed_moving")).alias("failed"))
        .sort(pl.mean_horizontal("as_fixed", "as_moving"), "subject_id", nulls_last=True)
        .select("subject_id", "as_fixed", "n_fixed", "as_moving", "n_moving", "failed")
    )


def _by_role(rows: pl.DataFrame, role: str, measure: str) -> pl.DataFrame:
    ok = pl.col("status") == "ok"
    return rows.group_by(pl.col(role).alias("subject_id")).agg(
        pl.col(measure).filter(ok).mean().alias(f"as_{role}"),
        ok.sum().alias(f"n_{role}"),
        (~ok).sum().alias(f"failed_{role}"),
    )


def worst_pairs(rows: pl.DataFrame, n: int = 10) -> pl.DataFrame:
    """The `n` registered pairs with the lowest main measure, worst first."""
    measure = main_measure(rows)
    judged = done(rows.select("status", "fixed", "moving", measure).with_row_index())
    scored = judged.filter(pl.col(measure).is_finite())
    worst = scored.sort(measure, "fixed", "moving").head(n)
    return rows[worst["index"]]


def failure_table(rows: pl.DataFrame) -> pl.DataFrame:
    """Failed pairs by code and reason, most frequent first.

    Columns: code, message, pairs (their number), fixed and moving (of the first one).
    """
    return (
        rows.filter(pl.col("status") != "ok")
        .sort("fixed", "moving")
        .group_by(pl.col("status").alias("code"), pl.col("message").fill_null(""))
        .agg(pl.len().alias("pairs"), pl.col("fixed").first(), pl.col("moving").first())
        .sort("pairs", "code", "message", descending=[True, False, False])
    )
