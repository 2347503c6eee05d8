"""What prompts add to a dense search: channels for labels, anchors for landmarks."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.displacement import Displacement, moved_points
from triton_reg.method import Prompts
from triton_reg.ops.lattice import Vector
from triton_reg.ops.resize import Shape, grid_shape, resize

_INVERSION_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class PromptWeights:
    """What prompts count beside the features.

    Attributes:
        labels: weight of the squared difference of label maps, summed over structures, relative to
            that of the features.
        keypoints: weight of the squared distance, in label steps, to where a keypoint leads,
            relative to that of the features.
        radius: how far around a keypoint it counts, the sigma of a Gaussian in voxels.
    """

    labels: float = 1.0
    keypoints: float = 1.0
    radius: float = 8.0

    def __post_init__(self) -> None:
        if min(self.labels, self.keypoints) < 0 or self.radius <= 0:
            raise ValueError(
                f"PromptWeights: weights must not be negative and radius positive, got {self}"
            )


def label_channels(prompts: Prompts, weights: PromptWeights, shape: Shape) -> tuple[Tensor, Tensor]:
    """One channel a structure that both maps have, on the grid of the features.

    Returns:
        Fixed and moving channels ``[1, M, *shape]``; ``M`` may be 0.
    """
    fixed, moving = prompts.fixed_labels, prompts.moving_labels
    if fixed is None or moving is None:
        like = prompts.fixed_keypoints
        assert like is not None
        empty = torch.zeros(1, 0, *shape, dtype=torch.float32, device=like.device)
        return empty, empty
    shared = [value for value in fixed.unique().tolist() if value > 0 and (moving == value).any()]
    scale = math.sqrt(weights.labels)
    first, second = (
        torch.cat([_share(labels == value, shape) for value in shared], dim=1) * scale
        if shared
        else torch.zeros(1, 0, *shape, device=labels.device)
        for labels in (fixed, moving)
    )
    return first, second


def _share(mask: Tensor, shape: Shape) -> Tensor:
    """How much of each coarser voxel ``[1, 1, *shape]`` a mask fills."""
    steps = [max(1, round(size / new)) for size, new in zip(grid_shape(mask), shape, strict=True)]
    widths = [2 * (step // 2) + 1 for step in steps]
    padding = [width // 2 for width in widths]
    return resize(F.avg_pool3d(mask.float(), widths, 1, padding, count_include_pad=False), shape)


def anchors_of(
    prompts: Prompts, weights: PromptWeights, points: Shape, shape: Shape, label_steps: Vector
) -> Tensor | None:
    """Where keypoints draw the control points around them.

    Args:
        prompts: of one pair.
        weights: what keypoints count, and how far.
        points: control points along each axis.
        shape: of the volume.
        label_steps: length of a label step along each axis in voxels.

    Returns:
        ``[1, 4, *points]``, see :func:`triton_reg.ops.dense_match.dense_match`; None without
        keypoints.
    """
    fixed, moving = prompts.fixed_keypoints, prompts.moving_keypoints
    if fixed is None or moving is None:
        return None
    known = (fixed.isfinite() & moving.isfinite()).all(2)[0]
    starts = fixed[0, known].float()
    vectors = (moving[0, known] - fixed[0, known]).float() / starts.new_tensor(label_steps)
    axes = [
        torch.linspace(0, size - 1, count, device=starts.device)
        for size, count in zip(shape, points, strict=True)
    ]
    grid = torch.cartesian_prod(*axes)
    closeness = torch.exp(-torch.cdist(grid, starts).square() / (2 * weights.radius**2))  # [P, K]
    total = closeness.sum(1, keepdim=True)
    target = closeness @ vectors / total.clamp_min(torch.finfo(total.dtype).tiny)
    pull = weights.keypoints * total.clamp_max(1)
    return torch.cat([target, pull], dim=1).T.reshape(1, 4, *points)


def moved_back(prompts: Prompts, displacement: Displacement) -> Prompts:
    """The prompts of a pair whose moving volume has been warped.

    Moving labels are warped with it; moving keypoints go to where the warped volume shows what they
    mark: ``y`` with ``y + u(y)`` the keypoint, by fixed-point iteration.
    """
    labels, keypoints = prompts.moving_labels, prompts.moving_keypoints
    if labels is not None:
        warped = displacement.warp(labels.float(), interpolation="nearest", padding="border")
        labels = warped.to(labels.dtype)
    if keypoints is not None:
        found = keypoints[0]
        for _ in range(_INVERSION_STEPS):
            found = keypoints[0] - (moved_points(found, displacement) - found)
        keypoints = found[None]
    return Prompts(prompts.fixed_labels, labels, prompts.fixed_keypoints, keypoints)
