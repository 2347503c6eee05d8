"""The compiled CPU kernels against the plain-torch definitions beside them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from golden.test_voxelopt import STAGES, settings_of
from golden.vectors import Vectors
from kernel_oracle import (
    SHAPES,
    assert_as_good_as_float32,
    batch,
    bordered,
    inside,
    masked_features,
    vectors,
)

from triton_reg.ops._cpu.adaptive_filter import filter_three_taps, filter_wide
from triton_reg.ops._cpu.arithmetic import exp, log
from triton_reg.ops._cpu.compose import compose, integrate
from triton_reg.ops._cpu.cost_entropy import cost_entropy
from triton_reg.ops._cpu.coupled_argmin import coupled_argmin
from triton_reg.ops._cpu.layout import padded_size, release_scratch, scratch
from triton_reg.ops._cpu.solve_level import register_level, solve_level
from triton_reg.ops._cpu.warp import warp
from triton_reg.ops.adaptive_filter import adaptive_filter_reference, gaussian_taps
from triton_reg.ops.cost_volume import cost_volume_reference
from triton_reg.ops.coupled_argmin import TIE_TOLERANCE, coupled_argmin_reference
from triton_reg.ops.entropy import entropy_reference
from triton_reg.ops.level_settings import LevelSettings
from triton_reg.ops.masked_cost import masked_cost_volume_reference
from triton_reg.ops.resize import Shape
from triton_reg.ops.solve_level import solve_level_reference

SETTINGS = {
    "released code": LevelSettings(),
    "wider": LevelSettings(sigma_range=(0.1, 1.5)),
    "isotropic": LevelSettings(smoothing="isotropic"),
    "released constant": LevelSettings(smoothing="released"),
    "paper": LevelSettings(smoothing="adaptive-paper", tap_radius=3, entropy_radius=1),
    "unfiltered cost": LevelSettings(filter_cost=False),
    "one pass, two couplings": LevelSettings(passes=1, couplings=(0.1, 1.0)),
    "radius 2": LevelSettings(radius=2),
    "radius 3": LevelSettings(radius=3, tap_radius=2, entropy_radius=1),
    "masked": LevelSettings(masked=True),
    "masked, radius 2": LevelSettings(masked=True, radius=2, entropy_radius=1),
}


def test_exponential_and_logarithm_keep_seven_digits() -> None:
    powers = np.linspace(-86.9, 80, 3001, dtype=np.float32)
    exact = np.exp(powers.astype(np.float64))
    assert np.max(np.abs(np.array([exp(x) for x in powers]) / exact - 1)) <= 2e-7
    numbers = np.exp(powers).astype(np.float32)
    exact = np.log(numbers.astype(np.float64))
    error = np.abs(np.array([log(x) for x in numbers]) - exact)
    assert np.max(error / np.maximum(1, np.abs(exact))) <= 3e-7
    assert exp(np.float32(0)) == 1
    assert log(np.float32(1)) == 0
    assert 0 < exp(np.float32(-1e9)) < 2e-38


@pytest.mark.parametrize("border", [1, 3])
def test_padding_and_cropping_are_each_others_inverse(border: int) -> None:
    volume = batch((5, 3, 7), 2, 1, seed=0)[0]
    flat = bordered(volume, border)
    assert torch.equal(inside(flat, (5, 3, 7), border), volume)
    assert flat.sum() == pytest.approx(volume.sum().item(), rel=1e-5)  # the border is zero


@pytest.mark.parametrize("channels", [1, 2, 3, 14])
@pytest.mark.parametrize("radius", [1, 2, 3])
def test_cost_and_entropy_are_the_definitions(radius: int, channels: int) -> None:
    shape, labels = (9, 12, 10), (2 * radius + 1) ** 3
    fixed, moving = (batch(shape, channels, 1, seed) for seed in (1, 2))
    cost = np.full((labels, padded_size(shape, 3)), np.nan, np.float32)
    entropy = np.full(shape, np.nan, np.float32)
    cost_entropy(fixed[0].numpy(), bordered(moving[0], 3), False, radius, 3, cost, entropy)
    assert_as_good_as_float32(
        inside(cost, shape, 3).numpy()[None],
        lambda f, m: cost_volume_reference(f, m, radius),
        fixed,
        moving,
    )
    assert_as_good_as_float32(
        entropy[None],
        lambda f, m: entropy_reference(cost_volume_reference(f, m, radius)),
        fixed,
        moving,
    )
    assert np.isfinite(cost).all()
    borders = bordered(inside(cost, shape, 3), 3)
    assert np.array_equal(cost, borders)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("radius", [1, 2])
def test_masked_cost_and_entropy_are_the_definitions(radius: int, channels: int) -> None:
    shape, labels = (9, 12, 10), (2 * radius + 1) ** 3
    fixed, moving = (masked_features(shape, channels, seed) for seed in (1, 2))
    cost = np.full((labels, padded_size(shape, 3)), np.nan, np.float32)
    entropy = np.full(shape, np.nan, np.float32)
    cost_entropy(fixed[0].numpy(), bordered(moving[0], 3), True, radius, 3, cost, entropy)
    found = inside(cost, shape, 3)
    assert_as_good_as_float32(
        found.numpy()[None],
        lambda f, m: masked_cost_volume_reference(f, m, radius),
        fixed,
        moving,
    )
    assert_as_good_as_float32(
        entropy[None],
        lambda f, m: entropy_reference(masked_cost_volume_reference(f, m, radius)),
        fixed,
        moving,
    )
    outside = fixed[0, -1] == 0
    assert outside.any()
    assert (found[:, outside] == 0).all()


@pytest.mark.parametrize("radius", [1, 2, 3])
@pytest.mark.parametrize("ties", ["few", "many", "all"])
def test_the_argmin_has_the_bits_of_the_definition(radius: int, ties: str) -> None:
    shape, labels = (9, 12, 10), (2 * radius + 1) ** 3
    cost = torch.rand(1, labels, *shape, generator=torch.Generator().manual_seed(3))
    if ties != "few":
        cost = (cost * (3 if ties == "many" else 0)).floor()
        cost[:, ::2] += TIE_TOLERANCE / 2
    displacement = vectors(shape, radius, 1, seed=4)
    for coupling in (0.0, 0.003, 1.0):
        flat = bordered(displacement[0], 1)
        coupled_argmin(bordered(cost[0], 1), flat, np.float32(coupling), radius, 0, flat.shape[1])
        expected = coupled_argmin_reference(cost, displacement, coupling, radius)
        assert torch.equal(inside(flat, shape, 1), expected[0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("passes", [1, 2, 3])
def test_the_adaptive_filter_is_the_definition(shape: Shape, passes: int) -> None:
    field, sigma = batch(shape, 3, 1, seed=5), 1.5 * batch(shape, 1, 1, seed=6)[:, 0]
    for tap_radius in (1, 2, 3):
        taps = gaussian_taps(sigma, tap_radius)
        flat = [bordered(one[0], tap_radius) for one in (field, taps[0])]
        geometry = (*shape, tap_radius)
        results = [flat[0].copy()]
        filter_wide(results[0], flat[1], passes, geometry)
        if tap_radius == 1:
            results.append(flat[0].copy())
            filter_three_taps(results[1], (flat[1][1],) * 3, passes, geometry)
        for result in results:
            assert_as_good_as_float32(
                inside(result, shape, tap_radius).numpy()[None],
                lambda f, s, r=tap_radius: adaptive_filter_reference(
                    f, gaussian_taps(s, r), passes
                ),
                field,
                sigma,
            )


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_level_is_the_definition(shape: Shape, name: str) -> None:
    settings = SETTINGS[name]
    fixed, moving = (
        masked_features(shape, 3, seed) if settings.masked else batch(shape, 3, 1, seed)
        for seed in (1, 2)
    )
    displacement, entropy = solve_level(fixed.numpy(), moving.numpy(), settings)
    expected, expected_entropy = solve_level_reference(fixed, moving, settings)
    assert np.abs(entropy - expected_entropy.numpy()).max() <= 1e-5
    error = np.abs(displacement - expected.numpy())
    # where two labels cost the same but for rounding, either may win
    assert np.quantile(error, 0.99) <= 1e-4


@pytest.mark.parametrize("channels", [1, 2, 3, 14])
def test_a_batch_has_the_bits_of_each_pair_alone(channels: int) -> None:
    shape = (9, 12, 10)
    fixed, moving = (batch(shape, channels, 3, seed).numpy() for seed in (1, 2))
    known = vectors(shape, 1.5, 3, seed=7).numpy()

    def register(pair: slice) -> tuple[np.ndarray, np.ndarray]:
        return register_level(fixed[pair], moving[pair], known[pair], LevelSettings(), 7)

    together = register(slice(None))
    with ThreadPoolExecutor(2) as threads:  # buffers belong to a thread, so threads do not meet
        alone = list(threads.map(register, [slice(pair, pair + 1) for pair in range(3)]))
    for index, whole in enumerate(together):
        assert np.array_equal(whole, np.concatenate([one[index] for one in alone]))
    release_scratch()


@pytest.mark.parametrize("settings", [LevelSettings(), LevelSettings(radius=2)], ids=["1", "2"])
@pytest.mark.parametrize("radius_of_vectors", [0.4, 3.0], ids=["near", "far"])
def test_a_level_is_warp_solve_integrate_and_compose(
    settings: LevelSettings, radius_of_vectors: float
) -> None:
    shape = (16, 18, 20)
    fixed, moving = (batch(shape, 3, 1, seed).numpy() for seed in (1, 2))
    known = vectors(shape, radius_of_vectors, 1, seed=8).numpy()
    velocity, _ = solve_level(fixed, warp(moving, known), settings)
    expected = compose(integrate(velocity, 7), known)
    fused, _ = register_level(fixed, moving, known, settings, 7)
    assert np.array_equal(fused, expected)
    first, _ = register_level(fixed, warp(moving, known), None, settings, 7)
    assert np.array_equal(first, integrate(velocity, 7))


@pytest.mark.parametrize("name", ["released code", "paper", "radius 2"])
def test_features_that_say_nothing_move_nothing(name: str) -> None:
    for fixed in (torch.zeros(1, 3, 9, 12, 10), torch.full((1, 3, 9, 12, 10), 0.3)):
        moving = torch.zeros_like(fixed)
        displacement, entropy = solve_level(fixed.numpy(), moving.numpy(), SETTINGS[name])
        assert np.abs(displacement).max() <= 1e-6
        assert np.isfinite(entropy).all()


def test_features_constant_along_an_axis_sum_their_ties() -> None:
    fixed, moving = (batch((9, 12, 10), 3, 1, seed)[..., :1].expand(1, 3, 9, 12, 10).contiguous()
                     for seed in (1, 2))  # fmt: skip
    settings = LevelSettings()
    displacement, _ = solve_level(fixed.numpy(), moving.numpy(), settings)
    expected, _ = solve_level_reference(fixed, moving, settings)
    assert np.quantile(np.abs(displacement - expected.numpy()), 0.99) <= 1e-4


def test_nan_stays_visible() -> None:
    fixed, moving = (batch((9, 12, 10), 3, 1, seed).numpy() for seed in (1, 2))
    moving[0, 0, 4, 4, 4] = np.nan
    _, entropy = solve_level(fixed, moving, LevelSettings())
    assert np.isnan(entropy).any()


@pytest.mark.parametrize("name", STAGES)
def test_a_level_follows_the_published_arithmetic(name: str) -> None:
    stage, settings = Vectors(name), settings_of(name)
    fixed, moving = (stage.tensor(role, torch.float32).numpy() for role in ("fixed", "moving"))
    displacement, entropy = solve_level(fixed, moving, settings)
    assert stage.error("flow", torch.from_numpy(displacement)).quantile(0.99) <= 1e-4
    if stage.find("entropy_raw"):
        assert stage.error("entropy_raw", torch.from_numpy(entropy)).max() <= 1e-5


@pytest.mark.parametrize("prefix", ["zero_", "const_"])
def test_published_ties_are_summed(prefix: str) -> None:
    stage = Vectors("voxelopt_stage_ties.npz")
    roles = (f"{prefix}fixed", f"{prefix}moving")
    fixed, moving = (stage.tensor(role, torch.float32).numpy() for role in roles)
    displacement, _ = solve_level(fixed, moving, LevelSettings())
    assert stage.error(f"{prefix}flow", torch.from_numpy(displacement)).quantile(0.99) <= 1e-4


def test_scratch_is_kept_and_released() -> None:
    first = scratch("test", 3, 4)
    assert np.shares_memory(first, scratch("test", 12))
    release_scratch()
    assert not np.shares_memory(first, scratch("test", 12))
    release_scratch()
