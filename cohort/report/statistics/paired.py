"""Whether the differences of two runs on the same pairs are more than chance."""

from dataclasses import dataclass
from math import nan

import numpy as np
from scipy import special
from scipy.stats import rankdata, wilcoxon

from cohort.report.statistics.design import PairDesign, Unit
from cohort.report.statistics.intervals import Estimate, mean_over_pairs

MOST_ENUMERATED = 14
RANDOM_FLIPS = 9_999
_SEED = 0
_BLOCK = 1_000  # flips at a time, so that thousands of subjects take little memory


@dataclass(frozen=True, eq=False)
class Comparison:
    """Differences of two runs on the same pairs.

    Attributes:
        difference: their mean with its interval.
        p: two-sided; NaN where there is no interval.
        effect_size: mean of the units' scores over their standard deviation (Cohen's d_z); NaN
            where they do not vary.
        test: its name: ``sign flips``, ``Wilcoxon`` or ``Welch``.
        flips: how many sign patterns were compared; 0 for the other tests.
    """

    difference: Estimate
    p: float
    effect_size: float
    test: str
    flips: int


def compare_pairs(differences: np.ndarray, design: PairDesign) -> Comparison:
    """Test whether ``differences [P]`` have a mean of zero.

    Where pairs share subjects, the signs of the subjects' scores are flipped: a score is the
    subject's pseudo-value, which holds its own effect alone, whereas the mean of its pairs also
    holds its partners'. With up to 14 units all patterns of signs are compared, beyond 9,999 random
    ones from a fixed seed. Two groups of which one is small and varies have scores of two spreads,
    and are compared by the interval's t (Welch). Where no subject recurs, the signed ranks of the
    pairs are (Wilcoxon).
    """
    estimate = mean_over_pairs(differences, design)
    scores = estimate.scores
    if not len(scores):
        return Comparison(estimate, nan, nan, "none", 0)
    spread = float(scores.std(ddof=1))
    # what is left of equal scores is the rounding of their sum
    effect = float(scores.mean()) / spread if spread > 1e-12 * np.abs(scores).max() else nan
    if design.unit is Unit.PAIR:
        p = signed_ranks(_unit_means(differences, design))
        return Comparison(estimate, p, effect, "Wilcoxon", 0)
    if design.unit is Unit.TWO_GROUPS:
        return Comparison(estimate, _welch(estimate), effect, "Welch", 0)
    p, flips = sign_flips(scores)
    return Comparison(estimate, p, effect, "sign flips", flips)


def _welch(estimate: Estimate) -> float:
    """Two-sided p of Student's t with the degrees of freedom of the interval."""
    if estimate.mean == 0 or estimate.error == 0:
        return float(estimate.mean == 0)
    return 2 * float(special.stdtr(estimate.freedom, -abs(estimate.mean) / estimate.error))


def _unit_means(differences: np.ndarray, design: PairDesign) -> np.ndarray:
    """The mean difference of each unit that has one.

    Signed ranks see the sign of a rounding: equal runs must differ by exactly 0, which the
    pseudo-value of an equal pair does not.
    """
    finite = np.isfinite(differences)
    there = design.only(finite)
    counts = there.sums(np.ones(int(finite.sum())))
    sums = there.sums(differences[finite])
    return sums[counts > 0] / counts[counts > 0]


def sign_flips(scores: np.ndarray) -> tuple[float, int]:
    """Two-sided p of the mean of ``scores [n]`` under flips of their signs, and how many flips.

    Exact with up to 14 scores; random ones count the observed pattern too, so that p is never 0.
    """
    total = scores.sum()
    # equal up to the rounding of sums counts as equal
    reached = abs(total) * (1 - 1e-9) - 1e-300
    if len(scores) <= MOST_ENUMERATED:
        patterns = np.arange(2 ** len(scores))[:, None] >> np.arange(len(scores)) & 1
        hits = np.count_nonzero(np.abs(2 * (patterns @ scores) - total) >= reached)
        return hits / len(patterns), len(patterns)
    rng, hits = np.random.default_rng(_SEED), 1
    for start in range(0, RANDOM_FLIPS, _BLOCK):
        shape = (min(_BLOCK, RANDOM_FLIPS - start), len(scores))
        patterns = rng.integers(0, 2, shape, dtype=np.int8).astype(np.float64)
        hits += np.count_nonzero(np.abs(2 * (patterns @ scores) - total) >= reached)
    return hits / (RANDOM_FLIPS + 1), RANDOM_FLIPS


def signed_ranks(values: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed ranks of ``values [n]``; zeros are left out.

    Exact with up to 14 that are not zero, whatever is tied, which takes scipy seconds.
    """
    values = values[values != 0]
    if not len(values):
        return 1.0
    if len(values) <= MOST_ENUMERATED:
        return sign_flips(rankdata(np.abs(values)) * np.sign(values))[0]
    return float(np.asarray(wilcoxon(values))[1])


def holm(p_values: np.ndarray) -> np.ndarray:
    """P values ``[K]`` corrected for their number (Holm 1979); NaN stays and counts for nothing."""
    corrected = np.full(len(p_values), nan)
    tested = np.flatnonzero(np.isfinite(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    factors = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected
