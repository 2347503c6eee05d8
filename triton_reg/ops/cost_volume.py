"""How badly each displacement label explains each voxel."""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.checks import check_same_shape, check_volumes


def label_offsets(radius: int) -> list[tuple[int, int, int]]:
    """The ``L = (2 radius + 1)³`` displacement labels in voxels, last axis fastest."""
    steps = range(-radius, radius + 1)
    return list(product(steps, steps, steps))


def cost_volume(fixed: Tensor, moving: Tensor, radius: int) -> Tensor:
    """Mean absolute feature difference for every displacement label.

    ``cost(o, x) = 1/C Σ_c |moving_c(x + o) - fixed_c(x)|``, moving zero outside its grid; low is
    good. VoxelOpt (Zhang et al., 2025), equation 2, with the sign turned.

    Args:
        fixed, moving: features ``[B, C, D, H, W]`` on one grid.
        radius: half width of the search window in voxels.

    Returns:
        ``[B, L, D, H, W]``, labels in the order of :func:`label_offsets`.

    Raises:
        ValueError: if the features differ in shape or the radius is below 1.
    """
    check_volumes("cost_volume", fixed=fixed, moving=moving)
    check_same_shape("cost_volume", fixed=fixed, moving=moving)
    if radius < 1:
        raise ValueError(f"cost_volume: radius must be at least 1, got {radius}")
    return cost_volume_reference(fixed, moving, radius)


def cost_volume_reference(fixed: Tensor, moving: Tensor, radius: int) -> Tensor:
    """Plain torch definition of :func:`cost_volume`."""
    batch, channels, *shape = fixed.shape
    padded = F.pad(moving, [radius] * 6)
    offsets = label_offsets(radius)
    cost = fixed.new_zeros(batch, len(offsets), *shape)
    difference = torch.empty_like(fixed[:, 0])
    for label, offset in enumerate(offsets):
        start = [radius + step for step in offset]
        window = (slice(s, s + n) for s, n in zip(start, shape, strict=True))
        shifted = padded[:, :, *window]
        for channel in range(channels):
            torch.sub(shifted[:, channel], fixed[:, channel], out=difference)
            cost[:, label] += difference.abs_()
    return cost.div_(channels)
