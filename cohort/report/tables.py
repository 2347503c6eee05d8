"""The tables of a report: frames of result rows in, small frames out.

`rows` is what `cohort.engine.results.read_rows` returns, one row per pair.
"""

import polars as pl

# newer versions of polars read Parquet maps as maps, older ones as these lists
_SCORES = pl.List(pl.Struct({"key": pl.Int32, "value": pl.Float64}))


def main_measure(rows: pl.DataFrame) -> str:
    """The column that pairs are judged by: ``dice_mean``, or ``ncc`` where there are no labels."""
    return "ncc" if rows["dice_mean"].is_null().all() else "dice_mean"


def done(rows: pl.DataFrame) -> pl.DataFrame:
    """The pairs that were registered."""
    return rows.filter(pl.col("status") == "ok")


def structure_table(rows: pl.DataFrame, names: dict[int, str]) -> pl.DataFrame:
    """Dice per structure over all registered pairs, lowest mean first.

    Columns: structure, name, n, before (mean), mean, sd, median, p05, p25, p75, p95. A pair counts
    for the structures that both of its subjects have.
    """
    after = _by_structure(rows, "dice")
    before = _by_structure(rows, "dice_structures_before")
    value = pl.col("value")
    quantiles = [
        value.quantile(share, "linear").alias(f"p{round(100 * share):02d}")
        for share in (0.05, 0.25, 0.75, 0.95)
    ]
    table = after.group_by("structure").agg(
        value.count().alias("n"),
        value.mean().alias("mean"),
        value.std().alias("sd"),
        value.median().alias("median"),
        *quantiles,
    )
    means_before = before.group_by("structure").agg(value.mean().alias("before"))
    labels = table["structure"].to_list()
    named = pl.Series("name", [names.get(s, f"structure {s}") for s in labels], dtype=pl.String)
    return (
        table.with_columns(named)
        .join(means_before, on="structure", how="left")
        .select(
            *("structure", "name", "n", "before", "mean", "sd", "median"),
            *("p05", "p25", "p75", "p95"),
        )
        .sort("mean", "structure")
    )


def _by_structure(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """One row per pair and structure: ``structure``, ``value``."""
    scores = done(rows.select("status", column))
    entries = scores.select(pl.col(column).cast(_SCORES).alias("entry"))
    field = pl.col("entry").struct.field
    scores = entries.explode("entry").drop_nulls()
    table = scores.select(field("key").alias("structure"), field("value").alias("value"))
    return table.filter(pl.col("value").is_finite())


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
    """The `n` registered pairs with the lowest main measure, worst first.

    Their ``dice`` is a list of ``{"key": structure, "value": Dice}``.
    """
    measure = main_measure(rows)
    # without the scores of structures, which are many times as large as all else
    judged = done(rows.select("status", "fixed", "moving", measure).with_row_index())
    scored = judged.filter(pl.col(measure).is_finite())
    worst = scored.sort(measure, "fixed", "moving").head(n)
    return rows[worst["index"]].with_columns(pl.col("dice").cast(_SCORES))


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
