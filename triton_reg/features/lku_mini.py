"""A small network of large kernels that adds to the descriptors which it gets."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triton_reg.features.conv_units import (
    LargeKernelBlock,
    checked_volume,
    checked_voxels,
    instance_unit,
    seeded,
    upsampling_unit,
)


class LKUMini(nn.Module):
    """LKU-Net of two halvings whose heads start as what they got, resized.

    DIO's network for lungs (Jena, Chaudhari and Gee, "Deep implicit optimization enables robust
    learnable features for deformable image registration", Medical Image Analysis 2025). It takes
    twelve MIND-SSC channels. Heads start at zero, so that with twelve output channels the untrained
    network gives MIND-SSC at each resolution.

    Args:
        levels: downsampling factors of the features, of 4, 2 and 1.
        channels: of the features; other numbers than ``inputs`` need a convolution of the input.
        width: feature maps at full resolution; the coarsest have four times as many.
        inputs: channels of the input.
        seed: of the initial weights, see :func:`triton_reg.features.conv_units.seeded`.
    """

    unit = 4  # what the volume's sizes must be divisible by

    def __init__(
        self,
        levels: tuple[int, ...] = (4, 2, 1),
        channels: int = 12,
        width: int = 8,
        inputs: int = 12,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.levels, self.inputs = levels, inputs
        one, two, four = width, 2 * width, 4 * width
        with seeded(seed):
            self.eninput = instance_unit(inputs, one)
            self.ec1 = instance_unit(one, one)
            self.ec2 = instance_unit(one, two, stride=2)
            self.ec3 = LargeKernelBlock(two)
            self.ec4 = instance_unit(two, four, stride=2)
            self.ec5 = LargeKernelBlock(four)
            self.ec6 = instance_unit(four, four)
            self.dc1, self.dc2 = instance_unit(four + two, four), instance_unit(four, two)
            self.dc3, self.dc4 = instance_unit(two + one, two), instance_unit(two, one)
            self.up1, self.up2 = upsampling_unit(four), upsampling_unit(two)
            self.out1, self.out2, self.out3 = (
                _zero_head(maps, channels) for maps in (four, two, one)
            )
            self.residual1, self.residual2, self.residual3 = (
                ScaledInput() if inputs == channels else nn.Conv3d(inputs, channels, 3, padding=1)
                for _ in range(3)
            )

    def forward(self, volume: Tensor) -> list[Tensor]:
        """``[N, inputs, D, H, W]`` -> ``[N, channels, d, h, w]`` a level, coarse to fine.

        Raises:
            ValueError: if the volume's sizes are not divisible by 4, or all are 4.
        """
        checked_volume("LKUMini", volume, self.inputs, self.unit)
        checked_voxels("LKUMini", volume, self.unit)
        first = self.ec1(self.eninput(volume))
        second = self.ec3(self.ec2(first))
        features = self.ec6(self.ec5(self.ec4(second)))
        stages = (
            (4, self.out1, self.residual1, self.up1, second, self.dc1, self.dc2),
            (2, self.out2, self.residual2, self.up2, first, self.dc3, self.dc4),
        )
        levels = []
        for factor, head, residual, up, skip, mix, narrow in stages:
            if factor in self.levels:
                levels.append(head(features) + residual(_reduced(volume, factor)))
            if factor == min(self.levels):
                return levels
            features = narrow(mix(torch.cat([up(features), skip], dim=1)))
        return [*levels, self.out3(features) + self.residual3(volume)]


class ScaledInput(nn.Module):
    """The input times a positive factor, which is learned and starts at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, volume: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return self.scale.exp() * volume


def _reduced(volume: Tensor, factor: int) -> Tensor:
    size = [size // factor for size in volume.shape[2:]]
    return F.interpolate(volume, size=size, mode="trilinear", align_corners=False)


def _zero_head(channels_in: int, channels_out: int) -> nn.Sequential:
    head = nn.Conv3d(channels_in, channels_out, 3, padding=1)
    nn.init.zeros_(head.weight)
    assert head.bias is not None
    nn.init.zeros_(head.bias)
    return nn.Sequential(head)
