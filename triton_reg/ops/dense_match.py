"""A dense match: from features to a probability of every displacement at every control point."""

from dataclasses import astuple
from typing import Any, NamedTuple

import torch
from torch import Tensor

from triton_reg.ops.dense_cost import check_dense, dense_cost_reference
from triton_reg.ops.dense_match_backward import dense_match_backward
from triton_reg.ops.grid_filter import grid_filter_reference
from triton_reg.ops.lattice import Lattice
from triton_reg.ops.match_settings import MatchSettings
from triton_reg.ops.min_convolution import (
    exact_min_convolution_reference,
    pooled_min_convolution_reference,
)
from triton_reg.ops.operators import array, check_device, has_kernel, operator

# which axes the six second moments belong to
COVARIANCE_AXES = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


class DenseMatch(NamedTuple):
    """What a match says of every control point.

    Attributes:
        mean: expected displacement ``[B, 3, d, h, w]`` in label steps, channel i along axis i.
        entropy: of the probabilities, ``[B, d, h, w]`` in nats.
        covariance: ``[B, 6, d, h, w]`` in squared label steps, see ``COVARIANCE_AXES``.
        probabilities: ``[B, L, d, h, w]``; ``[B, 0, d, h, w]`` unless asked for.
    """

    mean: Tensor
    entropy: Tensor
    covariance: Tensor
    probabilities: Tensor


