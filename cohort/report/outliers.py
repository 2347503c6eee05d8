"""Subjects that stand apart in how they register."""

from typing import Any

import numpy as np
import polars as pl

from cohort.engine.standing import APART, Standing
from cohort.report.tables import done

_LEAST_COMPARED = 4  # subjects
# what a subject may stand apart in: a column, how people call it, and which end is bad
_JUDGED = (
    ("dice_mean", "Dice", -1),
    ("ncc", "NCC", -1),
    ("hd95_mm_mean", "HD95 in mm", 1),
    ("tre_mm", "keypoint error in mm", 1),
    ("ice_mm", "inverse-consistency error in mm", 1),
    ("folding", "share of folding", 1),
    ("sdlogj", "sdlogj", 1),
    ("displacement_mean_mm", "displacement in mm", 1),
)
# what of a row is looked at
COLUMNS = ("status", *(column for column, _, _ in _JUDGED))


def outliers(rows: pl.DataFrame) -> pl.DataFrame:
    """Subjects whose pairs stand apart from the others', the farthest first.

    A subject's median of a measure over its pairs, which one bad partner does not spoil, is
    compared with those of all subjects: see :class:`cohort.engine.standing.Standing`. Columns:
    subject, role, measure, value, typical, distance, and all that in words: reason.
    """
    good, found = done(rows.select("fixed", "moving", *COLUMNS)), []
    for column, title, bad in _JUDGED:
        for role in ("fixed", "moving"):
            known = good.filter(pl.col(column).is_finite())
            medians = known.group_by(role, maintain_order=True).agg(pl.col(column).median())
            if len(medians) < _LEAST_COMPARED:
                continue
            standing = Standing.of(medians[column].to_numpy(), bad)
            if standing is None:
                continue
            for place in np.flatnonzero(standing.distances > APART):
                value, distance = standing.values[place], standing.distances[place]
                subject = medians[role][int(place)]
                found.append((subject, role, title, float(value), standing.typical, distance))
    schema: dict[str, Any] = dict.fromkeys(("subject", "role", "measure"), pl.String)
    schema |= dict.fromkeys(("value", "typical", "distance"), pl.Float64)
    table = pl.DataFrame(found, schema=schema, orient="row")
    reason = pl.format(
        "median {} as {}: {}, typical {}",
        *("measure", "role"),
        *(pl.col(name).round_sig_figs(3) for name in ("value", "typical")),
    )
    table = table.with_columns(reason.alias("reason"))
    return table.sort("distance", "subject", "role", descending=[True, False, False])
