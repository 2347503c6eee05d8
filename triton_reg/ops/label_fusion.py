"""One segmentation of a target from the warped labels of several atlases."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.joint_weights import joint_weights
from triton_reg.ops.match_patches import match_patches

Rule = Literal["majority", "local", "joint"]
_AT_ONCE = 1 << 14  # voxels whose votes are counted together


@dataclass(frozen=True)
class FusionSettings:
    """How atlases vote.

    Attributes:
        rule: ``"majority"``: every atlas counts the same; ``"local"``: by its local correlation
            with the target, Artaechevarria et al., "Combination strategies in multi-atlas image
            segmentation", IEEE TMI 2009; ``"joint"``: see
            :func:`triton_reg.ops.joint_weights.joint_weights`.
        radius: half width of the patches that are compared, in voxels.
        search: half width of the cube in which each atlas's most similar patch is looked for; its
            label is what the atlas votes for. 0 for none.
        alpha, beta: of the joint weights.
        power: local weights are the correlation, if positive, to this power.
    """

    rule: Rule = "joint"
    radius: int = 2
    search: int = 1
    alpha: float = 0.5
    beta: int = 2
    power: float = 2.0

    def __post_init__(self) -> None:
        if self.rule not in ("majority", "local", "joint"):
            raise ValueError(
                f"FusionSettings: rule is {self.rule!r}; need majority, local or joint"
            )
        for name, least in (("radius", 1), ("search", 0), ("beta", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"FusionSettings: {name} must be at least {least}, got {getattr(self, name)}"
                )
        for name in ("alpha", "power"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"FusionSettings: {name} must be above 0, got {getattr(self, name)}"
                )


class Fused(NamedTuple):
    """``labels [1, 1, D, H, W]`` int32, and ``confidence`` of that shape: the share of the weights
    that voted for the label, between 0 and 1."""

    labels: Tensor
    confidence: Tensor


def fuse_labels(
    target: Tensor, warped: Tensor, labels: Tensor, settings: FusionSettings = FusionSettings()
) -> Fused:
    """Fuse the labels of atlases that were registered to a target.

    Weights sum to 1 at every voxel, so that only voxels where atlases disagree are looked at. A tie
    goes to the label of the earliest of the atlases that share it: give the likest first.

    Args:
        target: ``[1, 1, D, H, W]`` float32.
        warped: ``[1, N, D, H, W]``, the atlases on the target's grid.
        labels: ``[1, N, D, H, W]`` int32, their labels there.
        settings: how they vote.

    Raises:
        ValueError: if labels and warped volumes differ in shape, or as
            :func:`triton_reg.ops.match_patches.match_patches` does.
    """
    if labels.shape != warped.shape:
        raise ValueError(
            f"fuse_labels: labels must have the shape of warped, {list(warped.shape)}, got "
            f"{list(labels.shape)}"
        )
    search = 0 if settings.rule == "majority" else settings.search
    fused, confidence = labels[0, 0].clone(), torch.ones_like(target[0, 0])
    voxels = disputed_voxels(labels, search)
    positions, weights = _weights(target, warped, voxels, settings)
    voted = labels[0].flatten(1).T.gather(0, positions)
    winners, shares = weighted_vote(voted, weights)
    fused.view(-1)[voxels] = winners
    confidence.view(-1)[voxels] = shares
    return Fused(fused[None, None], confidence[None, None])


def disputed_voxels(labels: Tensor, search: int) -> Tensor:
    """Flat indices ``[V]`` of the voxels within ``search`` of which atlases have several labels.

    Args:
        labels: ``[1, N, D, H, W]`` int32.
        search: half width of a cube in voxels.
    """
    highest, lowest = labels.amax(1, keepdim=True), labels.amin(1, keepdim=True)
    if search:
        # float32 holds every label below 2^24
        highest, lowest = (
            F.max_pool3d(one.float(), 2 * search + 1, stride=1, padding=search)
            for one in (highest, -lowest)
        )
        lowest = -lowest
    return (highest != lowest).flatten().nonzero()[:, 0]


def local_weights(correlations: Tensor, power: float) -> Tensor:
    """Weights that sum to 1, of correlations ``[V, N]``; all alike where none is above 0."""
    gains = correlations.clamp_min(0) ** power
    total = gains.sum(1, keepdim=True)
    return torch.where(total > 0, gains / total, 1 / correlations.shape[1])


def weighted_vote(voted: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The label with the largest sum of weights, and its share of all of them, between 0 and 1.

    Args:
        voted: ``[V, N]`` labels.
        weights: ``[V, N]``, of a sum above 0 for each voxel.

    Returns:
        ``[V]`` each; of several labels with one sum, that which comes first in its row.
    """
    winners, shares = [], []
    for row, weight in zip(voted.split(_AT_ONCE), weights.split(_AT_ONCE), strict=True):
        sums = ((row[:, :, None] == row[:, None]) * weight[:, None]).sum(2)
        first = sums.argmax(1, keepdim=True)
        winners.append(row.gather(1, first)[:, 0])
        shares.append((sums.gather(1, first)[:, 0] / weight.sum(1)).clamp(0, 1))
    return torch.cat(winners), torch.cat(shares)


def _weights(
    target: Tensor, warped: Tensor, voxels: Tensor, settings: FusionSettings
) -> tuple[Tensor, Tensor]:
    """Where each atlas votes, and how much its vote counts: ``[V, N]`` each."""
    count = warped.shape[1]
    if settings.rule == "majority":
        # whole numbers, so that equal numbers of votes are equal sums
        same = torch.ones((len(voxels), count), dtype=target.dtype)
        return voxels[:, None].expand(-1, count), same
    radius = settings.radius
    found = match_patches(target, warped, voxels, radius=radius, search=settings.search)
    if settings.rule == "local":
        return found.positions, local_weights(found.correlations, settings.power)
    given = {"radius": radius, "alpha": settings.alpha, "beta": settings.beta}
    return found.positions, joint_weights(target, warped, voxels, found.positions, **given)
