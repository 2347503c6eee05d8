"""Gradients of a dense match by compiled kernels, which compute the match again."""

from typing import Any

import torch
from torch import Tensor

from triton_reg.ops.lattice import Lattice
from triton_reg.ops.match_settings import MatchSettings
from triton_reg.ops.operators import array, operator


@operator(
    "triton_reg::dense_match_backward",
    schema="(Tensor fixed, Tensor moving, Tensor weights, Tensor? anchors, Tensor[] gradients,"
    " int[] points, int width, float[] start, float[] step, float[] label_step, str smoothing,"
    " int iterations, float curvature, float sigma) -> (Tensor, Tensor, Tensor, Tensor)",
)
def dense_match_backward(
    fixed: Tensor,
    moving: Tensor,
    weights: Tensor,
    anchors: Tensor | None,
    gradients: list[Tensor],
    *values: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to the four tensors of a float32 match; ``[0]`` for anchors of None.

    Args:
        fixed, moving, weights, anchors: see :func:`triton_reg.ops.dense_match.dense_match`.
        gradients: with respect to its four results.
        values: those of the lattice, then those of the settings.
    """
    from triton_reg.ops._cpu import dense_match_backward as cpu

    lattice, settings = Lattice.from_values(values[:5]), MatchSettings.from_values(values[5:])
    first, second, third, fourth = cpu.dense_match_backward(
        array(fixed), array(moving), array(weights), None if anchors is None else array(anchors),
        [array(gradient) for gradient in gradients], lattice, settings,
    )  # fmt: skip
    return (
        torch.from_numpy(first), torch.from_numpy(second),
        torch.from_numpy(third), torch.from_numpy(fourth),
    )  # fmt: skip


@dense_match_backward.register_fake
def _(
    fixed: Tensor, moving: Tensor, weights: Tensor, anchors: Tensor | None, *values: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    del values
    of_anchors = fixed.new_empty(0) if anchors is None else anchors.new_empty(anchors.shape)
    found = (one.new_empty(one.shape) for one in (fixed, moving, weights))
    of_fixed, of_moving, of_weights = found
    return of_fixed, of_moving, of_weights, of_anchors
