"""Sparse deformable features: differences of samples at learned offsets, mixed by a small net."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triton_reg.features.conv_units import seeded
from triton_reg.features.intensity import Window, windowed
from triton_reg.features.repeatable import repeatable
from triton_reg.weights import Weights, load_weights

# where the outermost feature points lie, and what a normalised position means to the sampler:
# "corner" has both at the corner voxels, "centre" both half a voxel outside of them, as torch reads
# the unmodified v0.1 script today; "mixed" is the published two-warp script, whose points are
# centre-aligned and whose sampler is corner-aligned
Convention = Literal["corner", "mixed", "centre"]
_FIRST_CHANNELS = 4
_SPREAD = 0.05  # of the initial offsets, as a share of half the volume's extent


class ObeliskNet(nn.Module):
    """OBELISK: a strided convolution, sampled twice at learned offsets, and 1x1x1 mixing.

    Heinrich, Oktay and Bouteldja, "OBELISK-Net: fewer layers to solve 3D multi-organ segmentation
    with sparse deformable convolutions", Medical Image Analysis 2019, as PDD-Net (Heinrich, MICCAI
    2019) uses it. The names of the weights are those of the published file.

    Args:
        channels: of the features; 16 and 24 are published.
        step: the features have ``size // step`` points along each axis.
        convention: how positions are meant; all but ``"corner"`` are for published weights.
        seed: of the initial weights; the global random state stays as it is.
    """

    def __init__(
        self, channels: int = 16, step: int = 3, convention: Convention = "corner", seed: int = 0
    ) -> None:
        super().__init__()
        self.step, self.convention = step, convention
        with seeded(seed):
            self.offsets = nn.Parameter(torch.randn(2, 2 * channels, 3) * _SPREAD)
            self.layer0 = nn.Conv3d(1, _FIRST_CHANNELS, 5, stride=2, padding=2, bias=False)
            self.batch0 = nn.BatchNorm3d(_FIRST_CHANNELS)
            self.layer1 = nn.Conv3d(8 * channels, 4 * channels, 1, bias=False)
            self.batch1 = nn.BatchNorm3d(4 * channels)
            self.layer2 = nn.Conv3d(4 * channels, 4 * channels, 3, padding=1, bias=False)
            self.batch2 = nn.BatchNorm3d(4 * channels)
            self.layer3 = nn.Conv3d(4 * channels, channels, 1)

    def forward(self, volume: Tensor) -> Tensor:
        """``[N, 1, D, H, W]`` -> ``[N, channels, D // step, H // step, W // step]``."""
        features = self.sampled(self.first(volume), volume)
        features = self.batch1(self.layer1(features)).relu()
        features = self.batch2(self.layer2(features)).relu()
        return self.layer3(features)

    def first(self, volume: Tensor) -> Tensor:
        """Four channels at a quarter of the resolution."""
        pooled = F.avg_pool3d(volume, 3, stride=2, padding=1)
        return self.batch0(self.layer0(pooled)).relu()

    def sampled(self, first: Tensor, volume: Tensor) -> Tensor:
        """Both ends of each offset compared: ``[N, 8 channels, ...]``."""
        corner = self.convention == "corner"
        points = F.affine_grid(
            torch.eye(3, 4).to(first)[None],
            [1, 1, *(size // self.step for size in volume.shape[2:])],
            align_corners=corner,
        )
        shape = points.shape[1:4]
        points = points.view(1, 1, -1, 1, 3)
        ends = []
        for offsets in self.offsets:
            grid = (points + offsets.view(1, -1, 1, 1, 3)).expand(len(first), -1, -1, -1, -1)
            # zeros outside, as published
            ends.append(F.grid_sample(first, grid, align_corners=self.convention != "centre"))
        return (ends[0] - ends[1]).reshape(len(first), -1, *shape)


@dataclass(frozen=True, kw_only=True)
class Obelisk:
    """Features of a trained :class:`ObeliskNet`, on a grid of a third of the volume's points.

    Normalisation uses what was learned, so features never depend on batch mates.

    Attributes:
        weights: the network's, see :meth:`load`.
        convention, step: see :class:`ObeliskNet`.
        window: as :class:`triton_reg.features.intensity.Intensity` has it; ``(0, 500)`` with
            ``clip`` off is the published ``HU / 500``.
        clip: whether values beyond the window are cut to it.
    """

    weights: Weights
    convention: Convention = "corner"
    step: int = 3
    window: Window = (1.0, 99.0)
    clip: bool = True
    _network: ObeliskNet = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        named = self.weights.tensors
        channels = len(named["layer3.bias"]) if "layer3.bias" in named else 16
        network = ObeliskNet(channels, self.step, self.convention).requires_grad_(False)
        self.weights.checked({
            name: tuple(tensor.shape) for name, tensor in network.state_dict().items()
        })  # fmt: skip
        network.load_state_dict(dict(named))
        object.__setattr__(self, "_network", network.eval())

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        convention: Convention = "corner",
        window: Window = (1.0, 99.0),
        clip: bool = True,
    ) -> "Obelisk":
        """From our own ``.safetensors`` file or the published ``.pth``, which runs no code.

        Raises:
            ValueError: listing the names that are missing, not wanted or of another shape.
        """
        weights = Weights.of(load_weights(path))
        return cls(weights=weights, convention=convention, window=window, clip=clip)

    @classmethod
    def published(cls, path: Path) -> "Obelisk":
        """The released weights for abdominal CT, in the conventions of their script."""
        return cls.load(path, convention="mixed", window=(0.0, 500.0), clip=False)

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        """Features ``[N, C, D // step, H // step, W // step]`` of a volume in source units."""
        network, volume = self._network.to(volume.device), volume.float()
        low, high = self.window
        inputs = windowed(volume, mask, self.window) if self.clip else (volume - low) / (high - low)
        with repeatable(volume.device):
            return network(inputs)
