"""Volumes in blocks of voxels: means over them, and features from one size of block to another."""

import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.resize import Shape


def block_means(volume: Tensor, factor: int) -> Tensor:
    """``[B, C, D, H, W]`` averaged over blocks; those that stick out over what they have."""
    if factor == 1:
        return volume
    block = [min(factor, size) for size in volume.shape[2:]]  # torch refuses larger ones
    return F.avg_pool3d(volume, block, ceil_mode=True, count_include_pad=False)


def continued(volume: Tensor, unit: Shape) -> Tensor:
    """``[B, C, D, H, W]`` repeated beyond its far ends until sizes are divisible by ``unit``."""
    depth, height, width = (-size % one for size, one in zip(volume.shape[2:], unit, strict=True))
    if not (depth or height or width):
        return volume
    return F.pad(volume, [0, width, 0, height, 0, depth], mode="replicate")


def reblocked(features: Tensor, blocks: Shape, wanted: int) -> Tensor:
    """Features of blocks of voxels, for blocks of another size; all sizes are powers of 2.

    Along an axis whose blocks are too small they are averaged, where they are too large
    interpolated between the centres of blocks.

    Args:
        features: ``[B, C, *n]``, of blocks that all are whole.
        blocks: their sizes in voxels.
        wanted: the side of the new ones, in voxels.
    """
    means = tuple(max(wanted // one, 1) for one in blocks)
    finer = tuple(max(one / wanted, 1.0) for one in blocks)
    if max(means) > 1:
        features = F.avg_pool3d(features, means, ceil_mode=True, count_include_pad=False)
    if max(finer) > 1:
        features = F.interpolate(features, scale_factor=finer, mode="trilinear")
    return features
