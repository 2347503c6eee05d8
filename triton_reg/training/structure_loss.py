"""How badly features tell the structures of their voxels, which they learn to predict."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.features.coded import CodedFeatures

_BALANCE = 0.25  # power of the inverse share of a class; small structures would be passed over
_HEAVIEST = 1e4
_MOST_VOXELS = 1 << 16  # that are compared in a step, of each level


class StructureLoss:
    """Cross entropy and 1 - soft Dice of the structures that voxels likely belong to.

    Args:
        factors: how much coarser than the volume each level of the features is, coarsest first.
        classes: class of every voxel of all scans, background 0.
    """

    def __init__(self, factors: Sequence[int], classes: Tensor) -> None:
        shares = torch.bincount(classes.flatten().long()).double()
        shares = shares / shares.sum()
        self.factors = factors
        self.weights = (shares.max() / shares.clamp_min(1e-12)).clamp_max(_HEAVIEST) ** _BALANCE
        self.weights = self.weights.float().to(classes.device)

    def __call__(
        self,
        network: CodedFeatures,
        levels: Sequence[Tensor],
        classes: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Mean over the levels.

        Args:
            network: whose codes count.
            levels: its raw features ``[1, C, *level]``, which may go on beyond the volume.
            classes: of the volume, ``[1, 1, D, H, W]`` integers.
            generator: of the choice of voxels, where there are more than are compared.
        """
        losses = []
        for factor, raw in zip(self.factors, levels, strict=True):
            depth, height, width = (-(-size // factor) for size in classes.shape[2:])
            flat = raw[0, :, :depth, :height, :width].flatten(1).T.float()
            some = torch.arange(len(flat))
            if len(flat) > _MOST_VOXELS:  # with some of them twice, which a permutation costs more
                some = torch.randint(len(flat), (_MOST_VOXELS,), generator=generator)
            some = some.to(flat.device)
            shares = class_shares(classes[0, 0].long(), factor, len(self.weights), some)
            losses.append(self._loss(network.nearness(flat[some]), shares))
        return torch.stack(losses).mean()

    def _loss(self, nearness: Tensor, shares: Tensor) -> Tensor:
        """Of logits and true shares of each class in some voxels, both ``[n, K]``."""
        weighted, logarithms = shares * self.weights, F.log_softmax(nearness, dim=1)
        entropy = -(weighted * logarithms).sum() / weighted.sum()
        return entropy + 1 - _overlap(logarithms.exp(), shares)


def class_shares(classes: Tensor, factor: int, count: int, some: Tensor) -> Tensor:
    """Share of each class in the blocks of ``factor`` voxels an axis, ``[n, count]``.

    Args:
        classes: ``[D, H, W]`` integers; a block at a far end may be smaller than the others.
        factor: side of a block.
        count: of classes.
        some: numbers of the blocks that are wanted, ``[n]``.
    """
    missing = [-size % factor for size in classes.shape]
    outside = [0, missing[2], 0, missing[1], 0, missing[0]]
    blocks = F.pad(classes, outside, value=count)
    for axis in range(3):
        blocks = blocks.unfold(axis, factor, factor)
    members = blocks.reshape(-1, factor**3)[some]
    counts = torch.zeros(len(some), count + 1, device=classes.device)
    counts.scatter_add_(1, members, torch.ones_like(members, dtype=counts.dtype))
    return counts[:, :count] / counts[:, :count].sum(1, keepdim=True)


def _overlap(probabilities: Tensor, shares: Tensor) -> Tensor:
    """Mean soft Dice of the structures that are there, both ``[n, K]``; 1 if there are none."""
    common, both = (probabilities * shares).sum(0), (probabilities + shares).sum(0)
    there = shares[:, 1:].sum(0) > 0
    found = (2 * common[1:] + 1) / (both[1:] + 1)
    return found[there].mean() if there.any() else found.new_ones(())
