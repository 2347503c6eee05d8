"""Features that say which structure a voxel is likely part of: means of the structures' codes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LENGTH = 2.0  # of codes to begin with: that of a voxel of its own code is certain by 98 %
_VOXELS_AT_ONCE = 1 << 16


class CodedFeatures(nn.Module):
    """A network whose features are told from codes, one vector for each structure.

    The nearer a voxel's raw features lie to a code, the likelier it is part of that structure; its
    features are the mean of all codes by that likelihood. The background's code is zero. Two voxels
    thus differ by how far apart the structures are that they likely belong to, and by nothing else:
    what a network cannot tell does not count, and what it can has sharp edges.

    Args:
        network: gives raw features ``[N, C, ...]`` of several levels.
        channels: C.
        structures: how many there are; each begins with a channel of its own where there are enough
            channels, else with a random direction.
        seed: of the directions.
    """

    codes: Tensor

    def __init__(self, network: nn.Module, channels: int, structures: int, seed: int = 0) -> None:
        super().__init__()
        self.network = network
        if structures <= channels:
            codes = torch.eye(structures, channels)
        else:
            generator = torch.Generator().manual_seed(seed)
            codes = F.normalize(torch.randn(structures, channels, generator=generator))
        self.codes = nn.Parameter(_LENGTH * codes)

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Features of each level, see :class:`triton_reg.features.architecture.Architecture`."""
        return self.coded(self.network(volume))

    def coded(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Features ``[N, C, ...]`` of raw ones, in float32."""
        return [self._mean_codes(raw) for raw in levels]

    def nearness(self, raw: Tensor) -> Tensor:
        """Raw features ``[n, C]`` -> logits ``[n, 1 + structures]``, the background's first.

        That is minus the squared distance from each code, less what all have in common.
        """
        all_codes = F.pad(self.codes, [0, 0, 1, 0])
        return torch.addmm(-all_codes.square().sum(1), raw, all_codes.T, alpha=2)

    def _mean_codes(self, raw: Tensor) -> Tensor:
        voxels = raw.float().movedim(1, -1).reshape(-1, raw.shape[1])
        # likelihoods of all voxels at once would be many times as large as the features; where
        # gradients are wanted they are kept all the same
        parts = [
            self.nearness(some).softmax(1)[:, 1:] @ self.codes
            for some in voxels.split(_VOXELS_AT_ONCE)
        ]
        return torch.cat(parts).view(*raw.movedim(1, -1).shape).movedim(-1, 1)
