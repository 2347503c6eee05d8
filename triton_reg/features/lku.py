"""Networks of large kernels that give features of a volume at several resolutions."""

import torch
from torch import Tensor, nn

from triton_reg.features.conv_units import (
    LargeKernelBlock,
    bare_head,
    checked_volume,
    checked_voxels,
    instance_unit,
    seeded,
    upsampling_unit,
)


class LKU(nn.Module):
    """LKU-Net with a head at each resolution.

    The network of DIO's best results (Jena, Chaudhari and Gee, "Deep implicit optimization enables
    robust learnable features for deformable image registration", Medical Image Analysis 2025),
    after Jia et al., MLMI 2022. Normalisation takes each volume's own statistics. With the default
    sizes it has 8.97 million weights. It has all four heads whatever the levels, so that
    checkpoints load, but calculates what the levels need.

    Args:
        levels: downsampling factors of the features, of 8, 4, 2 and 1.
        channels: of the features.
        width: feature maps at full resolution; the coarsest have eight times as many.
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
        one, two, four, eight = (width * factor for factor in (1, 2, 4, 8))
        with seeded(seed):
            self.eninput = instance_unit(1, one)
            self.ec1 = instance_unit(one, one)
            self.ec2 = instance_unit(one, two, stride=2)
            self.ec3 = LargeKernelBlock(two)
            self.ec4 = instance_unit(two, four, stride=2)
            self.ec5 = LargeKernelBlock(four)
            self.ec6 = instance_unit(four, eight, stride=2)
            self.ec7 = LargeKernelBlock(eight)
            self.ec8 = instance_unit(eight, eight, stride=2)
            self.ec9 = LargeKernelBlock(eight)
            self.dc1, self.dc2 = instance_unit(2 * eight, eight), instance_unit(eight, four)
            self.dc3, self.dc4 = instance_unit(eight, four), instance_unit(four, two)
            self.dc5, self.dc6 = instance_unit(four, four), instance_unit(four, two)
            self.dc7, self.dc8 = instance_unit(3 * one, two), instance_unit(two, two)
            self.dc9 = bare_head(two, channels)
            self.up1, self.up2 = upsampling_unit(eight), upsampling_unit(four)
            self.up3, self.up4 = upsampling_unit(two), upsampling_unit(two)
            self.out1, self.out2 = bare_head(2 * eight, channels), bare_head(eight, channels)
            self.out3 = bare_head(four, channels)

    def forward(self, volume: Tensor) -> list[Tensor]:
        """``[N, 1, D, H, W]`` -> ``[N, channels, d, h, w]`` a level, coarse to fine.

        Raises:
            ValueError: if the volume's sizes are not divisible by 16, or all are 16.
        """
        checked_volume("LKU", volume, 1, self.unit)
        checked_voxels("LKU", volume, self.unit)
        first = self.ec1(self.eninput(volume))
        second = self.ec3(self.ec2(first))
        third = self.ec5(self.ec4(second))
        fourth = self.ec7(self.ec6(third))
        features = self.ec9(self.ec8(fourth))
        stages = (
            (8, self.up1, fourth, self.out1, self.dc1, self.dc2),
            (4, self.up2, third, self.out2, self.dc3, self.dc4),
            (2, self.up3, second, self.out3, self.dc5, self.dc6),
        )
        levels = []
        for factor, up, skip, head, mix, narrow in stages:
            joined = torch.cat([up(features), skip], dim=1)
            if factor in self.levels:
                levels.append(head(joined))
            if factor == min(self.levels):
                return levels
            features = narrow(mix(joined))
        joined = torch.cat([self.up4(features), first], dim=1)
        return [*levels, self.dc9(self.dc8(self.dc7(joined)))]


class LKUEncoder(nn.Module):
    """The encoder of an LKU-Net for each level, each with weights of its own.

    DIO's encoder-only network of large kernels (Jena, Chaudhari and Gee, 2025).

    Args:
        levels: downsampling factors of the features, powers of 2.
        channels: of the features.
        width: feature maps at full resolution, doubled at each halving.
        version: what follows the first unit at full resolution: 1, another unit; 2, two blocks of
            large kernels.
        seed: of the initial weights, see :func:`triton_reg.features.conv_units.seeded`.
    """

    def __init__(
        self,
        levels: tuple[int, ...] = (4, 2, 1),
        channels: int = 16,
        width: int = 16,
        version: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.unit = max(levels)
        with seeded(seed):
            self.encoder_modules = nn.ModuleList(
                _level_encoder(factor, width, version, channels)
                for factor in sorted(levels, reverse=True)
            )

    def forward(self, volume: Tensor) -> list[Tensor]:
        """``[N, 1, D, H, W]`` -> ``[N, channels, d, h, w]`` a level, coarse to fine.

        Raises:
            ValueError: if the volume's sizes are not divisible by the coarsest level's factor, or
                all are that factor.
        """
        checked_volume("LKUEncoder", volume, 1, self.unit)
        checked_voxels("LKUEncoder", volume, self.unit)
        return [encoder(volume) for encoder in self.encoder_modules]


def _level_encoder(factor: int, width: int, version: int, channels: int) -> nn.Sequential:
    parts: list[nn.Module] = [instance_unit(1, width)]
    if version == 1:
        parts.append(instance_unit(width, width))
    else:
        parts += [LargeKernelBlock(width), LargeKernelBlock(width)]
    while factor > 1:
        parts += [instance_unit(width, 2 * width, stride=2), LargeKernelBlock(2 * width)]
        factor, width = factor // 2, 2 * width
    return nn.Sequential(*parts, bare_head(width, channels))
