"""The Triton kernels against the plain-torch definitions, in Triton's interpreter.

Run by ``test_triton.py`` in a process of its own: the interpreter has to be chosen before triton is
imported, and then holds for the whole process.
"""

import pytest
import torch
from torch import Tensor
from triton_oracle import (
    HALF_EPSILON,
    assert_as_good_as_float32,
    batch,
    cases,
    packed,
    poisoned_memory,
    surrounded,
    unpacked,
    vectors,
)

from triton_reg.ops._triton import adaptive_filter as filters
from triton_reg.ops._triton import cost_entropy as costs
from triton_reg.ops._triton.coupled_argmin import code_bits, coupled_argmin
from triton_reg.ops._triton.filter_weights import entropy_range, entropy_weights
from triton_reg.ops._triton.layout import Lines, channels_last
from triton_reg.ops.adaptive_filter import (
    adaptive_filter_reference,
    constant_taps,
    gaussian_taps,
)
from triton_reg.ops.cost_volume import cost_volume_reference
from triton_reg.ops.coupled_argmin import TIE_TOLERANCE, coupled_argmin_reference
from triton_reg.ops.entropy import entropy_reference, sigma_from_alpha, sigma_from_range
from triton_reg.ops.level_settings import LevelSettings
from triton_reg.ops.masked_cost import masked_cost_volume_reference
from triton_reg.ops.resize import Shape

# lanes that a mask switches off still compute, on whatever they hold
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


__all__ = ["poisoned_memory"]  # a fixture for all tests here


@pytest.fixture
def short_marches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of the marching kernels stops after two planes, so that marches meet."""
    monkeypatch.setattr(filters, "_PLANES", 2)


def costs_of(
    fixed: Tensor,
    moving: Tensor,
    dtype: torch.dtype,
    radius: int,
    wanted: bool = True,
    masked: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cost volume, entropy and its range by block, from features in the kernels' layout."""
    pairs, channels, *shape = fixed.shape
    kept = [surrounded(channels_last(one, dtype)) for one in (fixed, moving)]
    lines = [Lines.of(one, tuple(shape), channels) for one in kept]
    voxels, packs = kept[0].shape[1], dtype == torch.float16
    rows, kind = (14, torch.int32) if packs else ((2 * radius + 1) ** 3, torch.float32)
    cost = torch.empty(pairs, rows, voxels, dtype=kind)
    fused = radius == 1 and not masked
    blocks = costs.entropy_blocks(voxels, kept[0].shape[2], fused)
    entropy = costs.Entropy(torch.empty(pairs, voxels), torch.empty(pairs, 2, blocks))
    if fused:
        costs.cost_entropy(*lines, cost if wanted else None, entropy)
    else:
        costs.cost_entropy_wide(*lines, cost, entropy, masked)
    return cost, entropy.values, entropy.extremes


@cases
def test_cost_and_entropy_are_the_definitions(shape: Shape, pairs: int) -> None:
    fixed, moving = (batch(shape, 3, pairs, seed) for seed in (1, 2))
    cost, entropy, extremes = costs_of(fixed, moving, torch.float32, 1)
    assert_as_good_as_float32(cost, lambda f, m: cost_volume_reference(f, m, 1), fixed, moving)
    assert_as_good_as_float32(
        entropy, lambda f, m: entropy_reference(cost_volume_reference(f, m, 1)), fixed, moving
    )
    expected = torch.stack([entropy.amin(1), entropy.amax(1)], dim=1)
    found = torch.empty(pairs, 2)
    entropy_range(extremes, found)
    assert torch.equal(found, expected)
    _, again, _ = costs_of(fixed, moving, torch.float32, 1, wanted=False)
    assert torch.equal(again, entropy)


@cases
def test_the_packed_cost_is_centred_and_rounded_once(shape: Shape, pairs: int) -> None:
    fixed, moving = (batch(shape, 9, pairs, seed).half() for seed in (1, 2))
    found, entropy, _ = costs_of(fixed, moving, torch.float16, 1)
    cost = cost_volume_reference(fixed.float(), moving.float(), 1)
    centred = (cost - cost.amin(1, keepdim=True)).flatten(2)
    labels = unpacked(found)
    assert ((labels[:, :27] - centred).abs() <= HALF_EPSILON / 2 * centred + 4e-7).all()
    assert (labels[:, 27] == 0).all()
    assert (entropy - entropy_reference(cost).flatten(1)).abs().max() <= 1e-5


