"""PDD-Net against the recorded outputs of the released scripts.

Recorded vectors are normalised and ordered x, y, z; ours are in label steps or voxels, in the order
of the axes. Published alphas 1 and 4 are constants added to costs: they change nothing.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden.vectors import Vectors, golden_folder
from scipy.ndimage import zoom
from torch import Tensor

from triton_reg import Displacement, FitSettings, MatchSettings, Obelisk, PDDNet
from triton_reg.features.obelisk import Convention, ObeliskNet
from triton_reg.losses import class_weights, label_loss, nonlocal_labels, roughness
from triton_reg.ops.dense_cost import dense_cost_reference
from triton_reg.ops.dense_match import DenseMatch, dense_match, dense_match_reference
from triton_reg.ops.grid_filter import grid_filter_reference
from triton_reg.ops.instance_fit import instance_fit, instance_fit_reference
from triton_reg.ops.lattice import Lattice
from triton_reg.ops.min_convolution import pooled_min_convolution_reference
from triton_reg.ops.resize import resize_reference

SHAPE = (36, 48, 42)
INITIAL = (1.0, 1.0, 1.0, 1.0)  # alphas 0, 2, 3 and 5 before training
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=("f32", "f64"))
MATCHES = pytest.mark.parametrize(
    ("match", "dtype"),
    [
        (dense_match_reference, torch.float32),
        (dense_match_reference, torch.float64),
        (dense_match, torch.float32),
    ],
    ids=("f32", "f64", "fused"),
)


def published_weights() -> Path:
    file = golden_folder().parent / "weights" / "pdd_net_obelisk_mind2_2999.pth"
    if not file.is_file():
        pytest.skip(f"no published weights at {file}")
    return file


def features(dtype: torch.dtype, channels: int = 24) -> tuple[Tensor, Tensor]:
    recorded = Vectors("pdd_obelisk.npz")
    both = (recorded.tensor(f"features_{name}", dtype) for name in ("fixed", "moving"))
    fixed, moving = (one[:, :channels] for one in both)
    return fixed, moving


def search(vectors: Vectors, moving: Tensor) -> Lattice:
    count, width, share = vectors.take("settings")[:3]
    size = tuple(moving.shape[2:])
    return Lattice.corner_aligned(size, (int(count),) * 3, int(width), (float(share),) * 3)


def by_point(cost: Tensor) -> Tensor:
    """``[B, L, d, h, w]`` -> ``[B, P, L]``."""
    return cost.flatten(2).transpose(1, 2)


def normalised(mean: Tensor, lattice: Lattice, share: float) -> Tensor:
    """Label steps -> ``[B, d, h, w, 3]`` in shares of half the extent, x first."""
    return (mean * share / (lattice.width // 2)).permute(0, 2, 3, 4, 1).flip(-1)


@DTYPES
def test_obelisk_gives_the_recorded_features(dtype: torch.dtype) -> None:
    vectors = Vectors("pdd_obelisk.npz")
    extractor = Obelisk.published(published_weights())
    network = ObeliskNet(24, convention="mixed").to(dtype).eval()
    network.load_state_dict(dict(extractor.weights.tensors))
    assert np.array_equal(network.offsets.detach(), vectors.take("offsets").astype(np.float32))
    for name in ("fixed", "moving"):
        volume = vectors.tensor(f"{name}_hu", dtype)[None]
        if dtype == torch.float32:
            found = extractor(volume, torch.ones_like(volume))
            assert vectors.error(f"features_{name}", found).max() <= 1e-4
        first = network.first(volume / 500)
        if name == "fixed":
            assert vectors.error("layer0_out", first).max() <= 1e-5
            expected = torch.from_numpy(vectors.take("sampled_sub"))
            sampled = network.sampled(first, volume)[0, ::16]
            assert (sampled - expected).abs().max() <= 1e-5
        assert vectors.error(f"features_{name}", network(volume / 500)).max() <= 1e-4
    # the recorded points, which are ours by construction: the features above are of them
    assert vectors.take("ogrid").shape == (4, 6, 5, 3)
    vectors.close()


@pytest.mark.parametrize(("convention", "name"), [("corner", "ac1"), ("centre", "ac0")])
def test_obelisk_in_training_normalises_by_the_volume(convention: Convention, name: str) -> None:
    network = ObeliskNet(16, convention=convention).train()
    with torch.no_grad():
        for number, (key, weight) in enumerate(network.named_parameters(), start=1):
            weight.copy_(formula(number, key, weight))
    volume = Vectors("pdd_obelisk.npz").tensor("fixed_hu", torch.float32)[None]
    recorded = Vectors("pdd_v01.npz")
    assert recorded.error(f"features_train_{name}", network(volume / 500)).max() <= 1e-4


def formula(number: int, name: str, weight: Tensor) -> Tensor:
    """The weights by which the recorded features were made: sines of a flat index."""
    index = torch.arange(weight.numel(), dtype=torch.float64)
    if name == "offsets":
        return (0.1 * torch.sin(1.7 * index + 0.3)).view(weight.shape)
    wave = torch.sin(0.7311 * index + 1.37 * number)
    if weight.dim() >= 4:
        wave = torch.sin(0.7311 * index + 1.37 * number + 0.001 * (index % 977))
        return (wave * math.sqrt(4 * len(weight) / weight.numel())).view(weight.shape)
    return (0.1 * wave + name.endswith("weight")).view(weight.shape)


@MATCHES
def test_the_match_is_the_recorded_one(match, dtype: torch.dtype) -> None:
    vectors, (fixed, moving) = Vectors("pdd_reg_2warps_small.npz"), features(dtype)
    lattice = search(vectors, moving)
    alpha = torch.from_numpy(vectors.take("alpha")).to(dtype)
    points = resize_reference(fixed, lattice.points)
    cost = alpha[0] * dense_cost_reference(points, moving, lattice)
    assert vectors.error("cost", by_point(cost) + alpha[1]).max() <= 2e-3
    message = pooled_min_convolution_reference(cost, lattice.width)
    assert vectors.error("minconv1", by_point(message) + alpha[1]).max() <= 2e-3
    message = grid_filter_reference(message, MatchSettings().taps)
    assert vectors.error("meanfield1", by_point(message) + alpha[1]).max() <= 2e-3
    belief = alpha[2] * cost + alpha[3] * message
    second = pooled_min_convolution_reference(belief, lattice.width)
    second = grid_filter_reference(second, MatchSettings().taps)
    constant = alpha[4] + (alpha[2] + alpha[3]) * alpha[1]
    assert vectors.error("meanfield2", by_point(second) + constant).max() <= 2e-3
    found: DenseMatch = match(points, moving, alpha[[0, 2, 3, 5]], lattice, MatchSettings())
    assert vectors.error("pred", normalised(found.mean, lattice, 0.25)).max() <= 1e-5
    steps = lattice.steps(fixed) * 0.25 / (lattice.width // 2)
    labels = torch.cartesian_prod(steps, steps, steps).flip(1)
    assert np.allclose(labels, vectors.take("shift_xyz"), atol=1e-6)
    vectors.close()


@pytest.mark.slow
@MATCHES
def test_a_wider_search_is_the_recorded_one(match, dtype: torch.dtype) -> None:
    vectors, (fixed, moving) = Vectors("pdd_reg_2warps_wide.npz"), features(dtype)
    lattice = search(vectors, moving)
    points = resize_reference(fixed, lattice.points)
    alphas = torch.tensor([1.1337, 1.0533, -0.7469, 1.1337], dtype=dtype)
    for weights, name in ((alphas, "pred"), (alphas.new_tensor(INITIAL), "pred_default_alpha")):
        found = match(points, moving, weights, lattice, MatchSettings(), keep_probabilities=True)
        assert vectors.error(name, normalised(found.mean, lattice, 0.15)).max() <= 1e-5
        if name == "pred":
            highest = found.probabilities.amax(1)
            assert vectors.error("soft_max", highest).max() <= 1e-5
    vectors.close()


@pytest.mark.parametrize(
    ("fit", "dtype"),
    [
        (instance_fit_reference, torch.float32),
        (instance_fit_reference, torch.float64),
        (instance_fit, torch.float32),
    ],
    ids=("f32", "f64", "fused"),
)
def test_fifty_steps_of_instance_optimisation_end_at_the_recorded_field(fit, dtype) -> None:
    vectors, images = Vectors("pdd_fit.npz"), Vectors("pdd_obelisk.npz")
    count, width, share, smoothness = vectors.take("settings")
    step = share / (width // 2)
    soft = vectors.tensor("soft", dtype).transpose(1, 2)
    probabilities = soft.reshape(1, -1, *[int(count)] * 3).contiguous()
    mean = (vectors.tensor("pred", dtype).flip(-1).permute(0, 4, 1, 2, 3) / step).contiguous()
    settings = FitSettings(smoothness=float(smoothness))
    found = fit(probabilities, mean, (step,) * 3, settings)
    field = resize_reference(found * step, SHAPE)
    assert vectors.error("dense_flow", field.flip(1)).max() <= 1e-4
    # the field belongs to the last forward pass: one more gives that of the recorded parameters
    after = fit(probabilities, mean, (step,) * 3, FitSettings(iterations=51))
    parameters = vectors.tensor("params_after_50_updates", dtype).permute(0, 4, 1, 2, 3)
    smooth = F.avg_pool3d(F.avg_pool3d(parameters, 3, 1, 1), 3, 1, 1)
    assert (after * step - smooth.flip(1)).abs().max() <= 1e-4
    moving = images.tensor("moving_hu", dtype)[None] / 500
    extent = field.new_tensor([(size - 1) / 2 for size in SHAPE]).view(1, 3, 1, 1, 1)
    warped = Displacement(field * extent, SHAPE, SHAPE).warp(moving)
    assert vectors.error("warped_moving", warped[:, 0]).max() <= 1e-3
    vectors.close()


@pytest.mark.parametrize("aligned", [True, False], ids=("ac1", "ac0"))
@MATCHES
def test_v01_with_either_convention_is_the_recorded_one(match, dtype, aligned: bool) -> None:
    vectors, (fixed, moving) = Vectors("pdd_v01.npz"), features(dtype, channels=16)
    lattice = search(vectors, moving)
    share = 0.4
    if not aligned:  # points and labels half a step inside, on a grid of voxel faces
        size, share = moving.shape[2:], 0.4 * (1 - 1 / lattice.width)
        count, step = lattice.points[0], 0.4 / lattice.width
        lattice = lattice._replace(
            start=tuple((n / count - 1) / 2 for n in size),
            step=tuple(n / count for n in size),
            label_step=tuple(n * step for n in size),
        )
    axes = lattice.control_positions(fixed)
    extents = [2 / (n - 1) for n in fixed.shape[2:]]
    grid = torch.cartesian_prod(*(a * e - 1 for a, e in zip(axes, extents, strict=True)))
    sampled = F.grid_sample(fixed, grid.flip(1).view(1, -1, 1, 1, 3), align_corners=True)
    points = sampled.view(*fixed.shape[:2], *lattice.points)
    weights = fixed.new_tensor(INITIAL)
    found = match(points, moving, weights, lattice, MatchSettings(), keep_probabilities=True)
    name = "ac1" if aligned else "ac0"
    assert vectors.error(f"pred_{name}", normalised(found.mean, lattice, share)).max() <= 1e-5
    assert vectors.error(f"soft_{name}", by_point(found.probabilities)).max() <= 1e-5
    steps = lattice.steps(fixed) * share / (lattice.width // 2)
    labels = torch.cartesian_prod(steps, steps, steps).flip(1)
    assert np.allclose(labels, vectors.take(f"shift_{name}"), atol=1e-6)


@MATCHES
def test_the_losses_of_v01_and_their_gradients_are_the_recorded_ones(match, dtype) -> None:
    vectors, (fixed, moving) = Vectors("pdd_v01.npz"), features(dtype, channels=16)
    lattice = search(vectors, moving)
    maps = {
        name: torch.from_numpy(vectors.take(f"seg_{name}")).long() for name in ("fixed", "moving")
    }
    masks = {name: F.one_hot(one).permute(3, 0, 1, 2)[None].to(dtype) for name, one in maps.items()}
    weights = class_weights(maps["fixed"].flatten().bincount())
    assert vectors.error("class_weight", weights[None]).max() <= 1e-5

    fixed, moving = (one.clone().requires_grad_() for one in (fixed, moving))
    alphas = fixed.new_tensor(INITIAL).requires_grad_()
    points = resize_reference(fixed, lattice.points)
    found = match(points, moving, alphas, lattice, MatchSettings(), keep_probabilities=True)
    over_labels = Lattice.corner_aligned(SHAPE, lattice.points, lattice.width, (0.4,) * 3)
    estimate = nonlocal_labels(found.probabilities, masks["moving"], over_labels)
    truth = resize_reference(masks["fixed"], lattice.points)
    assert vectors.error("nonlocal_label", estimate.flatten(2)).max() <= 1e-5
    assert vectors.error("fixed_label", truth.flatten(2)).max() <= 1e-5
    overlap = label_loss(estimate, truth, weights.to(dtype))
    smooth = 2 * 3 * roughness(found.mean * 0.4 / (lattice.width // 2))
    assert vectors.error("label_loss", overlap[None]).max() <= 1e-6
    assert vectors.error("diff_loss", smooth[None]).max() <= 1e-6

    (overlap + smooth).backward()
    for name, tensor in (("fixed", fixed), ("moving", moving)):
        expected = torch.from_numpy(vectors.take(f"grad_feat_{name}_everyotherchannel"))
        error = (tensor.grad[0, ::2] - expected).abs().max()
        assert error <= 1e-4 * expected.abs().max()
    recorded = torch.from_numpy(vectors.take("grad_alpha")).to(dtype)
    torch.testing.assert_close(alphas.grad, recorded[[0, 2, 3, 5]], rtol=1e-3, atol=1e-7)
    assert recorded[[1, 4]].abs().max() <= 1e-9


@pytest.mark.slow
def test_the_whole_script_ends_where_the_recorded_one_did() -> None:
    """Fifty Adam steps on 29³ points multiply rounding: noise of 1e-6 label steps at their start
    moves the first warp by .006 at most and .0008 on average, as much as we are off."""
    vectors, images = Vectors("pdd_full_2warps.npz"), Vectors("pdd_obelisk.npz")
    method = PDDNet.two_warp(published_weights())
    volumes = [images.tensor(f"{name}_hu", torch.float32)[None] for name in ("fixed", "moving")]
    prepared = [method.prepare(volume, torch.ones_like(volume)) for volume in volumes]
    pair = torch.zeros(1, 2, dtype=torch.int32)
    found = method.register(*prepared, pair).displacement.vectors[0].numpy()
    half = np.stack([zoom(component, 0.5, order=2) for component in found])
    error = vectors.error("final_halfres_f16", torch.from_numpy(half)[None])
    assert error.mean() <= 0.03
    assert error.quantile(0.99) <= 0.15
    assert np.abs(half).max() > 7  # voxels
