"""How well features tell a voxel from its neighbours, without registering anything."""

import math

import torch
from torch import Tensor

from triton_reg.ops.level_settings import LevelSettings
from triton_reg.ops.solve_level import solve_level

# what comes before the first filter: costs of the 27 labels and their entropy
_ENTROPY_ALONE = LevelSettings(filter_cost=False, passes=0, couplings=())
_MOST = math.log(27)


def shift_entropy(features: Tensor) -> Tensor:
    """Entropy of matching a subject's features to themselves, shifted by one voxel.

    0 where the features single out the one right displacement, 1 where all 27 labels of search
    radius 1 are equally likely; the mean over shifts along the three axes. VoxelOpt (Zhang et al.,
    2025), figure 1.

    Args:
        features: ``[N, C, D, H, W]``.

    Returns:
        ``[N, D, H, W]`` in [0, 1], in units of ln 27.

    Raises:
        ValueError: if the features are not five-dimensional.
    """
    # what is shifted out comes in on the other side: the outermost layer matches nothing
    entropies = [
        solve_level(features, torch.roll(features, 1, dims=axis), _ENTROPY_ALONE)[1]
        for axis in (2, 3, 4)
    ]
    return torch.stack(entropies).mean(0) / _MOST
