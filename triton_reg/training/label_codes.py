"""What a voxel's features should be to tell its structure: a code that they learn to predict."""

from collections.abc import Sequence

import torch
from torch import Tensor

from triton_reg.features.architecture import Architecture
from triton_reg.methods.level_grids import block_means

_BALANCE = 0.25  # power of the inverse share of a class; small structures would be passed over
_HEAVIEST = 1e4


class LabelCodes:
    """One vector of length 1 for each structure, zeros for the background.

    Features that predict them by least squares are, at each voxel, the mean code of the structures
    that it may belong to: their difference between two subjects is small where both are likely the
    same, and what is uncertain weighs less. Where there are no more structures than channels each
    has a channel of its own; else codes are random directions.

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

    def __call__(self, levels: Sequence[Tensor], classes: Tensor) -> Tensor:
        """How far features are from the codes, relative to the codes' own length; levels' mean.

        Args:
            levels: features ``[1, C, *level]``, coarsest first.
            classes: of the volume, ``[1, 1, D, H, W]`` integers.
        """
        own = classes[0, 0].long()
        weights = self.weights[own][None, None]
        weighted = self.codes[own].permute(3, 0, 1, 2)[None] * weights
        losses = []
        for factor, features in zip(self.factors, levels, strict=True):
            weight = block_means(weights, factor)
            target = block_means(weighted, factor) / weight
            apart = (features.float() - target).square().sum(1, keepdim=True)
            length = target.square().sum(1, keepdim=True)
            losses.append((weight * apart).mean() / (weight * length).mean().clamp_min(1e-6))
        return torch.stack(losses).mean()
