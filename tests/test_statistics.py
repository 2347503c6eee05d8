"""Intervals and tests of pairs that share subjects: analytic truths, then what they promise."""

import numpy as np
import polars as pl
import pytest
from pair_effects import Case, design_of, pair_values
from scipy import stats

from cohort.report.statistics.design import PairDesign, Unit
from cohort.report.statistics.intervals import mean_over_pairs
from cohort.report.statistics.paired import compare_pairs, holm, sign_flips, signed_ranks

CASES = [
    Case(10, "all"),
    Case(24, "all"),
    Case(24, "unordered"),
    Case(10, "random:40"),
    Case(24, "random:200"),
    Case(10, "atlas:s000"),
    Case(24, "to:s000"),
    Case(48, "disjoint"),
]


def designed(*pairs: str) -> PairDesign:
    table = {"fixed": [pair[0] for pair in pairs], "moving": [pair[1] for pair in pairs]}
    return PairDesign.of(pl.DataFrame(table))


@pytest.mark.parametrize(
    ("pairs", "unit", "units", "held"),
    [
        (("ab", "ba", "ac", "ca", "bc", "cb"), Unit.SUBJECT, 3, ()),
        (("ab", "cd", "ef"), Unit.PAIR, 3, ()),
        (("ab", "ba", "cd"), Unit.PAIR, 2, ()),
        (("ax", "bx", "cx"), Unit.OTHER_SUBJECT, 3, ("x",)),
        (("xa", "bx", "xc"), Unit.OTHER_SUBJECT, 3, ("x",)),
        ([one + atlas for one in "abcdefg" for atlas in "xy"], Unit.OTHER_SUBJECT, 7, ("x", "y")),
        ([one + other for one in "abcdef" for other in "uvwxyz"], Unit.TWO_GROUPS, 12, ()),
        (("ab", "cb", "ad", "be"), Unit.SUBJECT, 5, ()),
        ((), Unit.PAIR, 0, ()),
    ],
)
def test_the_units_of_a_design(pairs, unit, units, held) -> None:
    design = designed(*pairs)
    assert (design.unit, design.n_units, design.held) == (unit, units, held)
    assert f"{units:,}" in design.sentence()


def test_the_sentence_of_an_atlas_names_it() -> None:
    expected = "3 subjects; the atlas is held (x), so nothing is said of another"
    assert expected in designed("ax", "bx", "cx").sentence()


def test_with_an_atlas_the_interval_is_that_of_students_t() -> None:
    values = np.array([0.5, 0.7, 0.4, 0.9])
    estimate = mean_over_pairs(values, designed("xa", "xb", "xc", "xd"))
    known = stats.ttest_1samp(values, 0.0).confidence_interval()
    assert (estimate.low, estimate.high) == pytest.approx((known.low, known.high))
    assert sorted(estimate.scores) == pytest.approx(sorted(values))


def test_both_directions_of_a_pair_are_one_unit() -> None:
    design = designed("ab", "ba", "cd", "dc", "ef", "fe")
    estimate = mean_over_pairs(np.array([1.0, 3.0, 4.0, 4.0, 9.0, 9.0]), design)
    assert estimate.scores == pytest.approx([2.0, 4.0, 9.0])


def test_the_score_of_a_subject_is_its_own_effect() -> None:
    pairs, design = design_of(Case(7, "all"))
    effects = np.random.default_rng(0).standard_normal((2, 7))
    values = effects[0, pairs[:, 0]] + effects[1, pairs[:, 1]]
    estimate = mean_over_pairs(values, design)
    assert estimate.mean == pytest.approx(effects.sum() / 7)
    assert estimate.scores == pytest.approx(effects.sum(axis=0))


def test_values_that_are_not_finite_are_left_out() -> None:
    pairs, design = design_of(Case(6, "all"))
    values = pair_values(Case(6, "all"), pairs, np.random.default_rng(1))
    kept = (pairs != 5).all(axis=1)
    without = mean_over_pairs(np.where(kept, values, np.nan), design)
    known = mean_over_pairs(values[kept], design.only(kept))
    assert (without.n, without.units) == (20, 5)
    assert (without.mean, without.low) == (known.mean, known.low)


