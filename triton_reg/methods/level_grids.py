"""Grids of a pyramid whose voxels are blocks of the volume's, and fields that go between them."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.resize import Shape


class LevelGrid(NamedTuple):
    """Voxel ``x`` of a level covers ``factor`` voxels of the volume along each axis.

    Its centre is that of its block: ``factor (x + 1/2) - 1/2`` in voxels of the volume.
    """

    shape: Shape
    factor: int

    @classmethod
    def over(cls, shape: Shape, factor: int) -> "LevelGrid":
        """The level of a volume of that shape; the last block of an axis may stick out."""
        depth, height, width = (-(-size // factor) for size in shape)
        return cls((depth, height, width), factor)

    @property
    def offset(self) -> float:
        """Where the first voxel's centre lies in the volume."""
        return (self.factor - 1) / 2


def between(field: Tensor, coarse: LevelGrid, fine: LevelGrid) -> Tensor:
    """A field ``[B, C, *coarse.shape]`` at the voxels of a finer level, linearly; values stay."""
    if coarse.factor == fine.factor:
        return field
    ratio = coarse.factor // fine.factor
    up = F.interpolate(field, scale_factor=float(ratio), mode="trilinear", align_corners=False)
    depth, height, width = fine.shape
    return up[..., :depth, :height, :width].contiguous()


def placement_on(matrix: Tensor, level: LevelGrid) -> Tensor:
    """How a level's voxels and vectors lead to the moving volume's level of the same factor.

    Args:
        matrix: ``[B, 3, 4]``; fixed voxel ``x`` of the volume lies at ``M x + t``.
        level: of both.

    Returns:
        ``[B, 3, 7]``, see :func:`triton_reg.ops.sampling.positions_of`.
    """
    linear, shift = matrix[..., :3], matrix[..., 3:]
    offset = torch.full_like(shift, level.offset)
    return torch.cat([linear, (linear @ offset + shift - offset) / level.factor, linear], dim=2)
