"""Gradients through :func:`triton_reg.ops.feature_force.feature_force` by compiled kernels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from triton_reg.ops.operators import array, operator


@operator("triton_reg::feature_force_backward")
def feature_force_backward(
    fixed: Tensor,
    moving: Tensor,
    vectors: Tensor,
    placement: Tensor,
    weights: Tensor | None,
    active: Tensor | None,
    derivative: str,
    of_loss: Tensor,
    of_gradient: Tensor,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to fixed, moving and vectors of a mean squared difference.

    On a GPU features may also be of half precision, and what is added to those of the moving volume
    is added in no fixed order.

    Args:
        fixed, moving, vectors, placement, weights, active: see
            :func:`triton_reg.ops.feature_force.feature_force`.
        derivative: ``"symmetric"`` or ``"linear"``.
        of_loss, of_gradient: with respect to its two results.
        wanted: which of the three; ``[B, 0, 0, 0, 0]`` for the others.
    """
    from triton_reg.ops._cpu import feature_force_backward as cpu

    given = (
        array(fixed.permute(0, 2, 3, 4, 1)), array(moving.permute(0, 2, 3, 4, 1)), array(vectors),
        array(placement.double()), None if weights is None else array(weights[:, 0].float()),
        None if active is None else array(active),
    )  # fmt: skip
    cotangents = array(of_loss), array(of_gradient)
    of_fixed, of_moving, of_vectors = cpu.feature_force_backward(
        given, derivative == "symmetric", cotangents, tuple(wanted)
    )
    return (
        torch.from_numpy(of_fixed).permute(0, 4, 1, 2, 3),
        torch.from_numpy(of_moving).permute(0, 4, 1, 2, 3),
        torch.from_numpy(of_vectors),
    )


@feature_force_backward.register_kernel("cuda")
def _feature_force_backward_cuda(
    fixed: Tensor,
    moving: Tensor,
    vectors: Tensor,
    placement: Tensor,
    weights: Tensor | None,
    active: Tensor | None,
    derivative: str,
    of_loss: Tensor,
    of_gradient: Tensor,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    from triton_reg.ops._triton.feature_force_backward import squares_force_backward

    given, symmetric = (fixed, moving, vectors, placement), derivative == "symmetric"
    cotangents = of_loss, of_gradient
    with torch.cuda.device_of(fixed):
        of_fixed, of_moving, of_vectors = squares_force_backward(
            *given, cotangents, wanted, symmetric=symmetric, weights=weights, active=active
        )
    return of_fixed.to(fixed.dtype), of_moving.to(moving.dtype), of_vectors


@feature_force_backward.register_fake
def _(
    fixed: Tensor, moving: Tensor, vectors: Tensor, *others: object
) -> tuple[Tensor, Tensor, Tensor]:
    wanted = others[-1]
    assert isinstance(wanted, Sequence)
    empty = [
        one.new_empty(one.permute(0, 2, 3, 4, 1).shape if want else (len(one), 0, 0, 0, 0))
        for one, want in zip((fixed, moving), wanted, strict=False)
    ]
    of_vectors = vectors.new_empty(vectors.shape if wanted[2] else (len(vectors), 0, 0, 0, 0))
    return empty[0].permute(0, 4, 1, 2, 3), empty[1].permute(0, 4, 1, 2, 3), of_vectors