@pytest.mark.parametrize("pairs", [(), ("ab",), ("ab", "cd"), ("ab", "bc", "bd", "ea", "bf")])
def test_too_few_units_give_no_interval(pairs) -> None:
    values = np.arange(len(pairs), dtype=float)
    estimate = mean_over_pairs(values, designed(*pairs))
    enough = len(pairs) == 5
    assert np.isfinite(estimate.low) == enough
    assert np.isfinite(compare_pairs(values, designed(*pairs)).p) == enough


def test_the_jackknife_agrees_with_the_bootstrap_over_many_subjects() -> None:
    case = Case(150, "all")
    pairs, design = design_of(case)
    values = pair_values(case, pairs, np.random.default_rng(0))
    table = np.zeros((150, 150))
    table[pairs[:, 0], pairs[:, 1]] = values
    counts = np.random.default_rng(1).multinomial(150, [1 / 150] * 150, size=2_000).astype(float)
    there = 1.0 - np.eye(150)
    means = ((counts @ table) * counts).sum(1) / ((counts @ there) * counts).sum(1)
    estimate = mean_over_pairs(values, design)
    half = (estimate.high - estimate.low) / 2
    assert half == pytest.approx(1.976 * means.std(), rel=0.06)


def test_sign_flips_enumerate_few_scores() -> None:
    assert sign_flips(np.array([1.0, 2.0, 3.0])) == (2 / 8, 8)
    assert sign_flips(np.array([1.0, -1.0, 0.0])) == (1.0, 8)
    assert sign_flips(np.array([0.1, 0.2, -0.3])) == (1.0, 8)


def test_random_sign_flips_are_repeatable_and_near_students_t() -> None:
    scores = np.random.default_rng(3).standard_normal(40) + 0.3
    p, flips = sign_flips(scores)
    assert (p, flips) == sign_flips(scores)
    assert flips == 9_999
    assert p == pytest.approx(stats.ttest_1samp(scores, 0.0).pvalue, abs=0.02)
    assert sign_flips(scores + 100)[0] == 1 / 10_000


def test_where_no_subject_recurs_the_test_is_wilcoxons() -> None:
    pairs, design = design_of(Case(24, "disjoint"))
    values = pair_values(Case(24, "disjoint"), pairs, np.random.default_rng(2)) + 2
    found = compare_pairs(values, design)
    assert (found.test, found.flips) == ("Wilcoxon", 0)
    assert found.p == pytest.approx(stats.wilcoxon(values).pvalue)
    assert found.effect_size == pytest.approx(values.mean() / values.std(ddof=1))


@pytest.mark.parametrize("differing", [1, 2, 7])
@pytest.mark.parametrize("step", [0.013, -0.01])
def test_pairs_that_do_not_differ_say_nothing_in_signed_ranks(differing: int, step: float) -> None:
    _, design = design_of(Case(42, "disjoint"))
    values = np.zeros(21)
    values[:differing] = step * np.arange(1, differing + 1)
    assert compare_pairs(values, design).p == 2 / 2**differing
    values[-1] = np.nan
    assert compare_pairs(values, design).p == 2 / 2**differing


@pytest.mark.parametrize("count", [6, 14, 15, 60])
def test_signed_ranks_are_wilcoxons(count: int) -> None:
    values = np.random.default_rng(count).standard_normal(count) + 0.4
    assert signed_ranks(values) == pytest.approx(stats.wilcoxon(values).pvalue)
    assert signed_ranks(np.append(values, 0.0)) == signed_ranks(-values) == signed_ranks(values)


def test_signed_ranks_that_are_tied_are_exact() -> None:
    # ranks 1.5 1.5 3.5 3.5: the negative ones sum to 1.5 or less in 3 of 16 patterns
    assert signed_ranks(np.array([1.0, -1.0, 2.0, 2.0])) == 6 / 16


