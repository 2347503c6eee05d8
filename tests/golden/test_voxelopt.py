"""VoxelOpt, MIND-SSC and the warping operations against the published code's arithmetic."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from golden.vectors import Vectors
from torch import Tensor

from triton_reg.displacement import upsample_twice
from triton_reg.method import Features
from triton_reg.methods.voxelopt import VoxelOpt
from triton_reg.ops.adaptive_filter import adaptive_filter_reference
from triton_reg.ops.compose import compose, integrate
from triton_reg.ops.cost_volume import cost_volume_reference, label_offsets
from triton_reg.ops.coupled_argmin import TIE_TOLERANCE, coupled_argmin_reference
from triton_reg.ops.entropy import entropy_reference, normalised_entropy, sigma_from_range
from triton_reg.ops.level_settings import LevelSettings
from triton_reg.ops.mind_ssc import mind_ssc
from triton_reg.ops.resize import grid_shape, resize, resize_nearest
from triton_reg.ops.solve_level import filter_taps, solve_level
from triton_reg.ops.warp import warp

STAGES = (
    "voxelopt_stage_ks1_adaptive.npz",
    "voxelopt_stage_ks1_plain.npz",
    "voxelopt_stage_ks1_adaptive_cap15.npz",
    "voxelopt_stage_ks2_adaptive.npz",
    "voxelopt_stage_ks2_plain.npz",
    "voxelopt_stage_ks3_adaptive.npz",
)
PYRAMIDS = (
    "voxelopt_pyramid_ks1_adaptive.npz",
    "voxelopt_pyramid_ks1_plain.npz",
    "voxelopt_pyramid_ks2_adaptive.npz",
)
DTYPES = (torch.float32, torch.float64)


@pytest.fixture(params=DTYPES, ids=("float32", "float64"))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def vectors(request: pytest.FixtureRequest) -> Iterator[Vectors]:
    opened = Vectors(request.param)
    yield opened
    opened.close()


def settings_of(name: str) -> LevelSettings:
    """What a file's name says: ``ks2``, ``adaptive`` or ``plain``, ``cap15``."""
    return LevelSettings(
        radius=int(name.partition("_ks")[2][0]),
        smoothing="adaptive" if "adaptive" in name else "released",
        sigma_range=(0.1, 1.5 if "cap15" in name else 0.5),
    )


def assert_pyramid_flow(error: Tensor) -> None:
    """The recommended bounds for a flow that went through argmins; single flips are untested."""
    assert error.median() <= 1e-5
    assert error.quantile(0.99) <= 1e-3
    assert error.quantile(0.999) <= 0.1


def share(differs: Tensor) -> float:
    return differs.double().mean().item()


def candidates(cost: Tensor, displacement: Tensor, coupling: float, radius: int) -> Tensor:
    offsets = cost.new_tensor(label_offsets(radius)).view(1, -1, 3, 1, 1, 1)
    return cost + coupling * ((displacement[:, None] - offsets) ** 2).sum(2)


def check_argmins(
    vectors: Vectors, prefix: str, cost: Tensor, entropy: Tensor, settings: LevelSettings
) -> Tensor:
    """Follow the seven argmins of a level; returns the smoothed displacement after each."""
    taps, displacement, flows = filter_taps(entropy, settings), torch.zeros_like(cost[:, :3]), []
    ties = vectors.take(f"{prefix}ties")
    for iteration, coupling in enumerate((0.0, *settings.couplings)):
        costs = candidates(cost, displacement, coupling, settings.radius)
        tied = ((costs <= costs.amin(1, keepdim=True) + TIE_TOLERANCE).sum(1) > 1).sum().item()
        assert abs(tied - int(ties[iteration])) <= 0.001 * entropy.numel()
        labels = coupled_argmin_reference(cost, displacement, coupling, settings.radius)
        if iteration == 0:
            assert share(vectors.error(f"{prefix}argmax0", labels) > 1e-6) <= 0.001
        displacement = adaptive_filter_reference(labels, taps, settings.passes)
        flows.append(displacement)
    return torch.stack(flows, dim=1)


@pytest.mark.parametrize("vectors", STAGES, ids=STAGES, indirect=True)
def test_a_level_follows_the_published_arithmetic(vectors: Vectors, dtype: torch.dtype) -> None:
    settings = settings_of(vectors.name)
    fixed, moving = vectors.tensor("fixed", dtype), vectors.tensor("moving", dtype)
    cost = cost_volume_reference(fixed, moving, settings.radius)
    entropy = entropy_reference(cost)
    taps = filter_taps(entropy, settings)
    filtered = adaptive_filter_reference(cost, taps, settings.passes)
    flows = check_argmins(vectors, "", filtered, entropy, settings)
    displacement, _ = solve_level(fixed, moving, settings)

    # the files call a high value good and hold the negative of our cost
    sigma = sigma_from_range(entropy, settings.sigma_range)
    centre, side = taps[0][:, 0], taps[0][:, 1]
    intermediates = {
        "cost": (-cost, 1e-6),
        "entropy_raw": (entropy, 1e-5),
        "entropy": (normalised_entropy(entropy), 1e-5),
        "sigma": (sigma, 1e-5),
        "cost_pass1": (-adaptive_filter_reference(cost, taps, 1), 2e-5),
        "cost_filtered": (-filtered, 2e-5),
    }
    for base, (actual, tolerance) in intermediates.items():
        if vectors.find(base):
            assert vectors.error(base, actual).max() <= tolerance, base
    if vectors.find("weights3"):
        weights = torch.stack([side, centre, side], dim=1)
        assert vectors.error("weights3", weights).max() <= 1e-5
    assert vectors.error("flow_iters", flows).quantile(0.99) <= 1e-4
    assert vectors.error("flow", displacement).quantile(0.99) <= 1e-4


