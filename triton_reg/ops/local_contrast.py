"""Intensities relative to their surroundings."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.checks import check_volumes
from triton_reg.ops.operators import array, check_device, has_kernel, operator


def local_contrast(volume: Tensor, widths: tuple[int, ...], floor: float) -> Tensor:
    """How many local standard deviations each voxel lies above its local mean.

    ``(x - mean) / (sd + floor)`` over a cube of each width around the voxel, edge voxels repeated:
    unlike the intensity itself it survives bias fields and changes of scanner, and unlike MIND it
    keeps the sign of an edge.

    Args:
        volume: ``[N, 1, D, H, W]``.
        widths: odd sides of the cubes in voxels; one channel each.
        floor: keeps noise in flat regions small, in units of the volume.

    Returns:
        ``[N, len(widths), D, H, W]``.

    Raises:
        ValueError: if there is more than one channel, or a width is even or below 3.
    """
    check_volumes("local_contrast", volume=volume)
    if volume.shape[1] != 1:
        raise ValueError(f"local_contrast: volume must have one channel, got {volume.shape[1]}")
    if not widths or any(width < 3 or width % 2 == 0 for width in widths):
        raise ValueError(f"local_contrast: widths must be odd and at least 3, got {widths}")
    check_device("local_contrast", volume)
    return _local_contrast(volume, widths, floor)


def local_contrast_reference(volume: Tensor, widths: tuple[int, ...], floor: float) -> Tensor:
    """Plain torch definition of :func:`local_contrast`."""
    channels = []
    for width in widths:
        mean = box_mean(volume, width)
        variance = box_mean(volume**2, width) - mean**2
        channels.append((volume - mean) / (variance.clamp_min(0).sqrt() + floor))
    return torch.cat(channels, dim=1)


def box_mean(volume: Tensor, width: int) -> Tensor:
    """Mean over a cube of ``width`` voxels around each, edge voxels repeated.

    Args:
        volume: ``[N, C, D, H, W]``.
        width: odd.
    """
    volume = F.pad(volume, [width // 2] * 6, mode="replicate")
    for kernel in ((width, 1, 1), (1, width, 1), (1, 1, width)):
        volume = F.avg_pool3d(volume, kernel, stride=1)
    return volume


@operator("triton_reg::local_contrast")
def _local_contrast(volume: Tensor, widths: Sequence[int], floor: float) -> Tensor:
    if not has_kernel(volume):
        return local_contrast_reference(volume, tuple(widths), floor)
    from triton_reg.ops._cpu import local_contrast as cpu

    return torch.from_numpy(cpu.local_contrast(array(volume), tuple(widths), floor))


@_local_contrast.register_kernel("cuda")
def _local_contrast_cuda(volume: Tensor, widths: Sequence[int], floor: float) -> Tensor:
    if not has_kernel(volume):
        return local_contrast_reference(volume, tuple(widths), floor)
    from triton_reg.ops._triton import local_contrast as gpu

    with torch.cuda.device_of(volume):
        return gpu.local_contrast(volume, tuple(widths), floor)


@_local_contrast.register_fake
def _(volume: Tensor, widths: Sequence[int], floor: float) -> Tensor:
    del floor
    return volume.new_empty(volume.shape[0], len(widths), *volume.shape[2:])
