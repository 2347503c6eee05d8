"""The dense match and the fit to it: compiled kernels against their definitions."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from kernel_oracle import EPSILON, assert_as_good_as_float32, batch
from torch import Tensor

from triton_reg.ops._cpu.dense_cost import dense_cost
from triton_reg.ops._cpu.grid_filter import filter_plane
from triton_reg.ops._cpu.min_convolution import exact_min_convolution, pooled_min_convolution
from triton_reg.ops.dense_cost import dense_cost_reference
from triton_reg.ops.dense_match import DenseMatch, dense_match, dense_match_reference
from triton_reg.ops.grid_filter import grid_filter_reference
from triton_reg.ops.instance_fit import FitSettings, instance_fit, instance_fit_reference
from triton_reg.ops.lattice import Lattice
from triton_reg.ops.match_settings import MatchSettings
from triton_reg.ops.min_convolution import (
    exact_min_convolution_reference,
    pooled_min_convolution_reference,
)

FEATURES = (13, 11, 12)
LATTICE = Lattice.corner_aligned(FEATURES, (6, 5, 7), 5, (0.25, 0.35, 0.45))
WEIGHTS = torch.tensor([3.0, 0.7, 0.9, 1.1])
LABEL_STEP = (0.125, 0.175, 0.225)
SETTINGS = {
    "published": MatchSettings(),
    "cost alone": MatchSettings(iterations=0),
    "one round": MatchSettings(iterations=1),
    "four rounds": MatchSettings(iterations=4),
    "exact": MatchSettings(smoothing="exact_min_convolution", curvature=0.3),
    "mean field": MatchSettings(smoothing="mean_field", iterations=3),
    "gaussian": MatchSettings(smoothing="gaussian", sigma=1.7),
    "gaussian wider than the grid": MatchSettings(smoothing="gaussian", sigma=4),
    "nothing": MatchSettings(smoothing="none"),
}
LATTICES = {
    "usual": (FEATURES, LATTICE),
    "one label step, two points": (
        (7, 5, 9),
        Lattice.corner_aligned((7, 5, 9), (2, 3, 4), 3, (0.3, 0.3, 0.3)),
    ),
    "reaches out of the volume": (
        (9, 6, 7),
        Lattice.corner_aligned((9, 6, 7), (4, 3, 5), 7, (1.5, 1.5, 1.5)),
    ),
    "more points than voxels": (
        (4, 5, 3),
        Lattice.corner_aligned((4, 5, 3), (9, 3, 18), 3, (0.5, 0.5, 0.5)),
    ),
    "not on the corners": (
        FEATURES,
        Lattice((3, 4, 5), 3, (1.5, -2.0, 0.3), (2.5, 1.2, 3.1), (1.0, 0.7, 0.2)),
    ),
    "one plane of voxels": ((1, 6, 7), Lattice((2, 3, 4), 3, (0, 0, 0), (0, 2, 2), (0, 1, 1))),
}


def features(
    lattice: Lattice, shape: tuple[int, int, int], pairs: int, channels: int = 5
) -> tuple[Tensor, Tensor]:
    return batch(lattice.points, channels, pairs, 1), batch(shape, channels, pairs, 2)


def anchors(lattice: Lattice, pairs: int) -> Tensor:
    return 2 * batch(lattice.points, 4, pairs, 3) - 0.5


def cost(width: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(1, width**3, *shape, generator=torch.Generator().manual_seed(4))


def probabilities(width: int, shape: tuple[int, int, int], pairs: int) -> tuple[Tensor, Tensor]:
    """Smooth over the control points, and their expectation."""
    logits = batch(shape, width**3, pairs, 5)
    likely = (12 * logits).softmax(1)
    steps = LATTICE._replace(width=width).steps(likely)
    labels = torch.cartesian_prod(steps, steps, steps)
    return likely, torch.einsum("blzyx,la->bazyx", likely, labels)


@pytest.mark.parametrize("name", LATTICES)
@pytest.mark.parametrize("channels", [1, 5])
def test_the_cost_is_the_definition(name: str, channels: int) -> None:
    shape, lattice = LATTICES[name]
    fixed, moving = features(lattice, shape, 1, channels)
    found = np.full((1, lattice.labels, *lattice.points), np.nan, np.float32)
    dense_cost(fixed[0].numpy(), moving[0].numpy(), lattice, 1.0, found[0])
    assert_as_good_as_float32(
        found, lambda f, m: dense_cost_reference(f, m, lattice), fixed, moving
    )


@pytest.mark.parametrize(("width", "shape"), [(3, (2, 4, 5)), (5, (1, 9, 8)), (7, (2, 2, 3))])
def test_min_convolutions_and_the_grid_filter_are_the_definitions(
    width: int, shape: tuple[int, int, int]
) -> None:
    given = cost(width, shape)
    for plane in range(shape[0]):
        slab = given[:, :, plane].flatten(2)
        pooled, exact = slab[0].numpy().copy(), slab[0].numpy().copy()
        pooled_min_convolution(pooled, width)
        exact_min_convolution(exact, width, np.float32(0.3))
        one = given[:, :, plane : plane + 1]
        assert_as_good_as_float32(
            pooled.reshape(one.shape), lambda c: pooled_min_convolution_reference(c, width), one
        )
        assert_as_good_as_float32(
            exact.reshape(one.shape), lambda c: exact_min_convolution_reference(c, width, 0.3), one
        )
        for taps in ((1.0,), MatchSettings().taps, SETTINGS["gaussian"].taps):
            filtered = slab[0].numpy().copy()
            filter_plane(filtered, np.array(taps, np.float32), shape[1:])
            assert_as_good_as_float32(
                filtered.reshape(one.shape), lambda c, t=taps: grid_filter_reference(c, t), one
            )


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("anchored", [False, True], ids=["free", "anchored"])
def test_a_match_is_the_definition(name: str, anchored: bool) -> None:
    given = [*features(LATTICE, FEATURES, 2), WEIGHTS]
    if anchored:
        given.append(anchors(LATTICE, 2))

    def match(call: Callable[..., DenseMatch], tensors: tuple[Tensor, ...]) -> DenseMatch:
        return call(
            *tensors[:3], LATTICE, SETTINGS[name], keep_probabilities=True,
            anchors=tensors[3] if anchored else None,
        )  # fmt: skip

    found = match(dense_match, tuple(given))
    for field in DenseMatch._fields:
        assert_as_good_as_float32(
            getattr(found, field).numpy(),
            lambda *tensors, which=field: getattr(match(dense_match_reference, tensors), which),
            *given,
        )


def test_probabilities_are_returned_where_asked_for() -> None:
    given = (*features(LATTICE, FEATURES, 1), WEIGHTS, LATTICE, MatchSettings())
    kept, not_kept = dense_match(*given, keep_probabilities=True), dense_match(*given)
    assert kept.probabilities.shape == (1, 125, 6, 5, 7)
    torch.testing.assert_close(kept.probabilities.sum(1), torch.ones(1, 6, 5, 7))
    assert not_kept.probabilities.shape == (1, 0, 6, 5, 7)
    for one, other in zip(kept[:3], not_kept[:3], strict=True):
        assert torch.equal(one, other)


def test_a_known_displacement_is_found() -> None:
    moving = torch.randn(1, 8, 9, 9, 9, generator=torch.Generator().manual_seed(6))
    lattice = Lattice((3, 3, 3), 5, (2, 2, 2), (2, 2, 2), (1, 1, 1))
    fixed = moving[..., 3:8:2, 1:6:2, 2:7:2].contiguous()  # moved by (1, -1, 0)
    weights = torch.tensor([1.0, 1, 1, 20])
    found = dense_match(fixed, moving, weights, lattice, MatchSettings(iterations=0))
    truth = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1, 1).expand_as(found.mean)
    torch.testing.assert_close(found.mean, truth, atol=1e-2, rtol=0)
    assert found.entropy.max() < 0.05


def test_equal_costs_make_all_labels_equally_likely() -> None:
    fixed, moving = torch.ones(1, 2, 6, 5, 7), torch.ones(1, 2, *FEATURES)
    found = dense_match(fixed, moving, WEIGHTS, LATTICE, MatchSettings())
    assert found.mean.abs().max() < 1e-5
    torch.testing.assert_close(found.entropy, torch.full((1, 6, 5, 7), math.log(125)))
    variance = torch.tensor([2.0, 2, 2, 0, 0, 0]).view(1, 6, 1, 1, 1)
    torch.testing.assert_close(found.covariance, variance.expand(1, 6, 6, 5, 7))


@pytest.mark.parametrize("keep", [False, True])
def test_a_batch_has_the_bits_of_each_pair_alone(keep: bool) -> None:
    fixed, moving = features(LATTICE, FEATURES, 3)
    drawn = anchors(LATTICE, 3)

    def match(pairs: slice) -> DenseMatch:
        return dense_match(
            fixed[pairs], moving[pairs], WEIGHTS, LATTICE, MatchSettings(iterations=3),
            anchors=drawn[pairs], keep_probabilities=keep,
        )  # fmt: skip

    together = match(slice(None))
    alone = [match(slice(pair, pair + 1)) for pair in range(3)]
    for field, whole in zip(DenseMatch._fields, together, strict=True):
        assert torch.equal(whole, torch.cat([getattr(one, field) for one in alone]))


def test_nan_stays_visible() -> None:
    fixed, moving = features(LATTICE, FEATURES, 1)
    broken = moving.clone()
    broken[0, 2, 6, 6, 6] = torch.nan
    assert dense_match(fixed, broken, WEIGHTS, LATTICE, MatchSettings()).mean.isnan().any()
    broken = fixed.clone()
    broken[0, 2, 3, 3, 3] = torch.nan
    for smoothing in ("min_convolution", "exact_min_convolution"):
        settings = MatchSettings(smoothing=smoothing)
        found = dense_match(broken, moving, WEIGHTS, LATTICE, settings)
        assert found.mean[..., 3, 3, 3].isnan().all()
        assert found.entropy[..., 3, 3, 3].isnan().all()


@pytest.mark.filterwarnings("ignore:.*The .grad attribute:UserWarning")
@pytest.mark.parametrize("requires_grad", [False, True], ids=["forward", "gradients"])
def test_the_operators_pass_torchs_own_checks(requires_grad: bool) -> None:
    lattice = Lattice.corner_aligned((5, 4, 6), (3, 2, 3), 3, (0.3, 0.3, 0.3))
    fixed, moving = features(lattice, (5, 4, 6), 2, 2)
    given = [one.requires_grad_(requires_grad) for one in (fixed, moving, WEIGHTS.clone())]
    values = (*lattice, "min_convolution", 2, 1.0, 1.0, True)
    operator = torch.ops.triton_reg.dense_match.default
    torch.library.opcheck(operator, (*given, anchors(lattice, 2), *values))
    torch.library.opcheck(operator, (*given, None, *values))


@pytest.mark.filterwarnings("ignore:.*The .grad attribute:UserWarning")
def test_the_fit_passes_torchs_own_checks() -> None:
    arguments = (*probabilities(3, (3, 2, 4), 2), list(LABEL_STEP), 3, 0.02, 1.5)
    torch.library.opcheck(torch.ops.triton_reg.instance_fit.default, arguments)


def test_gradients_in_float64_are_those_of_differences() -> None:
    lattice = Lattice.corner_aligned((4, 3, 5), (2, 2, 3), 3, (0.3, 0.3, 0.3))
    fixed, moving = (one.double() for one in features(lattice, (4, 3, 5), 1, 2))
    given = (fixed, moving, WEIGHTS.double(), anchors(lattice, 1).double())

    def match(fixed: Tensor, moving: Tensor, weights: Tensor, drawn: Tensor) -> DenseMatch:
        return dense_match(
            fixed, moving, weights, lattice, MatchSettings(), anchors=drawn, keep_probabilities=True
        )

    for tensor in given:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(match, given, fast_mode=True)


def assert_as_accurate(
    found: Sequence[Tensor], own: Sequence[Tensor], truth: Sequence[Tensor]
) -> None:
    """The rule of forward passes with four times its slack, as both passes round."""
    for kernel, reference, exact in zip(found, own, truth, strict=True):
        own_error = (reference.double() - exact).abs().max()
        error = (kernel.double() - exact).abs().max()
        assert error <= 2 * own_error + 32 * EPSILON * exact.abs().max()


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("keep", [False, True], ids=["summary", "probabilities"])
def test_gradients_are_those_of_the_definition(name: str, keep: bool) -> None:
    given = [*features(LATTICE, FEATURES, 2), WEIGHTS, anchors(LATTICE, 2)]
    generator = torch.Generator().manual_seed(7)
    shapes = [(3,), (), (6,), (125,)][: 4 if keep else 3]
    seeds = [torch.randn(2, *shape, 6, 5, 7, generator=generator) for shape in shapes]

    def gradients(call: Callable[..., DenseMatch], dtype: torch.dtype) -> list[Tensor]:
        tensors = [one.to(dtype, copy=True).requires_grad_() for one in given]
        found = call(
            *tensors[:3], LATTICE, SETTINGS[name], anchors=tensors[3], keep_probabilities=keep
        )
        outputs = [output for output in found if output.numel()]
        return list(torch.autograd.grad(outputs, tensors, [seed.to(dtype) for seed in seeds]))

    found = gradients(dense_match, torch.float32)
    own = gradients(dense_match_reference, torch.float32)
    truth = gradients(dense_match_reference, torch.float64)
    assert_as_accurate(found, own, truth)


@pytest.mark.parametrize("zero", range(4), ids=["scale", "kept", "spread", "sharpness"])
def test_gradients_at_a_weight_of_zero_are_those_of_the_definition(zero: int) -> None:
    fixed, moving = features(LATTICE, FEATURES, 1)
    weights = WEIGHTS.clone()
    weights[zero] = 0

    def gradients(call: Callable[..., DenseMatch], dtype: torch.dtype) -> tuple[Tensor, ...]:
        given = [one.to(dtype, copy=True).requires_grad_() for one in (fixed, moving, weights)]
        found = call(*given, LATTICE, MatchSettings())
        return torch.autograd.grad((found.mean.sum(1) + found.entropy).square().sum(), given)

    found = gradients(dense_match, torch.float32)
    assert found[2].abs().max() > 1
    own, truth = (
        gradients(dense_match_reference, dtype) for dtype in (torch.float32, torch.float64)
    )
    assert_as_accurate(found, own, truth)


@pytest.mark.parametrize("iterations", [1, 2, 12])
@pytest.mark.parametrize("width", [3, 5])
@pytest.mark.parametrize("smoothness", [0.0, 1.5])
def test_a_fit_is_the_definition(iterations: int, width: int, smoothness: float) -> None:
    given = probabilities(width, (6, 5, 7), 2)
    settings = FitSettings(iterations=iterations, smoothness=smoothness)
    found = instance_fit(*given, LABEL_STEP, settings)
    truth = instance_fit_reference(given[0].double(), given[1].double(), LABEL_STEP, settings)
    torch.testing.assert_close(found.double(), truth, atol=1e-4, rtol=0)
    if iterations > 1:
        first = instance_fit(*given, LABEL_STEP, FitSettings(iterations=1))
        assert (found - first).abs().max() > 0.01


def test_beyond_the_labels_nothing_pulls() -> None:
    likely, mean = probabilities(3, (4, 4, 4), 1)
    settings = FitSettings(iterations=2, smoothness=0)
    # doubled by the two means, this is beyond the labels everywhere inside
    far = instance_fit(likely, torch.full_like(mean, 50.0), LABEL_STEP, settings)
    start = instance_fit(likely, torch.full_like(mean, 50.0), LABEL_STEP, FitSettings(iterations=1))
    assert torch.equal(far, start)


def test_fits_of_a_batch_have_the_bits_of_each_pair_alone() -> None:
    likely, mean = probabilities(5, (4, 3, 5), 3)
    together = instance_fit(likely, mean, LABEL_STEP, FitSettings())
    for pair in range(3):
        one = slice(pair, pair + 1)
        alone = instance_fit(likely[one], mean[one], LABEL_STEP, FitSettings())
        assert torch.equal(together[one], alone)


def test_bad_input_says_what_is_needed() -> None:
    fixed, moving = features(LATTICE, FEATURES, 2)
    settings = MatchSettings()
    with pytest.raises(ValueError, match=r"share batch size and channels, got \[2, 5, 6, 5, 7\]"):
        dense_match(fixed, moving[:, :3], WEIGHTS, LATTICE, settings)
    with pytest.raises(ValueError, match=r"features of \(6, 5, 7\) control points, got \[2, 5, 6"):
        dense_match(fixed[..., 1:], moving, WEIGHTS, LATTICE, settings)
    with pytest.raises(ValueError, match=r"weights must be \[4\], got \[3\]"):
        dense_match(fixed, moving, WEIGHTS[:3], LATTICE, settings)
    with pytest.raises(ValueError, match=r"anchors must be \[2, 4, 6, 5, 7\], got \[1, 4, 6"):
        dense_match(fixed, moving, WEIGHTS, LATTICE, settings, anchors=anchors(LATTICE, 1))
    likely, mean = probabilities(3, (4, 3, 5), 2)
    with pytest.raises(ValueError, match=r"must be \[B, width³, d, h, w\] on the grid of mean"):
        instance_fit(likely[:, :26], mean, LABEL_STEP, FitSettings())
    with pytest.raises(ValueError, match=r"got \[2, 27, 4, 3, 5\] and \[1, 3, 4, 3, 5\]"):
        instance_fit(likely, mean[:1], LABEL_STEP, FitSettings())


@pytest.mark.parametrize(
    ("points", "width", "reach", "message"),
    [
        ((1, 3, 3), 3, 0.3, r"at least 2 control points an axis, got \(1, 3, 3\)"),
        ((3, 3, 3), 4, 0.3, "width must be odd and at least 3, got 4"),
        ((3, 3, 3), 1, 0.3, "width must be odd and at least 3, got 1"),
        ((3, 3, 3), 3, 0.0, "reach must be positive"),
    ],
)
def test_a_bad_lattice_says_why(
    points: tuple[int, int, int], width: int, reach: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Lattice.corner_aligned(FEATURES, points, width, (reach, reach, reach))


def test_bad_settings_say_why() -> None:
    with pytest.raises(ValueError, match="iterations must be 0 to 8, got 9"):
        MatchSettings(iterations=9)
    with pytest.raises(ValueError, match=r"above 0, got 1\.0 and 0"):
        MatchSettings(sigma=0)
    with pytest.raises(ValueError, match="at least one iteration"):
        FitSettings(iterations=0)