@pytest.mark.parametrize("pairs", ["all", "disjoint"])
def test_equal_runs_do_not_differ(pairs: str) -> None:
    _, design = design_of(Case(12, pairs))
    found = compare_pairs(np.zeros(len(design.first)), design)
    assert found.p == 1.0
    assert np.isnan(found.effect_size)


def test_holm_corrects_for_the_tests_that_there_were() -> None:
    corrected = holm(np.array([0.01, np.nan, 0.04, 0.03, 0.9]))
    assert corrected == pytest.approx([0.04, np.nan, 0.09, 0.09, 0.9], nan_ok=True)
    assert holm(np.empty(0)).shape == (0,)


def promises(case: Case, times: int) -> dict[str, float]:
    """How often the interval holds the truth and the test finds what is not there.

    With ``times`` draws the standard error of a share of .95 is ``.22 / sqrt(times)``.
    """
    pairs, design = design_of(case)
    found = {"covered": 0, "false_positives": 0, "naive_covered": 0, "naive_false_positives": 0}
    rng = np.random.default_rng(0)
    for _ in range(times):
        values = pair_values(case, pairs, rng)
        estimate = mean_over_pairs(values, design)
        naive = stats.ttest_1samp(values, 0.0).pvalue
        found["covered"] += estimate.low <= 0 <= estimate.high
        found["false_positives"] += compare_pairs(values, design).p <= 0.05
        found["naive_covered"] += naive > 0.05
        found["naive_false_positives"] += naive <= 0.05
    return {name: count / times for name, count in found.items()}


def test_promises_are_kept_where_subjects_matter() -> None:
    found = promises(CASES[0], 800)  # standard error .008
    assert 0.92 <= found["covered"] <= 0.98
    assert 0.03 <= found["false_positives"] <= 0.07


def test_taking_pairs_for_independent_keeps_no_promise() -> None:
    found = promises(CASES[0], 400)
    assert found["naive_covered"] < 0.6
    assert found["naive_false_positives"] > 0.4


@pytest.mark.parametrize("few", ["fixed", "moving", "both"])
def test_promises_are_kept_where_a_small_group_decides(few: str) -> None:
    """Six subjects against twenty tell six things where it is they that differ."""
    roles = [(one, 6 + other) for one in range(6) for other in range(20)]
    pairs = np.array([pair[::-1] for pair in roles] if few == "moving" else roles)
    names = {role: pairs[:, at].astype(str) for at, role in enumerate(("fixed", "moving"))}
    design, rng = PairDesign.of(pl.DataFrame(names)), np.random.default_rng(0)
    effects = rng.standard_normal((600, 26))
    effects[:, 6:] *= few == "both"
    noise = 0.3 * rng.standard_normal((600, len(pairs)))
    found = [compare_pairs(values, design) for values in effects[:, pairs].sum(2) + noise]
    covered = np.mean([one.difference.low <= 0 <= one.difference.high for one in found])
    assert 0.92 <= covered <= 0.98  # standard error .009
    assert np.mean([one.p <= 0.05 for one in found]) == pytest.approx(1 - covered)
    assert {one.test for one in found} == {"Welch"}


def test_two_groups_that_do_not_vary_are_equal_or_not() -> None:
    design = designed(*(one + other for one in "abc" for other in "xyz"))
    assert compare_pairs(np.zeros(9), design).p == 1
    assert compare_pairs(np.full(9, 0.5), design).p == 0


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_promises_are_kept_in_every_design(case: Case) -> None:
    found = promises(case, 2_000)  # standard error .005
    assert 0.92 <= found["covered"] <= 0.98
    assert 0.03 <= found["false_positives"] <= 0.07


@pytest.mark.slow
def test_without_effects_of_subjects_the_interval_is_too_wide_never_too_narrow() -> None:
    found = promises(Case(24, "all", effect=0.0), 1_000)
    assert found["covered"] > 0.95
    assert found["false_positives"] < 0.05
