"""What a voxel's features say of its structure, read by layers that are thrown away."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triton_reg.features.architecture import Architecture

_VOXELS = 8192  # of each level that are read in a step
_FOREGROUND = 0.75  # share of them that lie in a structure


class LabelReadout(nn.Module):
    """One linear layer a level, from features to classes.

    Args:
        architecture: of the features.
        classes: how many, background first; 0 for no readout.
        seed: of the initial weights; the global random state stays as it is.
    """

    def __init__(self, architecture: Architecture, classes: int, seed: int) -> None:
        super().__init__()
        self.factors, self.classes = architecture.levels, classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = [nn.Linear(architecture.channels, classes) for _ in self.factors if classes]
        self.layers = nn.ModuleList(layers)

    def forward(
        self, levels: Sequence[Tensor], classes: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Mean cross-entropy over some voxels of each level; 0 without classes.

        Args:
            levels: features ``[1, C, *level]``, coarsest first.
            classes: of the volume, ``[1, 1, D, H, W]`` integers.
            generator: of the choice of voxels.
        """
        if not self.classes:
            return levels[0].new_zeros(())
        losses = []
        for layer, factor, features in zip(self.layers, self.factors, levels, strict=True):
            truth = _middle_of_blocks(classes, factor).flatten()
            inside = truth.nonzero().flatten()
            some = round(_FOREGROUND * _VOXELS) if len(inside) else 0
            chosen = torch.cat([
                inside[torch.randint(max(len(inside), 1), (some,), generator=generator)],
                torch.randint(len(truth), (_VOXELS - some,), generator=generator),
            ])  # fmt: skip
            read = layer(features[0].flatten(1)[:, chosen].T)
            losses.append(F.cross_entropy(read, truth[chosen].long()))
        return torch.stack(losses).mean()


def _middle_of_blocks(classes: Tensor, factor: int) -> Tensor:
    """The class in the middle of each block of voxels, ``[1, 1, ceil(D / factor), ...]``."""
    for axis in (2, 3, 4):
        size = classes.shape[axis]
        middle = torch.arange(0, size, factor, device=classes.device) + factor // 2
        classes = classes.index_select(axis, middle.clamp(max=size - 1))
    return classes