@pytest.mark.parametrize("radius", [2, 3])
def test_wide_search_is_the_definition(radius: int) -> None:
    shape = (5, 3, 6)
    fixed, moving = (batch(shape, 2, 1, seed) for seed in (1, 2))
    cost, entropy, _ = costs_of(fixed, moving, torch.float32, radius)
    assert_as_good_as_float32(cost, lambda f, m: cost_volume_reference(f, m, radius), fixed, moving)
    expected = entropy_reference(cost_volume_reference(fixed, moving, radius))
    assert (entropy - expected.flatten(1)).abs().max() <= 1e-5


@pytest.mark.parametrize("radius", [1, 2])
def test_masks_take_labels_out_as_the_definition_does(radius: int) -> None:
    shape = (5, 3, 6)
    # a mask that is 0, 1 and in between
    fixed, moving = (
        torch.cat(
            [batch(shape, 2, 1, seed), (4 * batch(shape, 1, 1, seed + 5) - 1.5).clamp(0, 1)], 1
        )
        for seed in (1, 2)
    )
    cost, entropy, _ = costs_of(fixed, moving, torch.float32, radius, masked=True)
    expected = masked_cost_volume_reference(fixed, moving, radius)
    assert_as_good_as_float32(
        cost, lambda f, m: masked_cost_volume_reference(f, m, radius), fixed, moving
    )
    assert (entropy - entropy_reference(expected).flatten(1)).abs().max() <= 1e-5
    assert (cost[:, :, (fixed[0, -1] == 0).flatten()] == 0).all()


@cases
@pytest.mark.parametrize("tap_radius", [1, 3])
def test_filter_weights_are_the_definition(shape: Shape, pairs: int, tap_radius: int) -> None:
    entropy = batch(shape, 1, pairs, seed=3)[:, 0]
    flat = entropy.flatten(1)
    extent = torch.stack([flat.amin(1), flat.amax(1)], dim=1)
    for settings in (
        LevelSettings(tap_radius=tap_radius, sigma_range=(0.1, 1.5)),
        LevelSettings(tap_radius=tap_radius, smoothing="adaptive-paper"),
    ):
        sides = torch.empty(pairs, tap_radius, flat.shape[1])
        entropy_weights(flat, extent, settings, sides)
        if settings.smoothing == "adaptive":
            sigma = sigma_from_range(entropy, settings.sigma_range)
        else:
            sigma = sigma_from_alpha(entropy, settings.alpha)
        expected = gaussian_taps(sigma, tap_radius)[0][:, 1:]
        assert (sides.view(expected.shape) - expected).abs().max() <= 1e-6


def test_an_entropy_that_is_the_same_everywhere_filters_least() -> None:
    flat = torch.full((2, 30), 0.7)
    sides = torch.empty(2, 1, 30)
    entropy_weights(flat, flat[:, :2].contiguous(), LevelSettings(sigma_range=(0.5, 2)), sides)
    assert torch.allclose(sides, torch.tensor(0.10650698))


def adaptive_sides(sigma: Tensor, tap_radius: int = 1) -> filters.Sides:
    return filters.Sides(surrounded(gaussian_taps(sigma, tap_radius)[0][:, 1:].flatten(2)))


@cases
@pytest.mark.usefixtures("short_marches")
def test_the_adaptive_filter_is_the_definition(shape: Shape, pairs: int) -> None:
    field, sigma = batch(shape, 2, pairs, seed=5), 1.5 * batch(shape, 1, pairs, seed=6)[:, 0]
    for tap_radius, passes in ((1, 1), (3, 1), (1 if pairs == 1 else 2, 3)):
        given, spare = surrounded(field.flatten(2)), torch.empty_like(field.flatten(2))
        sides = adaptive_sides(sigma, tap_radius)
        found, _ = filters.adaptive_filter(given, shape, sides, passes, spare)
        assert_as_good_as_float32(
            found,
            lambda f, s, r=tap_radius, p=passes: adaptive_filter_reference(
                f, gaussian_taps(s, r), p
            ),
            field,
            sigma,
        )


