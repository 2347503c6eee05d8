"""U-Nets that give features of a volume at several resolutions, for deep implicit optimisation."""

from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triton_reg.features.conv_units import (
    checked_volume,
    double_unit,
    encoder_block,
    group_unit,
    plain_unit,
    seeded,
)

_WIDTHS = (1, 1, 2, 2, 4)  # feature maps of each encoder, in units of the width
_SLOPE = 0.01


class UNet(nn.Module):
    """A 3D U-Net with five encoders and a head at each resolution.

    The U-Net of DIO (Jena, Chaudhari and Gee, "Deep implicit optimization enables robust learnable
    features for deformable image registration", Medical Image Analysis 2025). Normalisation takes
    each volume's own statistics. With the default sizes it has 0.52 million weights. It has all
    five heads whatever the levels, so that checkpoints load, but calculates what the levels need.

    Args:
        levels: downsampling factors of the features, of 8, 4, 2 and 1.
        channels: of the features.
        width: feature maps at full resolution; the coarsest have four times as many.
        seed: of the initial weights, see :func:`triton_reg.features.conv_units.seeded`.
    """

    unit = 16  # what the volume's sizes must be divisible by

    def __init__(
        self,
        levels: tuple[int, ...] = (4, 2, 1),
        channels: int = 16,
        width: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.levels = levels
        maps = [width * factor for factor in _WIDTHS]
        coarse_first = maps[::-1]
        activation = nn.LeakyReLU(_SLOPE)
        with seeded(seed):
            self.encoders = nn.ModuleList(
                encoder_block(before, after, activation, halves=index > 0)
                for index, (before, after) in enumerate(pairwise([1, *maps]))
            )
            self.decoders = nn.ModuleList(
                _decoder(below + after, after, activation)
                for below, after in pairwise(coarse_first)
            )
            self.final_convs = nn.ModuleList(
                nn.Sequential(group_unit(one, channels, activation), plain_unit(channels, channels))
                for one in coarse_first
            )
            for part in self.modules():
                if isinstance(part, nn.Conv3d):
                    nn.init.kaiming_uniform_(part.weight)

    def forward(self, volume: Tensor) -> list[Tensor]:
        """``[N, 1, D, H, W]`` -> ``[N, channels, d, h, w]`` a level, coarse to fine.

        Raises:
            ValueError: if the volume's sizes are not divisible by 16.
        """
        checked_volume("UNet", volume, 1, self.unit)
        skips = [volume]
        for encoder in self.encoders:
            skips.append(encoder(skips[-1]))
        features = skips.pop()
        levels = []
        heads = list(self.final_convs)[1:]
        for factor, decoder, head in zip((8, 4, 2, 1), self.decoders, heads, strict=True):
            if factor < min(self.levels):
                break
            skip = skips.pop()
            raised = F.interpolate(features, size=skip.shape[2:])
            features = decoder(torch.cat([skip, raised], dim=1))
            if factor in self.levels:
                levels.append(head(features))
        return levels


def _decoder(joined: int, after: int, activation: nn.Module) -> nn.Sequential:
    units = double_unit((joined, after, after), activation)
    return nn.Sequential(OrderedDict(basic_module=units))


class UNetEncoder(nn.Module):
    """The encoder of a U-Net for each level, each with weights of its own.

    DIO's encoder-only network (Jena, Chaudhari and Gee, 2025): features of a level see no further
    than its convolutions reach. With the default sizes it has 0.18 million weights.

    Args:
        levels: downsampling factors of the features, powers of 2.
        channels: of the features.
        width: feature maps at full resolution, doubled at each further one.
        multiplier: double units at each resolution.
        seed: of the initial weights, see :func:`triton_reg.features.conv_units.seeded`.
    """

    def __init__(
        self,
        levels: tuple[int, ...] = (4, 2, 1),
        channels: int = 16,
        width: int = 16,
        multiplier: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.unit = max(levels)
        with seeded(seed):
            for index, factor in enumerate(sorted(levels)):
                maps = [width * 2**octave for octave in range(index + 1)]
                encoder = _level_encoder(factor, maps, multiplier, channels)
                self.add_module(f"encoder_{index}", encoder)

    def forward(self, volume: Tensor) -> list[Tensor]:
        """``[N, 1, D, H, W]`` -> ``[N, channels, d, h, w]`` a level, coarse to fine.

        Raises:
            ValueError: if the volume's sizes are not divisible by the coarsest level's factor.
        """
        checked_volume("UNetEncoder", volume, 1, self.unit)
        return [encoder(volume) for encoder in reversed(list(self.children()))]


def _level_encoder(factor: int, maps: list[int], multiplier: int, channels: int) -> nn.Sequential:
    """One level's encoder; what its own halvings leave of the factor is averaged at the end."""
    activation = nn.ReLU()
    parts: list[nn.Module] = []
    before = 1
    for octave, after in enumerate(maps):
        for repeat in range(multiplier):
            halves = octave > 0 and repeat == 0
            parts.append(encoder_block(before, after, activation, halves=halves))
            before = after
    left = factor // 2 ** (len(maps) - 1)
    if left > 1:
        parts.append(nn.AvgPool3d(left))
    return nn.Sequential(*parts, plain_unit(before, channels))
