"""Which interval of a mean over pairs holds the truth 95 times in 100, where pairs share subjects.

    PYTHONPATH=.:tests python benchmarks/intervals.py --draws 2000

Draws ``value = a_fixed + b_moving + noise`` with effects of subjects so many times the noise, or
skewed ones (exponential), for several designs, and counts how often four intervals hold the true
mean of zero: that of `mean_over_pairs` (delete-one jackknife over subjects, Student's t); the 2.5
and 97.5 percentiles of 400 bootstrap replicates over subjects, in which a pair weighs the product
of its subjects' multiplicities; the standard deviation of those replicates with Student's t; and
the one that takes pairs for independent. ``false_positives`` is how often `compare_pairs` gives
p <= .05. The standard error of a share of .95 is .22 over the root of the draws. Rows are appended
to ``benchmarks/results/intervals.csv``.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pair_effects import Case, design_of, pair_values
from scipy import stats

from cohort.report.statistics.intervals import mean_over_pairs
from cohort.report.statistics.paired import compare_pairs

RESULTS = Path(__file__).parent / "results" / "intervals.csv"
INTERVALS = ("jackknife", "bootstrap_percentile", "bootstrap_t", "pairs_independent")
COLUMNS = ["subjects", "pairs", "effect", "draws", *INTERVALS, "false_positives", "date"]
REPLICATES = 400
CASES = [
    *(Case(subjects, "all") for subjects in (6, 10, 24)),
    *(Case(subjects, "unordered") for subjects in (10, 24)),
    *(Case(24, pairs) for pairs in ("random:60", "random:200", "to:s000")),
    *(Case(24, "all", effect) for effect in (0.5, 0.0)),
    *(Case(subjects, "all", skewed=True) for subjects in (10, 24)),
]


def bootstrap(values: np.ndarray, pairs: np.ndarray, subjects: int, rng: np.random.Generator):
    """Means ``[replicates]`` over resampled subjects."""
    counts = rng.multinomial(subjects, np.full(subjects, 1 / subjects), REPLICATES).astype(float)
    weights = counts[:, pairs[:, 0]] * counts[:, pairs[:, 1]]
    totals = weights.sum(axis=1)
    return (weights @ values)[totals > 0] / totals[totals > 0]


def hits(case: Case, pairs: np.ndarray, design: Any, rng: np.random.Generator) -> np.ndarray:
    """Which of the intervals hold zero, then whether the test finds a difference."""
    values = pair_values(case, pairs, rng)
    estimate, spread = mean_over_pairs(values, design), values.std(ddof=1) / len(values) ** 0.5
    resampled = np.array([np.nan])
    if not design.held:
        resampled = bootstrap(values, pairs, case.subjects, rng)
    low, high = np.quantile(resampled, (0.025, 0.975))
    wide = stats.t.ppf(0.975, design.n_units - 1) * resampled.std()
    return np.array([
        estimate.low <= 0 <= estimate.high,
        low <= 0 <= high,
        abs(values.mean()) <= wide,
        abs(values.mean()) <= 1.96 * spread,
        compare_pairs(values, design).p <= 0.05,
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not file.tell():
            writer.writeheader()
        for case in CASES:
            pairs, design = design_of(case)
            rng = np.random.default_rng(0)
            shares = sum(hits(case, pairs, design, rng) for _ in range(draws)) / draws
            told = dict(zip([*INTERVALS, "false_positives"], shares, strict=True))
            row = {
                "subjects": case.subjects,
                "pairs": case.pairs,
                "effect": f"{case.effect:g}{' skewed' if case.skewed else ''}",
                "draws": draws,
                **{name: f"{share:.3f}" for name, share in told.items()},
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            }
            if design.held:  # a replicate without the atlas has no pair
                row |= dict.fromkeys(("bootstrap_percentile", "bootstrap_t"), "")
            writer.writerow(row)
            print(row, flush=True)


if __name__ == "__main__":
    main()