@pytest.mark.parametrize(
    "vectors", ["voxelopt_stage_ties.npz"], ids=["voxelopt_stage_ties.npz"], indirect=True
)
def test_tied_labels_are_summed(vectors: Vectors) -> None:
    # float64 would part labels that tie only in float32, where the published ties were made
    settings, dtype = LevelSettings(), torch.float32
    for prefix in ("zero_", "const_"):
        fixed = vectors.tensor(f"{prefix}fixed", dtype)
        moving = vectors.tensor(f"{prefix}moving", dtype)
        cost = cost_volume_reference(fixed, moving, settings.radius)
        entropy = entropy_reference(cost)
        assert vectors.error(f"{prefix}entropy", normalised_entropy(entropy)).max() <= 1e-5
        filtered = adaptive_filter_reference(cost, filter_taps(entropy, settings), settings.passes)
        if vectors.find(f"{prefix}cost_filtered"):
            assert vectors.error(f"{prefix}cost_filtered", -filtered).max() <= 2e-5
        flows = check_argmins(vectors, prefix, filtered, entropy, settings)
        assert vectors.error(f"{prefix}flow", flows[:, -1]).quantile(0.99) <= 1e-4
        displacement, _ = solve_level(fixed, moving, settings)
        assert vectors.error(f"{prefix}flow", displacement).quantile(0.99) <= 1e-4


@dataclass(frozen=True)
class Given:
    """An extractor whose features are known, whatever the volume."""

    features: Tensor

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        del volume, mask
        return self.features


def prepared(features: Tensor, settings: LevelSettings) -> Features:
    """Feature pyramid of one solve a level from the features of its finest level."""
    anything = torch.zeros_like(features[:, :1])
    method = VoxelOpt(features=Given(features), level=settings, solves=(1,))
    return method.prepare(anything, torch.ones_like(anything))


@pytest.mark.slow
@pytest.mark.parametrize("vectors", PYRAMIDS, ids=PYRAMIDS, indirect=True)
def test_the_pyramid_follows_the_published_arithmetic(vectors: Vectors, dtype: torch.dtype) -> None:
    given = Vectors("voxelopt_pyramid_input.npz")
    settings = settings_of(vectors.name)
    fixed, moving = (prepared(given.tensor(role, dtype), settings) for role in ("fixed", "moving"))
    given.close()

    displacement = None
    for level in reversed(range(len(fixed))):
        source = moving[level]
        if displacement is not None:
            displacement = upsample_twice(displacement, grid_shape(source))
            source = warp(source, displacement)
        raw, _ = solve_level(fixed[level], source, settings)
        step = integrate(raw)
        displacement = step if displacement is None else compose(step, displacement)
        for base, actual in {"raw": raw, "integrated": step}.items():
            if vectors.find(f"level{level}_{base}"):
                assert_pyramid_flow(vectors.error(f"level{level}_{base}", actual))
        if vectors.find(f"level{level}_fixed"):
            assert vectors.error(f"level{level}_fixed", fixed[level]).max() <= 2e-5
            assert_pyramid_flow(vectors.error(f"level{level}_warped_moving", source))

    method = VoxelOpt(level=settings, solves=(1,))
    result = method.register(fixed, moving, torch.zeros(1, 2, dtype=torch.int32))
    assert_pyramid_flow(vectors.error("final_flow", result.displacement.vectors))


@pytest.mark.parametrize("vectors", ["mindssc.npz"], ids=["mindssc.npz"], indirect=True)
def test_mind_follows_the_published_arithmetic(vectors: Vectors, dtype: torch.dtype) -> None:
    image, second = vectors.tensor("image", dtype), vectors.tensor("image2", dtype)
    both = torch.cat([image, second], dim=1)
    for base, volume, radius, dilation in (
        ("mind_r2_d2", image, 2, 2),
        ("mind_r1_d1", image, 1, 1),
        ("mind_2channel_r2_d2", both, 2, 2),
    ):
        assert vectors.error(base, mind_ssc(volume, radius, dilation)).max() <= 1e-5, base


@pytest.mark.parametrize("vectors", ["warp_ops.npz"], ids=["warp_ops.npz"], indirect=True)
def test_warping_follows_the_published_arithmetic(vectors: Vectors, dtype: torch.dtype) -> None:
    flow, source = vectors.tensor("flow", dtype), vectors.tensor("src", dtype)
    labels = vectors.tensor("labels", dtype)
    half, (depth, height, width) = integrate(flow), grid_shape(source)
    halved, doubled = (depth // 2, height // 2, width // 2), (2 * depth, 2 * height, 2 * width)
    linear = {
        "warped": warp(source, flow),
        "vecint7": half,
        "vecint4": integrate(flow, 4),
        "composed": compose(flow / 2, half),
        "upsampled2": upsample_twice(flow, doubled),
        "down_half": resize(source, halved),
    }
    for base, actual in linear.items():
        assert vectors.error(base, actual).max() <= 2e-5, base
    nearest = warp(labels, flow, interpolation="nearest")
    assert share(vectors.error("labels_warped_nearest", nearest) > 0) <= 0.001
    assert vectors.error("label_half_nearest", resize_nearest(labels, halved)).max() == 0


def test_every_voxelopt_file_is_known() -> None:
    """No file of this family lies in the folder without a test."""
    known = {
        *STAGES, *PYRAMIDS, "voxelopt_stage_ties.npz", "voxelopt_pyramid_input.npz",
        "voxelopt_unet.npz",
    }  # fmt: skip
    folder = Vectors("mindssc.npz").folder
    present = {path.name for path in folder.glob("voxelopt_*.npz")}
    assert present == known