def dense_match(
    fixed: Tensor,
    moving: Tensor,
    weights: Tensor,
    lattice: Lattice,
    settings: MatchSettings,
    *,
    anchors: Tensor | None = None,
    keep_probabilities: bool = False,
) -> DenseMatch:
    """Probabilities of displacements after rounds of messages between neighbours.

    Heinrich, "Closing the gap between deep and conventional image registration using probabilistic
    dense displacement networks", MICCAI 2019: with ``cost`` of
    :func:`triton_reg.ops.dense_cost.dense_cost_reference` and weights ``(scale, kept, spread,
    sharpness)``, the first message is ``smooth(scale cost)``, the next
    ``smooth(kept scale cost + spread message)``, and the probabilities are
    ``softmax_l(-sharpness message)``. What the released code adds to costs has no effect and is
    left out.

    Differentiable in features, weights and anchors; the backward pass computes the match again
    instead of keeping its volumes.

    Args:
        fixed: features at the control points, ``[B, C, *lattice.points]``.
        moving: features ``[B, C, d, h, w]``.
        weights: ``[4]``.
        lattice: control points and labels in voxels of ``moving``.
        settings: see :class:`MatchSettings`.
        anchors: ``[B, 4, *lattice.points]``: a displacement in label steps and the weight of the
            squared distance to it, which is added to ``scale cost``.
        keep_probabilities: whether they are returned.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    check_dense("dense_match", fixed, moving, lattice)
    if tuple(weights.shape) != (4,):
        raise ValueError(f"dense_match: weights must be [4], got {list(weights.shape)}")
    expected = (fixed.shape[0], 4, *lattice.points)
    if anchors is not None and tuple(anchors.shape) != expected:
        raise ValueError(
            f"dense_match: anchors must be {list(expected)}, got {list(anchors.shape)}"
        )
    check_device("dense_match", fixed)
    tensors = fixed, moving, weights, anchors
    values = *lattice, *astuple(settings), keep_probabilities
    return DenseMatch(*_dense_match(*tensors, *values))


def dense_match_reference(
    fixed: Tensor,
    moving: Tensor,
    weights: Tensor,
    lattice: Lattice,
    settings: MatchSettings,
    *,
    anchors: Tensor | None = None,
    keep_probabilities: bool = False,
) -> DenseMatch:
    """Plain torch definition of :func:`dense_match`."""
    scale, kept, spread, sharpness = weights
    cost = scale * dense_cost_reference(fixed, moving, lattice)
    if anchors is not None:
        cost = cost + anchor_cost_reference(anchors, lattice)
    message = cost
    for iteration in range(settings.iterations):
        belief = cost if iteration == 0 else kept * cost + spread * message
        message = _smoothed(belief, lattice.width, settings)
    return summary_reference(-sharpness * message, lattice, keep_probabilities)


def anchor_cost_reference(anchors: Tensor, lattice: Lattice) -> Tensor:
    """Weighted squared distance of every label to each control point's anchor.

    Args:
        anchors: ``[B, 4, d, h, w]``, a displacement in label steps and a weight.
        lattice: whose labels are meant.

    Returns:
        ``[B, L, d, h, w]``.
    """
    steps = lattice.steps(anchors)
    labels = torch.cartesian_prod(steps, steps, steps).view(1, -1, 3, 1, 1, 1)
    distance = (labels - anchors[:, None, :3]).square().sum(2)
    return anchors[:, 3:] * distance


def _smoothed(belief: Tensor, width: int, settings: MatchSettings) -> Tensor:
    """One round of messages."""
    match settings.label_filter:
        case "pooled":
            belief = pooled_min_convolution_reference(belief, width)
        case "exact":
            belief = exact_min_convolution_reference(belief, width, settings.curvature)
    return grid_filter_reference(belief, settings.taps)


def summary_reference(logits: Tensor, lattice: Lattice, keep_probabilities: bool) -> DenseMatch:
    """What ``softmax_l(logits)`` says of every control point; logits ``[B, L, d, h, w]``."""
    probabilities = logits.softmax(1)
    entropy = -(probabilities * logits.log_softmax(1)).sum(1)
    steps = lattice.steps(logits)
    labels = torch.cartesian_prod(steps, steps, steps)
    mean = torch.einsum("blzyx,la->bazyx", probabilities, labels)
    products = torch.stack([labels[:, a] * labels[:, b] for a, b in COVARIANCE_AXES], dim=1)
    second = torch.einsum("blzyx,la->bazyx", probabilities, products)
    squares = torch.stack([mean[:, a] * mean[:, b] for a, b in COVARIANCE_AXES], dim=1)
    kept = probabilities if keep_probabilities else probabilities[:, :0]
    return DenseMatch(mean, entropy, second - squares, kept)


@operator(
    "triton_reg::dense_match",
    schema="(Tensor fixed, Tensor moving, Tensor weights, Tensor? anchors, int[] points, int width,"
    " float[] start, float[] step, float[] label_step, str smoothing, int iterations,"
    " float curvature, float sigma, bool keep_probabilities) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _dense_match(
    fixed: Tensor, moving: Tensor, weights: Tensor, anchors: Tensor | None, *values: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    lattice, settings, keep = _unpacked(values)
    if not has_kernel(fixed, moving, weights):
        return _by_reference(fixed, moving, weights, anchors, lattice, settings, keep)
    from triton_reg.ops._cpu import dense_match as cpu

    given = array(fixed), array(moving), array(weights), None if anchors is None else array(anchors)
    first, second, third, fourth = cpu.dense_match(*given, lattice, settings, keep)
    return (
        torch.from_numpy(first), torch.from_numpy(second),
        torch.from_numpy(third), torch.from_numpy(fourth),
    )  # fmt: skip


@_dense_match.register_kernel("cuda")
def _dense_match_cuda(
    fixed: Tensor, moving: Tensor, weights: Tensor, anchors: Tensor | None, *values: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    lattice, settings, keep = _unpacked(values)
    if not has_kernel(fixed, moving, weights):
        return _by_reference(fixed, moving, weights, anchors, lattice, settings, keep)
    from triton_reg.ops._triton import dense_match as gpu

    with torch.cuda.device_of(fixed):
        return gpu.dense_match(fixed, moving, weights, anchors, lattice, settings, keep)


@_dense_match.register_fake
def _(fixed: Tensor, *arguments: Any, **settings: Any) -> tuple[Tensor, ...]:
    del settings
    labels = arguments[4] ** 3 if arguments[-1] else 0
    shape = fixed.shape[2:]
    empty = [fixed.new_empty(fixed.shape[0], count, *shape) for count in (3, 6, labels)]
    return empty[0], fixed.new_empty(fixed.shape[0], *shape), empty[1], empty[2]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    del output
    ctx.save_for_backward(*inputs[:4])
    ctx.values = inputs[4:]


def _backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    """The match is computed again: nothing of its size is kept meanwhile."""
    fixed, moving, weights, anchors = ctx.saved_tensors
    if fixed.device.type == "cpu" and has_kernel(fixed, moving, weights):
        tensors = fixed, moving, weights, anchors
        *found, of_anchors = dense_match_backward(*tensors, list(gradients), *ctx.values[:-1])
        return *found, None if anchors is None else of_anchors, *[None] * len(ctx.values)
    given = [tensor for tensor in ctx.saved_tensors if tensor is not None]
    lattice, settings, keep = _unpacked(ctx.values)

    def match(
        fixed: Tensor, moving: Tensor, weights: Tensor, anchors: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        given = fixed, moving, weights, lattice, settings
        return tuple(dense_match_reference(*given, anchors=anchors, keep_probabilities=keep))

    found = torch.func.vjp(match, *given)[1](gradients)
    missing = 4 - len(found) + len(ctx.values)
    return *found, *[None] * missing


_dense_match.register_autograd(_backward, setup_context=_setup_context)


def _by_reference(
    fixed: Tensor,
    moving: Tensor,
    weights: Tensor,
    anchors: Tensor | None,
    *values: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    lattice, settings, keep = values
    found = dense_match_reference(
        fixed, moving, weights, lattice, settings, anchors=anchors, keep_probabilities=keep
    )
    # operators return no views of one another
    return (
        found.mean.contiguous(), found.entropy.contiguous(),
        found.covariance.contiguous(), found.probabilities.clone(),
    )  # fmt: skip


def _unpacked(values: tuple[Any, ...]) -> tuple[Lattice, MatchSettings, bool]:
    """What the operator gets as plain values."""
    return Lattice.from_values(values[:5]), MatchSettings.from_values(values[5:-1]), values[-1]
