"""MIND with self-similarity context: local structure that survives a change of contrast."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.checks import check_volumes
from triton_reg.ops.operators import array, check_device, has_kernel, operator

# the two compared offsets of each channel, in units of the dilation (Heinrich et al., 2013); the
# order of channels is that of the published weights and golden vectors
CHANNEL_OFFSETS = (
    ((1, 0, 0), (0, -1, 0)),
    ((0, 1, 0), (-1, 0, 0)),
    ((0, -1, 0), (-1, 0, 0)),
    ((0, 1, 0), (1, 0, 0)),
    ((0, -1, 0), (0, 0, -1)),
    ((0, 1, 0), (0, 0, 1)),
    ((0, 0, -1), (-1, 0, 0)),
    ((1, 0, 0), (0, 0, 1)),
    ((0, 1, 0), (0, 0, -1)),
    ((0, 0, 1), (0, -1, 0)),
    ((1, 0, 0), (0, 0, -1)),
    ((0, 0, 1), (-1, 0, 0)),
)


def mind_ssc(volume: Tensor, radius: int, dilation: int) -> Tensor:
    """Twelve self-similarity channels in (0, 1].

    Channel c compares the patches around ``x + dilation a_c`` and ``x + dilation b_c``:
    ``D_c`` is their mean squared difference over a ``(2 radius + 1)³`` box, and the result is
    ``exp(-(D_c - min_c D_c) / V)`` with ``V`` the mean over channels, kept within a factor 1000 of
    its mean over the volume. Heinrich et al., "Towards realtime multimodal fusion for image-guided
    interventions using self-similarities", MICCAI 2013.

    Args:
        volume: ``[N, C, D, H, W]``; the channels' distances are averaged.
        radius: half width of the patch box in voxels.
        dilation: distance of the compared patches in voxels.

    Returns:
        ``[N, 12, D, H, W]``.
    """
    check_volumes("mind_ssc", volume=volume)
    if radius < 0 or dilation < 1:
        raise ValueError(
            "mind_ssc: radius must be at least 0 and dilation at least 1, "
            f"got {radius} and {dilation}"
        )
    check_device("mind_ssc", volume)
    return _mind_ssc(volume, radius, dilation)


def mind_ssc_reference(volume: Tensor, radius: int, dilation: int) -> Tensor:
    """Plain torch definition of :func:`mind_ssc`."""
    shape = volume.shape[2:]
    padded = F.pad(volume, [dilation] * 6, mode="replicate")
    result = volume.new_empty(volume.shape[0], len(CHANNEL_OFFSETS), *shape)
    for channel, offsets in enumerate(CHANNEL_OFFSETS):
        first, second = (_shifted(padded, offset, dilation, shape) for offset in offsets)
        result[:, channel] = _box_mean((first - second) ** 2, radius).mean(1)
    result -= result.amin(1, keepdim=True)
    variance = result.mean(1, keepdim=True)
    typical = variance.mean((1, 2, 3, 4), keepdim=True)
    variance = variance.clamp(typical / 1000, typical * 1000)
    # a constant volume has no variance at all: its descriptor is 1, not 0 / 0
    variance.clamp_min_(torch.finfo(volume.dtype).tiny)
    return result.div_(variance).neg_().exp_()


def _shifted(padded: Tensor, offset: tuple[int, ...], dilation: int, shape: torch.Size) -> Tensor:
    """The volume of ``shape`` whose voxel ``x`` is ``x + dilation * offset`` of the padded one."""
    start = [dilation * (1 + step) for step in offset]
    return padded[:, :, *(slice(s, s + n) for s, n in zip(start, shape, strict=True))]


def _box_mean(volume: Tensor, radius: int) -> Tensor:
    """Mean over a ``(2 radius + 1)³`` box, edge voxels repeated; one axis after the other."""
    volume = F.pad(volume, [radius] * 6, mode="replicate")
    width = 2 * radius + 1
    for kernel in ((width, 1, 1), (1, width, 1), (1, 1, width)):
        volume = F.avg_pool3d(volume, kernel, stride=1)
    return volume


@operator("triton_reg::mind_ssc")
def _mind_ssc(volume: Tensor, radius: int, dilation: int) -> Tensor:
    if not has_kernel(volume):
        return mind_ssc_reference(volume, radius, dilation)
    from triton_reg.ops._cpu import mind_ssc as cpu

    offsets = np.array(CHANNEL_OFFSETS, dtype=np.int64)
    return torch.from_numpy(cpu.mind_ssc(array(volume), radius, dilation, offsets))


@_mind_ssc.register_kernel("cuda")
def _mind_ssc_cuda(volume: Tensor, radius: int, dilation: int) -> Tensor:
    if not has_kernel(volume):
        return mind_ssc_reference(volume, radius, dilation)
    from triton_reg.ops._triton import mind_ssc as gpu

    with torch.cuda.device_of(volume):
        return gpu.mind_ssc(volume, radius, dilation, CHANNEL_OFFSETS)


@_mind_ssc.register_fake
def _(volume: Tensor, radius: int, dilation: int) -> Tensor:
    del radius, dilation
    return volume.new_empty(volume.shape[0], len(CHANNEL_OFFSETS), *volume.shape[2:])
