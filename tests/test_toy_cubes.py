"""DIO's toy task: what learned features can do and intensities cannot."""

import statistics

import pytest

from benchmarks.toy_cubes import INTENSITIES, cubes, scores_of, trained

pytestmark = pytest.mark.slow
UNSEEN = cubes(60, seed=2)


def test_learned_features_bring_cubes_together_that_are_apart() -> None:
    overlapping, apart = scores_of(trained(), UNSEEN)
    assert min(len(overlapping), len(apart)) > 10
    assert statistics.mean(one.dice for one in overlapping) >= 0.95
    assert statistics.mean(one.dice for one in apart) >= 0.95


def test_intensities_leave_them_apart() -> None:
    overlapping, apart = scores_of(INTENSITIES, UNSEEN)
    assert statistics.mean(one.dice for one in overlapping) >= 0.95
    assert statistics.mean(one.dice for one in apart) < 0.5
