"""A cost volume that says nothing where either subject is masked."""

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.cost_volume import cost_volume_reference, label_offsets
from triton_reg.ops.resize import grid_shape


def masked_cost_volume_reference(fixed: Tensor, moving: Tensor, radius: int) -> Tensor:
    """The cost volume of features whose last channel is a mask, see :func:`restricted`.

    Args:
        fixed, moving: ``[B, C + 1, D, H, W]``: features, then the mask from 0 to 1.
        radius: half width of the search window in voxels.

    Returns:
        ``[B, L, D, H, W]``, low is good.
    """
    cost = cost_volume_reference(fixed[:, :-1], moving[:, :-1], radius)
    return restricted(cost, fixed[:, -1:], moving[:, -1:], radius)


def restricted(cost: Tensor, fixed_mask: Tensor, moving_mask: Tensor, radius: int) -> Tensor:
    """A cost volume in which labels that lead out of a mask are neither good nor bad.

    With the weight ``w(o, x)`` = fixed mask at ``x`` times moving mask at ``x + o`` (0 outside of
    the grid) and the weighted mean ``m(x)`` of the costs over the labels, ``w (cost - m)``: a label
    without weight costs as much as the average of those with, and where no label has any all cost
    the same, which is what leaves a voxel to its neighbours.

    Args:
        cost: ``[B, L, D, H, W]``.
        fixed_mask, moving_mask: ``[B, 1, D, H, W]`` from 0 to 1.
        radius: the search radius that made the ``L`` labels.
    """
    padded = F.pad(moving_mask[:, 0], [radius] * 6)
    depth, height, width = grid_shape(cost)
    weights = []
    for i, j, k in label_offsets(radius):
        i, j, k = i + radius, j + radius, k + radius
        weights.append(padded[:, i : i + depth, j : j + height, k : k + width])
    weight = torch.stack(weights, dim=1) * fixed_mask
    tiny = torch.finfo(cost.dtype).tiny
    mean = (weight * cost).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(tiny)
    return weight * (cost - mean)
