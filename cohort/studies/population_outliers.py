"""Subjects that stand apart, judged by what registration itself tells: no labels are looked at."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from cohort.engine.standing import APART, FEW, Standing
from cohort.studies.population_distances import symmetric_mean

# a column, its name for people, and the end that is bad
JUDGED = (
    ("ncc_before", "NCC before", -1),
    ("ncc", "NCC after", -1),
    ("displacement_mean_mm", "mean displacement in mm", 1),
    ("sdlogj", "sd ln det J", 1),
    ("ice_mm", "inverse-consistency error in mm", 1),
)


@dataclass(frozen=True, eq=False)
class Outliers:
    """How far each subject stands apart.

    Attributes:
        scores: float64 ``[N]``, robust standard deviations; negative if nothing is bad.
        reasons: the measure that decided, with its value and the typical one.
        measures: names for people of the measures that were judged.
        apart: subjects beyond 3.5, among few with a floor under the deviations; the farthest first.
        few: whether these are so few.
    """

    scores: np.ndarray
    reasons: list[str]
    measures: tuple[str, ...]
    apart: list[str]
    few: bool


def rank_outliers(rows: pl.DataFrame, names: tuple[str, ...]) -> Outliers:
    """Score each subject by the measure in which it stands apart most.

    A subject's value of a measure is the *median* over its partners, so that one bad partner does
    not make a good subject look bad. It is compared with the median over all subjects, in units of
    1.4826 times their median absolute deviation, towards the bad side; the largest of the measures
    is the score. Measures that not every row has, or in which subjects do not differ, are left out.
    Among fewer than ten subjects nobody stands apart by less than a tenth of what is typical.

    Args:
        rows: of the pairs that were registered.
        names: the subjects.
    """
    found: dict[str, Standing] = {}
    few = len(names) < FEW
    for column, title, bad in JUDGED:
        if column not in rows.columns or rows[column].null_count():
            continue
        values = np.nanmedian(symmetric_mean(rows, column, names), axis=1)
        standing = Standing.of(values, bad)
        if standing is not None:
            found[title] = standing
    if not found:
        return Outliers(np.zeros(len(names)), [""] * len(names), (), [], few)
    scores = np.stack([one.distances for one in found.values()])
    judged = np.stack([one.judged for one in found.values()])
    is_apart = judged.max(0) > APART
    worst = np.where(is_apart, judged.argmax(0), scores.argmax(0))
    titles = tuple(found)
    reasons = [
        _reason(titles[measure], found[titles[measure]], place)
        for place, measure in enumerate(worst)
    ]
    order = np.argsort(-scores.max(0), kind="stable")
    apart = [names[place] for place in order if is_apart[place]]
    return Outliers(scores.max(0), reasons, titles, apart, few)


def _reason(title: str, standing: Standing, place: int) -> str:
    found = f"{title} {standing.values[place]:.3g}, typical {standing.typical:.3g}"
    return f"{found} ({standing.distances[place]:.1f} robust SD)"
