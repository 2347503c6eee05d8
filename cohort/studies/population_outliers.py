"""Subjects that stand apart, judged by what registration itself tells: no labels are looked at."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from cohort.studies.population_distances import symmetric_mean

APART = 3.5  # robust standard deviations
_MAD_TO_SD = 1.4826
_FEW = 10  # subjects; of fewer, half may be alike by chance, and then their MAD is next to nothing
# The least robust SD of a measure among few, as a share of its typical value: none of them stands
# apart by less than 3.5 times this, a tenth of what is typical. Among more the MAD can be trusted,
# and brains that are damaged a little differ by less.
_LEAST_SPREAD = 0.03
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


@dataclass(frozen=True, eq=False)
class _Judged:
    """One measure: its name, each subject's value, the typical one, the robust standard deviation,
    and which end is bad."""

    title: str
    values: np.ndarray
    typical: float
    spread: float
    bad: int

    def distances(self, least: float = 0.0) -> np.ndarray:
        """To the bad side, in robust standard deviations of at least this share of the typical."""
        spread = max(self.spread, least * abs(self.typical))
        return self.bad * (self.values - self.typical) / spread

    def reason(self, place: int) -> str:
        found = f"{self.title} {self.values[place]:.3g}, typical {self.typical:.3g}"
        return f"{found} ({self.distances()[place]:.1f} robust SD)"


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
    found: list[_Judged] = []
    few = len(names) < _FEW
    for column, title, bad in JUDGED:
        if column not in rows.columns or rows[column].null_count():
            continue
        values = np.nanmedian(symmetric_mean(rows, column, names), axis=1)
        typical = float(np.median(values))
        spread = _MAD_TO_SD * float(np.median(np.abs(values - typical)))
        if spread > 1e-9:
            found.append(_Judged(title, values, typical, spread, bad))
    if not found:
        return Outliers(np.zeros(len(names)), [""] * len(names), (), [], few)
    scores = np.stack([one.distances() for one in found])
    judged = np.stack([one.distances(_LEAST_SPREAD if few else 0.0) for one in found])
    is_apart = judged.max(0) > APART
    worst = np.where(is_apart, judged.argmax(0), scores.argmax(0))
    reasons = [found[measure].reason(place) for place, measure in enumerate(worst)]
    order = np.argsort(-scores.max(0), kind="stable")
    apart = [names[place] for place in order if is_apart[place]]
    return Outliers(scores.max(0), reasons, tuple(one.title for one in found), apart, few)
