"""What a voxel's features should be to tell its structure: a code that they learn to predict."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.features.architecture import Architecture

_BALANCE = 0.25  # power of the inverse share of a class; small structures would be passed over
_HEAVIEST = 1e4
_SHARPNESS = 4.0  # of the probabilities: how much one unit of squared distance tells
_MOST_VOXELS = 1 << 16  # that are compared in a step, of each level


class LabelCodes:
    """One vector of length 1 for each structure, zeros for the background.

    Features learn to lie close to the code of their structure, and closer than to any other: the
    nearer a code, the likelier its structure. Their difference between two subjects is then small
    where both are likely the same, and what is uncertain weighs less. Where there are no more
    structures than channels each has a channel of its own; else codes are random directions.

    Args:
        architecture: of the features.
        classes: class of every voxel of all scans, background 0.
        seed: of the directions.
    """

    def __init__(self, architecture: Architecture, classes: Tensor, seed: int) -> None:
        shares = torch.bincount(classes.flatten().long()).double()
        shares = shares / shares.sum()
        count, channels = len(shares), architecture.channels
        self.factors = architecture.levels
        self.weights = (shares[0] / shares.clamp_min(1e-12)).clamp_max(_HEAVIEST) ** _BALANCE
        self.weights = self.weights.float().to(classes.device)
        if count - 1 <= channels:
            codes = torch.eye(count, channels + 1)[:, 1:]
        else:
            generator = torch.Generator().manual_seed(seed)
            codes = torch.randn(count, channels, generator=generator)
            codes = codes / codes.norm(dim=1, keepdim=True)
        codes[0] = 0
        self.codes = codes.to(classes.device)

    def __call__(
        self, levels: Sequence[Tensor], classes: Tensor, generator: torch.Generator
    ) -> Tensor:
        """How badly features tell their structures, mean over the levels.

        Args:
            levels: features ``[1, C, *level]``, coarsest first.
            classes: of the volume, ``[1, 1, D, H, W]`` integers.
            generator: of the choice of voxels, where there are more than are compared.
        """
        losses = []
        for factor, features in zip(self.factors, levels, strict=True):
            flat = features[0].flatten(1).T.float()
            some = torch.randperm(len(flat), generator=generator)[:_MOST_VOXELS]
            some = some.to(flat.device)
            shares = class_shares(classes[0, 0].long(), factor, len(self.codes), some)
            losses.append(self._loss(flat[some], shares))
        return torch.stack(losses).mean()

    def _loss(self, features: Tensor, shares: Tensor) -> Tensor:
        """Distance from the codes, cross entropy and 1 - soft Dice of some voxels.

        Args:
            features: ``[n, C]``.
            shares: of each class in them, ``[n, K]``.
        """
        weighted = shares * self.weights
        weight = weighted.sum(1, keepdim=True)
        target = weighted @ self.codes / weight
        apart = (weight * (features - target).square()).sum()
        length = (weight * target.square()).sum().clamp_min(1e-6)
        # squared distances from the codes, less what all of them have in common
        nearness = 2 * features @ self.codes.T - self.codes.square().sum(1)
        logarithms = F.log_softmax(_SHARPNESS * nearness, dim=1)
        entropy = -(weighted * logarithms).sum() / weight.sum()
        return apart / length + entropy + 1 - _overlap(logarithms.exp(), shares)


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
