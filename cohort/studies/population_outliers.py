"""Subjects that stand apart, judged by what registration itself tells: no labels are looked at."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from cohort.studies.population_distances import symmetric_mean

APART = 3.5  # robust standard deviations
_MAD_TO_SD = 1.4826
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
    """

    scores: np.ndarray
    reasons: list[str]
    measures: tuple[str, ...]
    apart: list[str]


@dataclass(frozen=True, eq=False)
class _Judged:
    """One measure: its name, each subject's value, the typical one, distances to the bad side."""

    title: str
    values: np.ndarray
    typical: float
    distances: np.ndarray

    def reason(self, place: int, score: float) -> str:
        found = f"{self.title} {self.values[place]:.3g}, typical {self.typical:.3g}"
        return f"{found} ({score:.1f} robust SD)"


def rank_outliers(rows: pl.DataFrame, names: tuple[str, ...]) -> Outliers:
    """Score each subject by the measure in which it stands apart most.

    A subject's value of a measure is the *median* over its partners, so that one bad partner does
    not make a good subject look bad. It is compared with the median over all subjects, in units of
    1.4826 times their median absolute deviation, towards the bad side; the largest of the measures
    is the score. Measures that not every row has, or in which subjects do not differ, are left out.

    Args:
        rows: of the pairs that were registered.
        names: the subjects.
    """
    found: list[_Judged] = []
    for column, title, bad in JUDGED:
        if column not in rows.columns or rows[column].null_count():
            continue
        values = np.nanmedian(symmetric_mean(rows, column, names), axis=1)
        typical = float(np.median(values))
        spread = _MAD_TO_SD * float(np.median(np.abs(values - typical)))
        if spread > 1e-9:
            found.append(_Judged(title, values, typical, bad * (values - typical) / spread))
    if not found:
        return Outliers(np.zeros(len(names)), [""] * len(names), (), [])
    distances = np.stack([one.distances for one in found])
    worst, scores = distances.argmax(0), distances.max(0)
    reasons = [
        found[measure].reason(place, score)
        for place, (measure, score) in enumerate(zip(worst, scores, strict=True))
    ]
    order = np.argsort(-scores, kind="stable")
    apart = [names[place] for place in order if scores[place] > APART]
    return Outliers(scores, reasons, tuple(one.title for one in found), apart)
