"""The dense match and the fit to it: Triton kernels against their definitions, in the interpreter.

Run by ``test_triton.py``, see ``triton_interpreter.py``.
"""

from dataclasses import astuple

import pytest
import torch
from torch import Tensor
from triton_oracle import EPSILON, assert_as_good_as_float32, batch, poisoned_memory, surrounded

from triton_reg.ops import dense_match as operator
from triton_reg.ops import instance_fit as fit_operator
from triton_reg.ops._triton import dense_cost as cost_kernels
from triton_reg.ops._triton import dense_match as match_kernels
from triton_reg.ops._triton.dense_cost import dense_cost, padded_labels
from triton_reg.ops._triton.dense_match import dense_match
from triton_reg.ops._triton.grid_filter import filter_between_planes, filter_within_planes
from triton_reg.ops._triton.instance_fit import instance_fit
from triton_reg.ops._triton.match_summary import summarise, write_probabilities
from triton_reg.ops._triton.min_convolution import exact_min_convolution, pooled_min_convolution
from triton_reg.ops.dense_cost import dense_cost_reference
from triton_reg.ops.dense_match import (
    DenseMatch,
    anchor_cost_reference,
    dense_match_reference,
    summary_reference,
)
from triton_reg.ops.grid_filter import grid_filter_reference
from triton_reg.ops.instance_fit import FitSettings, instance_fit_reference
from triton_reg.ops.lattice import Lattice
from triton_reg.ops.match_settings import MatchSettings
from triton_reg.ops.min_convolution import (
    exact_min_convolution_reference,
    pooled_min_convolution_reference,
)
from triton_reg.ops.resize import Shape

# lanes that a mask switches off still compute, on whatever they hold
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

__all__ = ["poisoned_memory"]  # a fixture for all tests here

FEATURES: Shape = (7, 6, 8)
SMALL = Lattice.corner_aligned(FEATURES, (2, 3, 2), 3, (0.25, 0.35, 0.45))
LATTICES = {
    "usual": (FEATURES, Lattice.corner_aligned(FEATURES, (3, 4, 2), 5, (0.25, 0.35, 0.45))),
    "more than a block": (
        (3, 3, 9),
        Lattice.corner_aligned((3, 3, 9), (2, 2, 27), 3, (0.3, 0.3, 0.3)),
    ),
    "reaches out of the volume": (
        (4, 6, 5),
        Lattice.corner_aligned((4, 6, 5), (2, 3, 2), 5, (1.5, 1.5, 1.5)),
    ),
    "not on the corners": (
        FEATURES,
        Lattice((2, 2, 3), 3, (1.5, 2.2, 0.3), (2.5, 0.9, 3.1), (1.0, 0.3, 0.2)),
    ),
    "one plane of voxels": ((1, 6, 7), Lattice((2, 3, 4), 3, (0, 0, 0), (0, 2, 2), (0, 1, 1))),
    "one voxel": ((1, 1, 1), Lattice((2, 2, 2), 3, (0, 0, 0), (1, 1, 1), (1, 1, 1))),
}
SETTINGS = {
    "cost alone": MatchSettings(iterations=0),
    "published": MatchSettings(),
    "exact, three rounds": MatchSettings(
        smoothing="exact_min_convolution", curvature=0.3, iterations=3
    ),
    "mean field": MatchSettings(smoothing="mean_field", iterations=1),
    "gaussian wider than the grid": MatchSettings(smoothing="gaussian", sigma=1.7),
    "nothing": MatchSettings(smoothing="none"),
}
WEIGHTS = torch.tensor([3.0, 0.7, 0.9, 1.1])
LABEL_STEP = (0.125, 0.175, 0.225)


def anchors(lattice: Lattice, pairs: int) -> Tensor:
    return surrounded(2 * batch(lattice.points, 4, pairs, 3) - 0.5)


def rows(cost: Tensor) -> Tensor:
    """``[B, L, d, h, w]`` as ``[B, P, ROW]``, padded with NaN."""
    labels = cost.shape[1]
    found = cost.new_full((len(cost), cost[0, 0].numel(), padded_labels(labels)), torch.nan)
    found[..., :labels] = cost.flatten(2).transpose(1, 2)
    return surrounded(found)


def volume(found: Tensor, like: Tensor) -> Tensor:
    """The reverse of :func:`rows`."""
    return found[..., : like.shape[1]].transpose(1, 2).reshape(like.shape)


