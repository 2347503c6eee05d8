"""VoxelOpt's operations: definitions by hand, symmetries, batches and bad input."""

import math

import pytest
import torch
from helpers import smooth_volume

from triton_reg import LevelSettings
from triton_reg.ops.adaptive_filter import adaptive_filter, constant_taps, gaussian_taps
from triton_reg.ops.cost_volume import cost_volume, label_offsets
from triton_reg.ops.coupled_argmin import coupled_argmin
from triton_reg.ops.entropy import entropy, sigma_from_alpha, sigma_from_range
from triton_reg.ops.mind_ssc import mind_ssc
from triton_reg.ops.solve_level import solve_level

SHAPE = (5, 3, 7)


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_cost_is_the_mean_difference_at_each_label(radius: int) -> None:
    fixed, moving = (smooth_volume(SHAPE, seed, channels=3) for seed in (0, 1))
    cost = cost_volume(fixed, moving, radius)
    offsets = label_offsets(radius)
    assert cost.shape == (1, (2 * radius + 1) ** 3, *SHAPE)
    x = (2, 1, 3)
    for label in (0, len(offsets) // 2, len(offsets) - 1, len(offsets) // 3):
        y = [a + b for a, b in zip(x, offsets[label], strict=True)]
        inside = all(0 <= a < n for a, n in zip(y, SHAPE, strict=True))
        value = moving[0, :, *y] if inside else torch.zeros(3)
        expected = (value - fixed[0, :, *x]).abs().mean()
        torch.testing.assert_close(cost[0, label, *x], expected)


def test_entropy_runs_from_certainty_to_all_alike() -> None:
    alike = torch.zeros(1, 27, *SHAPE)
    torch.testing.assert_close(entropy(alike), torch.full((1, *SHAPE), math.log(27)))
    certain = alike + 10
    certain[:, 4] = 0
    assert entropy(certain).max() < 1e-3


def test_sigma_stays_at_its_lower_end_where_entropy_is_constant() -> None:
    constant = torch.full((2, *SHAPE), 1.5)
    assert sigma_from_range(constant, (0.1, 0.5)).eq(0.1).all()
    nothing = torch.zeros(2, *SHAPE)
    assert sigma_from_alpha(nothing, 1.5).eq(0).all()


def test_sigma_is_scaled_by_each_pair_alone() -> None:
    one, other = (smooth_volume(SHAPE, seed)[:, 0] for seed in (2, 3))
    together = sigma_from_range(torch.cat([one, 5 * other]), (0.1, 0.5))
    torch.testing.assert_close(together[:1], sigma_from_range(one, (0.1, 0.5)), atol=0, rtol=0)
    assert together[1].max() == pytest.approx(0.5)


@pytest.mark.parametrize("tap_radius", [1, 3])
def test_the_filter_keeps_a_constant_inside_and_nothing_where_sigma_is_zero(
    tap_radius: int,
) -> None:
    shape = (9, 9, 9)
    taps = gaussian_taps(torch.full((1, *shape), 0.8), tap_radius)
    filtered = adaptive_filter(torch.ones(1, 2, *shape), taps, passes=1)
    assert filtered[0, 0, 4, 4, 4].item() == pytest.approx(1.0)
    assert filtered[0, 0, 0, 4, 4] < 1  # zero outside, not renormalised
    volume = smooth_volume(shape, 4)
    unchanged = adaptive_filter(volume, gaussian_taps(torch.zeros(1, *shape), tap_radius))
    torch.testing.assert_close(unchanged, volume, atol=0, rtol=0)


def test_constant_taps_filter_each_axis_by_its_own() -> None:
    impulse = torch.zeros(1, 1, 5, 5, 5)
    impulse[..., 2, 2, 2] = 1
    spread = adaptive_filter(impulse, constant_taps((0.1, 0.2, 0.3), impulse), passes=1)[0, 0]
    assert spread[2, 2, 2].item() == pytest.approx(0.8 * 0.6 * 0.4)
    assert spread[1, 2, 2].item() == pytest.approx(0.1 * 0.6 * 0.4)
    assert spread[2, 3, 2].item() == pytest.approx(0.8 * 0.2 * 0.4)
    assert spread[2, 2, 1].item() == pytest.approx(0.8 * 0.6 * 0.3)


def test_tied_labels_are_summed() -> None:
    cost = torch.ones(1, 27, 1, 1, 3)
    offsets = label_offsets(1)
    cost[0, offsets.index((1, 0, -1)), 0, 0, 1] = 0
    cost[0, offsets.index((1, 0, 0)), 0, 0, 2] = 0
    cost[0, offsets.index((1, 1, 1)), 0, 0, 2] = 0
    winner = coupled_argmin(cost, torch.zeros(1, 3, 1, 1, 3), 0.0, radius=1)[0, :, 0, 0]
    assert winner.T.tolist() == [[0, 0, 0], [1, 0, -1], [2, 1, 1]]


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_strong_coupling_rounds_the_displacement(radius: int) -> None:
    cost = torch.rand(1, (2 * radius + 1) ** 3, *SHAPE, generator=torch.Generator().manual_seed(0))
    displacement = radius * (2 * smooth_volume(SHAPE, 5, channels=3) - 1)
    winner = coupled_argmin(cost, displacement, 1e6, radius)
    assert (winner - displacement).abs().max() <= 0.51


@pytest.mark.parametrize(
    "settings",
    [
        LevelSettings(),
        LevelSettings(radius=2, smoothing="released"),
        LevelSettings(smoothing="isotropic", filter_cost=False),
        LevelSettings(radius=2, smoothing="adaptive-paper", tap_radius=3, entropy_radius=1),
    ],
    ids=("adaptive", "released", "isotropic", "paper"),
)
def test_a_batch_is_solved_like_each_pair_alone(settings: LevelSettings) -> None:
    fixed = torch.cat([smooth_volume(SHAPE, seed, channels=2) for seed in range(3)])
    moving = torch.cat([smooth_volume(SHAPE, seed, channels=2) for seed in range(3, 6)])
    together, entropies = solve_level(fixed, moving, settings)
    for index in range(3):
        one = slice(index, index + 1)
        alone, own_entropy = solve_level(fixed[one], moving[one], settings)
        assert torch.equal(together[one], alone)
        assert torch.equal(entropies[one], own_entropy)


def test_a_constant_pair_gives_no_displacement_and_no_nan() -> None:
    constant = torch.full((1, 2, *SHAPE), 0.0)
    displacement, entropies = solve_level(constant, constant, LevelSettings())
    assert displacement.eq(0).all()
    assert entropies.isfinite().all()


def test_mind_ignores_gain_and_offset() -> None:
    volume = smooth_volume((9, 8, 10), 6)
    torch.testing.assert_close(
        mind_ssc(volume, 1, 2), mind_ssc(3 * volume + 7, 1, 2), atol=2e-4, rtol=0
    )
    flat = mind_ssc(torch.ones(1, 1, 6, 6, 6), 1, 2)
    assert flat.eq(1).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cost_volume(torch.zeros(1, 2, 4, 4, 4), torch.zeros(1, 3, 4, 4, 4), 1), "share"),
        (lambda: cost_volume(torch.zeros(1, 2, 4, 4, 4), torch.zeros(1, 2, 4, 4, 4), 0), "got 0"),
        (
            lambda: coupled_argmin(torch.zeros(1, 27, 4, 4, 4), torch.zeros(1, 3, 4, 4, 4), 0.0, 2),
            "needs a cost of 125 labels",
        ),
        (lambda: mind_ssc(torch.zeros(1, 1, 4, 4, 4), 1, 0), "dilation at least 1, got 1 and 0"),
    ],
)
def test_messages_say_what_was_got(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_whole_numbers_are_refused_as_volumes() -> None:
    with pytest.raises(TypeError, match=r"volume must be floating point, got torch\.int32"):
        mind_ssc(torch.zeros(1, 1, 4, 4, 4, dtype=torch.int32), 1, 2)
