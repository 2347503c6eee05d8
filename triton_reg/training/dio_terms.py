"""What a displacement leaves unlike: volumes, structures and keypoints of a pair in training."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from triton_reg.losses import local_correlation_loss, soft_dice
from triton_reg.methods.level_grids import LevelGrid
from triton_reg.ops.blocks import block_means
from triton_reg.ops.warp import warp
from triton_reg.training.dio_settings import DIOTrainingSettings


class Evidence(NamedTuple):
    """What is known of both sides of a pair, fixed before moving.

    Attributes:
        images: windowed volumes ``[1, 1, D, H, W]``.
        masks: of the structures that both have, ``[1, M, D, H, W]``.
        keypoints: ``[K, 3]`` in voxels, NaN where unknown.
    """

    images: tuple[Tensor, Tensor]
    masks: tuple[Tensor, Tensor]
    keypoints: tuple[Tensor, Tensor]


def unlike(
    vectors: Tensor, grid: LevelGrid, evidence: Evidence, settings: DIOTrainingSettings
) -> Tensor:
    """The weighted terms of one level, at its own resolution.

    Args:
        vectors: ``[1, 3, *grid.shape]`` in the level's voxels.
        grid: of the level.
        evidence: of the volumes' resolution.
        settings: whose weights count.
    """
    total = vectors.new_zeros(())
    if settings.image:
        fixed, moving = (block_means(one, grid.factor) for one in evidence.images)
        warped = warp(moving, vectors)
        if settings.image_loss == "mse":
            total = total + settings.image * (fixed - warped).square().mean()
        else:
            total = total + settings.image * local_correlation_loss(fixed, warped)
    if settings.dice and evidence.masks[0].shape[1]:
        fixed, moving = (block_means(one, grid.factor) for one in evidence.masks)
        total = total + settings.dice * (1 - soft_dice(fixed, warp(moving, vectors)).mean())
    if settings.keypoints:
        total = total + settings.keypoints * _distance(vectors, grid, *evidence.keypoints)
    return total


def _distance(vectors: Tensor, grid: LevelGrid, fixed: Tensor, moving: Tensor) -> Tensor:
    """Mean squared distance, in voxels of the volume, from where fixed keypoints lead."""
    known = (fixed.isfinite() & moving.isfinite()).all(1)
    if not known.any():
        return vectors.new_zeros(())
    start = (fixed[known] - grid.offset) / grid.factor
    share = 2 * start / (start.new_tensor(grid.shape) - 1).clamp_min(1) - 1
    # grid_sample counts axes from the last
    here = F.grid_sample(
        vectors, share.flip(1).view(1, 1, 1, -1, 3), padding_mode="border", align_corners=True
    )
    arrived = fixed[known] + grid.factor * here.view(3, -1).T
    return (arrived - moving[known]).square().sum(1).mean()