def drawn(width: int, points: Shape, pairs: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(pairs, width**3, *points, generator=generator)


def probabilities(width: int, points: Shape, pairs: int) -> tuple[Tensor, Tensor]:
    """Smooth over the control points, and their expectation."""
    likely = (12 * batch(points, width**3, pairs, 5)).softmax(1)
    steps = SMALL._replace(width=width).steps(likely)
    labels = torch.cartesian_prod(steps, steps, steps)
    return surrounded(likely), torch.einsum("blzyx,la->bazyx", likely, labels)


@pytest.mark.parametrize("name", LATTICES)
def test_the_cost_is_the_definition(name: str) -> None:
    shape, lattice = LATTICES[name]
    pairs = 2 if name == "usual" else 1
    fixed, moving = batch(lattice.points, 3, pairs, 1), batch(shape, 3, pairs, 2)
    found = torch.empty(pairs, fixed[0, 0].numel(), padded_labels(lattice.labels))
    dense_cost(fixed, moving, WEIGHTS, None, lattice, found)
    expected = dense_cost_reference(fixed, moving, lattice)
    assert_as_good_as_float32(
        volume(found, expected),
        lambda f, m: WEIGHTS[0] * dense_cost_reference(f, m, lattice),
        fixed,
        moving,
    )


@pytest.mark.parametrize(("channels", "most"), [(1, 24), (7, 3)], ids=["one", "in three launches"])
def test_channels_add_up_and_anchors_count_once(
    channels: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost_kernels, "_MOST_CHANNELS", most)
    fixed, moving = batch(SMALL.points, channels, 2, 1), batch(FEATURES, channels, 2, 2)
    found = torch.empty(2, 12, padded_labels(SMALL.labels))
    pulls = anchors(SMALL, 2)
    dense_cost(fixed, moving, WEIGHTS, pulls, SMALL, found)

    def definition(fixed: Tensor, moving: Tensor, pulls: Tensor) -> Tensor:
        cost = WEIGHTS[0] * dense_cost_reference(fixed, moving, SMALL)
        return cost + anchor_cost_reference(pulls, SMALL)

    like = definition(fixed, moving, pulls)
    assert_as_good_as_float32(volume(found, like), definition, fixed, moving, pulls)


@pytest.mark.parametrize("exact", [False, True], ids=["pooled", "exact"])
@pytest.mark.parametrize(
    ("width", "points", "pairs"),
    [(3, (2, 1, 2), 2), (3, (4, 4, 2), 1), (5, (1, 1, 3), 1), (7, (2, 1, 1), 1), (15, (1,) * 3, 1)],
)
def test_min_convolutions_are_the_definitions(
    width: int, points: Shape, pairs: int, exact: bool
) -> None:
    cost = drawn(width, points, pairs)
    source = rows(cost)
    target = torch.empty(source.shape)
    if exact:
        exact_min_convolution(source, width, 0.3, target)
    else:
        pooled_min_convolution(source, width, target)

    def definition(cost: Tensor) -> Tensor:
        if exact:
            return exact_min_convolution_reference(cost, width, 0.3)
        return pooled_min_convolution_reference(cost, width)

    assert_as_good_as_float32(volume(target, cost), definition, cost)


@pytest.mark.parametrize("exact", [False, True], ids=["pooled", "exact"])
def test_nan_stays_visible(exact: bool) -> None:
    cost = drawn(3, (1, 1, 2))
    cost[0, 20, 0, 0, 1] = torch.nan
    source, target = rows(cost), rows(cost)
    if exact:
        exact_min_convolution(source, 3, 0.3, target)
    else:
        pooled_min_convolution(source, 3, target)
    assert volume(target, cost)[..., 0].isfinite().all()
    assert volume(target, cost)[..., 1].isnan().all()


@pytest.mark.parametrize("taps", [(1.0,), (3 / 9, 2 / 9, 1 / 9), (0.4, 0.15, 0.1, 0.04, 0.01)])
@pytest.mark.parametrize("points", [(3, 4, 2), (2, 1, 18)], ids=str)
def test_the_filter_is_the_definition(points: Shape, taps: tuple[float, ...]) -> None:
    cost, message = drawn(3, points, 2), drawn(3, points, 2) + 1
    source = rows(message)
    within, between, combined = (torch.empty(source.shape) for _ in range(3))
    filter_within_planes(source, points, taps, within)
    filter_between_planes(within, points, taps, WEIGHTS, None, between)
    filter_between_planes(within, points, taps, WEIGHTS, rows(cost), combined)
    assert_as_good_as_float32(
        volume(between, cost), lambda m: grid_filter_reference(m, taps), message
    )
    assert_as_good_as_float32(
        volume(combined, cost),
        lambda c, m: WEIGHTS[1] * c + WEIGHTS[2] * grid_filter_reference(m, taps),
        cost,
        message,
    )


@pytest.mark.parametrize(("width", "points"), [(3, (3, 4, 3)), (5, (1, 2, 3))], ids=str)
def test_summaries_are_the_definition(width: int, points: Shape) -> None:
    message = 3 * drawn(width, points, 2) + 100
    source, lattice = rows(message), SMALL._replace(points=points, width=width)
    count = source.shape[1]
    mean, covariance, scales = (torch.empty(2, channels, count) for channels in (3, 6, 2))
    entropy, likely = torch.empty(2, count), torch.empty(2, width**3, count)
    summarise(source, WEIGHTS, width, (mean, entropy, covariance), scales)
    write_probabilities(source, WEIGHTS, scales, likely)
    for name, found in zip(DenseMatch._fields, (mean, entropy, covariance, likely), strict=True):
        assert_as_good_as_float32(
            found,
            lambda m, field=name: getattr(
                summary_reference(-WEIGHTS[3] * m, lattice, keep_probabilities=True), field
            ),
            message,
        )


@pytest.mark.parametrize(
    ("name", "anchored"),
    [*((name, False) for name in SETTINGS), ("cost alone", True), ("exact, three rounds", True)],
)
def test_a_match_is_the_definition(name: str, anchored: bool) -> None:
    fixed, moving = batch(SMALL.points, 5, 1, 1), batch(FEATURES, 5, 1, 2)
    pulls = anchors(SMALL, 1) if anchored else None
    found = DenseMatch(*dense_match(fixed, moving, WEIGHTS, pulls, SMALL, SETTINGS[name], True))
    for field in DenseMatch._fields:
        assert_as_good_as_float32(
            getattr(found, field),
            lambda f, m, w, which=field: getattr(
                dense_match_reference(
                    f, m, w, SMALL, SETTINGS[name], keep_probabilities=True,
                    anchors=None if pulls is None else pulls.to(f.dtype),
                ),
                which,
            ),
            fixed, moving, WEIGHTS,
        )  # fmt: skip


@pytest.mark.parametrize("together", [32, 2], ids=["one chunk", "two chunks"])
def test_a_batch_has_the_bits_of_each_pair_alone(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(match_kernels, "_MOST_PAIRS", together)
    lattice = SMALL._replace(points=(2, 1, 2))
    fixed, moving = batch(lattice.points, 3, 3, 1), batch(FEATURES, 3, 3, 2)
    drawn_anchors, settings = anchors(lattice, 3), MatchSettings(iterations=1)

    def match(pairs: slice) -> tuple[Tensor, ...]:
        near = drawn_anchors[pairs]
        return dense_match(fixed[pairs], moving[pairs], WEIGHTS, near, lattice, settings, False)

    whole, last = match(slice(None)), match(slice(2, 3))
    assert whole[3].shape == (3, 0, 2, 1, 2)
    for all_pairs, one in zip(whole, last, strict=True):
        assert torch.equal(all_pairs[2:], one)


def test_a_lattice_that_is_too_large_is_refused() -> None:
    fixed = torch.empty(1, 1, 300, 300, 300, device="meta")
    lattice = Lattice.corner_aligned((9, 9, 9), (300, 300, 300), 5, (0.3, 0.3, 0.3))
    moving, weights = torch.empty(1, 1, 9, 9, 9, device="meta"), WEIGHTS.to("meta")
    with pytest.raises(ValueError, match=r"125 labels at \(300, 300, 300\) control points"):
        dense_match(fixed, moving, weights, None, lattice, MatchSettings(), False)


@pytest.mark.parametrize(("width", "smoothness"), [(3, 1.5), (5, 0.0)])
@pytest.mark.parametrize("iterations", [1, 3])
def test_a_fit_is_the_definition(iterations: int, width: int, smoothness: float) -> None:
    likely, mean = probabilities(width, (4, 3, 5), 1)
    settings = FitSettings(iterations=iterations, smoothness=smoothness)
    found = instance_fit(likely, mean, LABEL_STEP, settings)
    truth = instance_fit_reference(likely.double(), mean.double(), LABEL_STEP, settings)
    torch.testing.assert_close(found.double(), truth, atol=32 * EPSILON, rtol=32 * EPSILON)


def test_a_fit_of_a_batch_and_of_more_than_a_block() -> None:
    likely, mean = probabilities(3, (3, 6, 8), 2)
    settings = FitSettings(iterations=2, smoothness=0)
    found = instance_fit(likely, mean, LABEL_STEP, settings)
    truth = instance_fit_reference(likely.double(), mean.double(), LABEL_STEP, settings)
    torch.testing.assert_close(found.double(), truth, atol=32 * EPSILON, rtol=32 * EPSILON)
    again = instance_fit(likely[1:], mean[1:], LABEL_STEP, settings)
    assert torch.equal(found[1:], again)


def test_beyond_the_labels_nothing_pulls() -> None:
    likely, mean = probabilities(3, (3, 2, 3), 1)
    far = torch.full_like(mean, 50.0)
    moved = instance_fit(likely, far, LABEL_STEP, FitSettings(iterations=2, smoothness=0))
    start = instance_fit(likely, far, LABEL_STEP, FitSettings(iterations=1))
    assert torch.equal(moved, start)


def test_the_operators_run_their_kernels() -> None:
    fixed, moving = batch(SMALL.points, 3, 1, 1), batch(FEATURES, 3, 1, 2)
    settings, pulls = MatchSettings(smoothing="mean_field", iterations=1), anchors(SMALL, 1)
    found = operator._dense_match_cuda(
        fixed, moving, WEIGHTS, pulls, *SMALL, *astuple(settings), True
    )
    own = dense_match(fixed, moving, WEIGHTS, pulls, SMALL, settings, True)
    for one, other in zip(found, own, strict=True):
        assert torch.equal(one, other)
    likely, mean = probabilities(3, (3, 2, 3), 1)
    found = fit_operator._instance_fit_cuda(likely, mean, LABEL_STEP, 2, 0.01, 1.0)
    fit = FitSettings(iterations=2, learning_rate=0.01, smoothness=1.0)
    assert torch.equal(found, instance_fit(likely, mean, LABEL_STEP, fit))