@cases
@pytest.mark.usefixtures("short_marches")
def test_the_packed_filter_rounds_to_half_only_between_passes(shape: Shape, pairs: int) -> None:
    labels = batch(shape, 4, pairs, seed=5).half().float()
    sigma = 1.5 * batch(shape, 1, pairs, seed=6)[:, 0]
    given = packed(labels.flatten(2))
    assert torch.equal(unpacked(given), labels.flatten(2))
    for sides, taps, passes in (
        (adaptive_sides(sigma), gaussian_taps(sigma, 1), 2 if pairs == 1 else 1),
        (filters.Sides(None, (0.1, 1 / 3, 0.02)), constant_taps((0.1, 1 / 3, 0.02), sigma), 1),
    ):
        spare = torch.empty_like(given)
        found, _ = filters.adaptive_filter(given.clone(), shape, sides, passes, spare)
        expected = adaptive_filter_reference(labels, taps, passes).flatten(2)
        assert (unpacked(found) - expected).abs().max() <= 2 * HALF_EPSILON


@pytest.mark.parametrize("ties", ["few", "many", "all"])
@pytest.mark.parametrize("form", ["packed", "plain", "radius 2"])
def test_the_argmin_has_the_bits_of_the_definition(form: str, ties: str) -> None:
    shape, radius = (5, 3, 6), 2 if form == "radius 2" else 1
    pairs = 3 if ties == "many" and radius == 1 else 1
    labels = (2 * radius + 1) ** 3
    cost = torch.rand(pairs, labels, *shape, generator=torch.Generator().manual_seed(3))
    if ties != "few":
        cost = (cost * (3 if ties == "many" else 0)).floor()
    if form == "packed":
        cost = cost.half().float()
        given = packed(torch.cat([cost.flatten(2), torch.zeros(pairs, 1, 90)], dim=1))
    else:
        cost[:, ::2] += TIE_TOLERANCE / 2
        given = surrounded(cost.flatten(2))
    displacement = vectors(shape, radius, pairs, seed=4)
    codes = torch.empty(pairs, 90, dtype=torch.int16 if radius == 1 else torch.int32)
    found = torch.empty(pairs, 3, 90)
    for coupling in (0.0, 0.3) if ties != "all" else (0.3,):
        coupled_argmin(given, displacement.flatten(2), coupling, radius, codes)
        # constant weights of zero: the pass only reads the codes
        filters.filter_codes(codes, shape, code_bits(radius), filters.Sides(None), found)
        expected = coupled_argmin_reference(cost, displacement, coupling, radius)
        assert torch.equal(found.view(expected.shape), expected)


def test_the_argmin_of_radius_3_sums_all_ties() -> None:
    cost = torch.zeros(1, 343, 90)
    cost[:, :171] = 1.0
    cost[:, :, 45:] = 0.0
    codes, found = torch.empty(1, 90, dtype=torch.int32), torch.empty(1, 3, 90)
    coupled_argmin(cost, torch.zeros(1, 3, 90), 0.0, 3, codes)
    filters.filter_codes(codes, (5, 3, 6), code_bits(3), filters.Sides(None), found)
    volume = cost.view(1, 343, 5, 3, 6)
    expected = coupled_argmin_reference(volume, torch.zeros(1, 3, 5, 3, 6), 0.0, 3)
    assert torch.equal(found.view(expected.shape), expected)
    assert expected.max() == 294


@cases
@pytest.mark.usefixtures("short_marches")
def test_the_first_pass_reads_codes(shape: Shape, pairs: int) -> None:
    cost = batch(shape, 27, pairs, seed=7)
    sigma = 1.5 * batch(shape, 1, pairs, seed=6)[:, 0]
    zero = torch.zeros(pairs, 3, *shape)
    codes = torch.empty(pairs, zero[0, 0].numel(), dtype=torch.int16)
    coupled_argmin(cost.flatten(2), zero.flatten(2), 0.0, 1, codes)
    found = torch.empty_like(zero).flatten(2)
    filters.filter_codes(codes, shape, code_bits(1), adaptive_sides(sigma), found)
    labels = coupled_argmin_reference(cost, zero, 0.0, 1)
    assert_as_good_as_float32(
        found, lambda s: adaptive_filter_reference(labels.to(s), gaussian_taps(s, 1), 1), sigma
    )
