"""What prompts add to a descent: forces on label maps and on keypoints."""

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.method import Prompts
from triton_reg.methods.level_grids import LevelGrid
from triton_reg.methods.prompt_terms import PromptWeights
from triton_reg.ops.advance import Vector
from triton_reg.ops.blocks import block_means
from triton_reg.ops.feature_force import Force, ForceSettings, feature_force


class LabelForce:
    """The mean squared difference of the structures that both label maps of a pair have.

    Args:
        prompts: of one pair.
        level: on whose voxels structures are compared, as shares of each voxel.
        placement: where its vectors lead.
        weight: of the sum over structures.
    """

    def __init__(
        self, prompts: Prompts, level: LevelGrid, placement: Tensor, weight: float
    ) -> None:
        fixed, moving = prompts.fixed_labels, prompts.moving_labels
        assert fixed is not None
        assert moving is not None
        shared = [one for one in fixed.unique().tolist() if one > 0 and (moving == one).any()]
        self.fixed, self.moving = (
            torch.cat([block_means((labels == one).float(), level.factor) for one in shared], 1)
            if shared
            else torch.zeros(1, 0, *level.shape, device=labels.device)
            for labels in (fixed, moving)
        )
        self.placement, self.weight = placement, weight * len(shared)

    def __call__(self, vectors: Tensor, active: Tensor) -> Force:
        """Loss and gradient at vectors of the level."""
        if not self.fixed.shape[1]:
            return Force(vectors.new_zeros(len(vectors)), torch.zeros_like(vectors))
        found = feature_force(
            self.fixed, self.moving, vectors, self.placement, ForceSettings(), active=active
        )
        return Force(self.weight * found.loss, self.weight * found.gradient)


class KeypointForce:
    """The mean squared distance between where keypoints lead and where they should.

    Args:
        prompts: of one pair.
        level: of the vectors.
        placement: where they lead.
        voxel: size of a voxel along each axis, in which distances are measured.
        weights: what it counts; ``radius`` is how far, in voxels of the volume, a keypoint draws
            its surroundings.
    """

    def __init__(
        self,
        prompts: Prompts,
        level: LevelGrid,
        placement: Tensor,
        voxel: Vector,
        weights: PromptWeights,
    ) -> None:
        fixed, moving = prompts.fixed_keypoints, prompts.moving_keypoints
        assert fixed is not None
        assert moving is not None
        known = (fixed.isfinite() & moving.isfinite()).all(2)[0]
        self.fixed, self.moving = (
            (points[0, known].to(placement.dtype) - level.offset) / level.factor
            for points in (fixed, moving)
        )
        self.level, self.placement, self.weight = level, placement[0], weights.keypoints
        self.size = level.factor * self.fixed.new_tensor(voxel)
        width = weights.radius / level.factor
        # a Gaussian is a product along the axes: [K, size] of each instead of [K, *level.shape]
        self.reach = [
            torch.exp(
                -(torch.arange(size, device=at.device).to(at) - at[:, None]).square()
                / (2 * width**2)
            )
            for size, at in zip(level.shape, self.fixed.T, strict=True)
        ]

    def __call__(self, vectors: Tensor, active: Tensor) -> Force:
        """Loss and gradient at vectors of the level; the gradient reaches over the radius."""
        if not len(self.fixed):
            return Force(vectors.new_zeros(len(vectors)), torch.zeros_like(vectors))
        place = self.placement.to(vectors)
        shape = vectors.new_tensor(self.level.shape)
        where = (2 * self.fixed / (shape - 1).clamp_min(1) - 1).flip(1)
        here = F.grid_sample(
            vectors, where.view(1, 1, 1, -1, 3), padding_mode="border", align_corners=True
        )
        arrived = place[:, :3] @ self.fixed.T + place[:, 3:4] + place[:, 4:] @ here.view(3, -1)
        away = (arrived - self.moving.T) * self.size[:, None]
        loss = self.weight * away.square().sum(0).mean() * active
        pull = 2 * self.weight * place[:, 4:].T @ (away * self.size[:, None]) / len(self.fixed)
        whole = torch.stack([along.sum(1) for along in self.reach]).prod(0)
        spread = torch.einsum("ak,kz,ky,kx->azyx", pull, *self.reach)
        # points so far outside that they reach no voxel draw nothing
        spread = spread / whole.max().clamp_min(torch.finfo(whole.dtype).tiny)
        return Force(loss, spread[None] * active.view(-1, 1, 1, 1, 1))


def prompt_forces(
    prompts: Prompts | None,
    level: LevelGrid,
    placement: Tensor,
    voxel: Vector,
    weights: PromptWeights,
) -> list[LabelForce | KeypointForce]:
    """The forces of what is known of one pair."""
    if prompts is None:
        return []
    forces: list[LabelForce | KeypointForce] = []
    if prompts.fixed_labels is not None:
        forces.append(LabelForce(prompts, level, placement, weights.labels))
    if prompts.fixed_keypoints is not None:
        forces.append(KeypointForce(prompts, level, placement, voxel, weights))
    return forces
