"""The tables of one run: by structure, by subject in each role, and one row for the run."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import polars as pl

from cohort.report.run_values import RunValues
from cohort.report.statistics.design import PairDesign
from cohort.report.statistics.intervals import mean_over_pairs

_QUANTILES = {"median": 0.5, "p05": 0.05, "p25": 0.25, "p75": 0.75, "p95": 0.95}


def run_tables(run: RunValues, names: Mapping[int, str]) -> dict[str, pl.DataFrame]:
    """Every table of a run by its name: what `cohort report` writes.

    ``by_run`` (one row), ``by_structure``, ``by_subject_as_fixed``, ``by_subject_as_moving``.
    """
    design = PairDesign.of(run.pairs)
    return {
        "by_run": by_run(run, design),
        "by_structure": by_structure(run, names, design),
        "by_subject_as_fixed": by_subject(run, "fixed"),
        "by_subject_as_moving": by_subject(run, "moving"),
    }


def describe(values: Mapping[str, np.ndarray], design: PairDesign) -> pl.DataFrame:
    """How each of these columns, ``[P]`` and NaN where absent, is distributed over pairs.

    Columns: column, n, mean, sd, median, p05, p25, p75, p95, low, high. The last two are the 95 %
    interval of the mean over subjects (:func:`mean_over_pairs`), null where there is none.
    """
    rows = [_description(name, own, design) for name, own in values.items()]
    floats = ("mean", "sd", *_QUANTILES, "low", "high")
    schema = {"column": pl.String, "n": pl.Int64, **dict.fromkeys(floats, pl.Float64)}
    return pl.DataFrame(rows, schema).fill_nan(None)


def _description(name: str, values: np.ndarray, design: PairDesign) -> dict[str, Any]:
    ordered = pl.Series(values, nan_to_null=True).drop_nulls().sort()  # once, for all quantiles
    estimate = mean_over_pairs(values, design)
    return {
        "column": name,
        "n": estimate.n,
        "mean": estimate.mean,
        "sd": ordered.std(),
        **{name: ordered.quantile(share, "linear") for name, share in _QUANTILES.items()},
        "low": estimate.low,
        "high": estimate.high,
    }


def by_structure(run: RunValues, names: Mapping[int, str], design: PairDesign) -> pl.DataFrame:
    """Every measure of structures, structure by structure, as :func:`describe` tells it.

    Columns: measure, structure, name, n, mean, sd, median, percentiles, low, high.
    """
    tables = [
        describe(run.structures(measure), design).with_columns(measure=pl.lit(measure))
        for measure in run.structure_measures
    ]
    table = pl.concat(tables) if tables else describe({}, design)
    label = pl.col("column").cast(pl.Int32)
    called = pl.Series([names.get(int(one), f"structure {one}") for one in table["column"]])
    return table.select(
        pl.col("measure") if tables else pl.lit("").alias("measure"),
        label.alias("structure"),
        called.cast(pl.String).alias("name"),
        pl.exclude("measure", "column"),
    )


def by_subject(run: RunValues, role: Literal["fixed", "moving"]) -> pl.DataFrame:
    """Every measure, subject by subject, over the pairs in which the subject has this role.

    Columns: measure, subject, n, mean, sd, median, p05, p25, p75, p95.
    """
    # integers, as groups by strings take several times as long
    subject = run.pairs[role].cast(pl.Categorical).alias("subject")
    value = pl.col("value")
    statistics = (
        value.count().cast(pl.Int64).alias("n"),
        value.mean().alias("mean"),
        value.std().alias("sd"),
        *(value.quantile(share, "linear").alias(name) for name, share in _QUANTILES.items()),
    )
    empty = {"subject": pl.Categorical, "value": pl.Float64}
    frames = [pl.DataFrame(schema=empty).group_by("subject").agg(*statistics)]
    for own in run.measures.values():
        frame = pl.DataFrame([subject, pl.Series("value", own, nan_to_null=True)]).drop_nulls()
        frames.append(frame.group_by("subject").agg(*statistics))
    named = zip(("", *run.measures), frames, strict=True)
    return (
        pl.concat([frame.select(pl.lit(name).alias("measure"), pl.all()) for name, frame in named])
        .with_columns(pl.col("subject").cast(pl.String))
        .sort("measure", "subject")
    )


def by_run(run: RunValues, design: PairDesign) -> pl.DataFrame:
    """One row: run, method, pairs, failed, units, unit, seconds_a_pair, and five columns a measure.

    These are ``X_mean``, ``X_sd``, ``X_median``, ``X_low`` and ``X_high``.
    """
    row: dict[str, Any] = {
        "run": run.name,
        "method": run.spec.method.name,
        "pairs": len(run.pairs),
        "failed": run.failed,
        "units": design.n_units,
        "unit": design.unit.value,
        "seconds_a_pair": float(run.seconds.mean()) if len(run.seconds) else None,
    }
    for told in describe(run.measures, design).iter_rows(named=True):
        for name in ("mean", "sd", "median", "low", "high"):
            row[f"{told['column']}_{name}"] = told[name]
    return pl.DataFrame([row], infer_schema_length=None)
