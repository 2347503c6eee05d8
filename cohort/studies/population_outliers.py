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
        apart: subjects beyond 3.5, the farthest first.
        few: whether there are so few that their deviations have a floor.
    """

    scores: np.ndarray
    reasons: list[str]
    measures: tuple[str, ...]
    apart: list[str]
    few: bool


def rank_outliers(rows: pl.DataFrame, names: tuple[str, ...]) -> Outliers:
    """Score each subject by the measure in which it stands apart most.

    A subject's value of a measure is the *median* over its partners, so that one bad partner does
    not make a good subject look bad. It is compared with those of all subjects, see
    :class:`cohort.engine.standing.Standing`; the largest of the measures is the score. Measures
    that not every row has, or in which subjects do not differ, are left out.

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
    distances = np.stack([one.distances for one in found.values()])
    scores, worst = distances.max(0), distances.argmax(0)
    titles = tuple(found)
    reasons = [
        _reason(titles[measure], found[titles[measure]], place)
        for place, measure in enumerate(worst)
    ]
    order = np.argsort(-scores, kind="stable")
    apart = [names[place] for place in order if scores[place] > APART]
    return Outliers(scores, reasons, titles, apart, few)


def _reason(title: str, standing: Standing, place: int) -> str:
    found = f"{title} {standing.values[place]:.3g}, typical {standing.typical:.3g}"
    return f"{found} ({standing.distances[place]:.1f} robust SD)"
