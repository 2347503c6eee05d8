"""The convolution units that the feature networks are built of; names are the checkpoints'."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_GROUPS = 8  # of each normalisation; fewer if they do not divide the channels


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from a seed; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        yield


def group_unit(channels_in: int, channels_out: int, activation: nn.Module) -> nn.Sequential:
    """Group normalisation, 3x3x3 convolution without bias, activation."""
    # as published: one group below eight channels
    groups = math.gcd(_GROUPS, channels_in) if channels_in >= _GROUPS else 1
    return nn.Sequential(
        OrderedDict(
            groupnorm=nn.GroupNorm(groups, channels_in),
            conv=nn.Conv3d(channels_in, channels_out, 3, padding=1, bias=False),
            activation=activation,
        )
    )


def double_unit(channels: tuple[int, int, int], activation: nn.Module) -> nn.Sequential:
    """Two group units, with ``channels`` before, between and after them."""
    before, between, after = channels
    return nn.Sequential(
        OrderedDict(
            SingleConv1=group_unit(before, between, activation),
            SingleConv2=group_unit(between, after, activation),
        )
    )


def encoder_block(
    channels_in: int, channels_out: int, activation: nn.Module, *, halves: bool
) -> nn.Sequential:
    """A double unit that widens in two steps, on half the resolution if it ``halves``."""
    between = max(channels_out // 2, channels_in)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if halves:
        parts["pooling"] = nn.MaxPool3d(2)
    parts["basic_module"] = double_unit((channels_in, between, channels_out), activation)
    return nn.Sequential(parts)


def plain_unit(channels_in: int, channels_out: int) -> nn.Sequential:
    """A 3x3x3 convolution with bias alone."""
    return nn.Sequential(OrderedDict(conv=nn.Conv3d(channels_in, channels_out, 3, padding=1)))


def instance_unit(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """3x3x3 convolution, instance normalisation without weights, PReLU with one slope."""
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, stride=stride, padding=1),
        nn.InstanceNorm3d(channels_out),
        nn.PReLU(),
    )


def upsampling_unit(channels: int) -> nn.Sequential:
    """Trilinear doubling that keeps corner voxels, 3x3x3 convolution, PReLU."""
    doubled = nn.Sequential(
        OrderedDict(
            upsampling=nn.Upsample(scale_factor=2, mode="trilinear", align_corners=True),
            conv=nn.Conv3d(channels, channels, 3, padding=1),
        )
    )
    return nn.Sequential(doubled, nn.PReLU())


def bare_head(channels_in: int, channels_out: int) -> nn.Sequential:
    """A 3x3x3 convolution without bias."""
    return nn.Sequential(nn.Conv3d(channels_in, channels_out, 3, padding=1, bias=False))


class LargeKernelBlock(nn.Module):
    """Convolutions of 3, 5 and 1 voxels and the identity, side by side, then PReLU.

    The block of LKU-Net (Jia et al., "U-Net vs Transformer: is U-Net outdated in medical image
    registration?", MLMI 2022), with each convolution followed by instance normalisation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer_regularKernel = _normalised(channels, 3)
        self.layer_largeKernel = _normalised(channels, 5)
        self.layer_oneKernel = _normalised(channels, 1)
        self.layer_nonlinearity = nn.PReLU()

    def forward(self, features: Tensor) -> Tensor:
        """``[N, channels, D, H, W]`` -> the same shape."""
        regular = self.layer_regularKernel(features)
        large = self.layer_largeKernel(features)
        return self.layer_nonlinearity(regular + large + self.layer_oneKernel(features) + features)


def _normalised(channels: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels, channels, size, padding=size // 2), nn.InstanceNorm3d(channels)
    )


def checked_volume(network: str, volume: Tensor, channels: int, unit: int) -> None:
    """Raise ``ValueError`` unless a volume suits a network.

    Args:
        network: the network's name, for the message.
        volume: what the network got.
        channels: what it needs.
        unit: what its sizes must be divisible by.
    """
    shape = list(volume.shape)
    if len(shape) != 5 or shape[1] != channels or any(size % unit for size in shape[2:]):
        raise ValueError(
            f"{network}: volume must be [N, {channels}, D, H, W] with sizes divisible by {unit}, "
            f"got {shape}"
        )


def checked_voxels(network: str, volume: Tensor, unit: int) -> None:
    """Raise ``ValueError`` if the coarsest grid has one voxel, which has no statistics."""
    if max(volume.shape[2:]) == unit:
        raise ValueError(
            f"{network}: volume must have more than {unit} voxels on at least one axis, got "
            f"{list(volume.shape)}"
        )
