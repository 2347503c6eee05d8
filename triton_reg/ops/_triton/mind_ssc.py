"""MIND with self-similarity context; the definition stands in ``ops/mind_ssc.py``."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.box import box_means
from triton_reg.ops._triton.layout import FUSED, SIZES, Shape, coordinates

_TINY = tl.constexpr(torch.finfo(torch.float32).tiny)
_BLOCK = 256


@triton.jit
def _shifted(volume, offset, dilation, z, y, x, depth, height, width, inside):
    """The volume at ``dilation`` times a stored offset from each voxel, edge voxels repeated."""
    nz = tl.minimum(tl.maximum(z + dilation * tl.load(offset), 0), depth - 1)
    ny = tl.minimum(tl.maximum(y + dilation * tl.load(offset + 1), 0), height - 1)
    nx = tl.minimum(tl.maximum(x + dilation * tl.load(offset + 2), 0), width - 1)
    return tl.load(volume + (nz * height + ny) * width + nx, mask=inside, other=0.0)


@triton.jit(do_not_specialize=SIZES)
def differences_kernel(
    volume, offsets, target, channels, dilation, depth, height, width, BLOCK: tl.constexpr
):
    """Squared difference at each pair of offsets, ``target [K, N]``, the mean over ``channels``.

    ``volume [channels, N]`` float32; ``offsets [K, 2, 3]`` int32. Grid ``(cdiv(N, BLOCK), K)``.
    """
    pair, voxels = tl.program_id(1).to(tl.int64), depth * height * width
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    z, y, x = coordinates(voxel, height, width)
    first, second = offsets + pair * 6, offsets + pair * 6 + 3
    total = tl.zeros([BLOCK], tl.float32)
    for _ in range(channels):
        a = _shifted(volume, first, dilation, z, y, x, depth, height, width, inside)
        b = _shifted(volume, second, dilation, z, y, x, depth, height, width, inside)
        total += (a - b) * (a - b)
        volume += voxels
    tl.store(target + pair * voxels + voxel, total / channels, mask=inside)


@triton.jit
def _above_lowest(distances, voxel, voxels, inside, PAIRS: tl.constexpr):
    """The distances ``[PAIRS, N]`` of a block without their lowest, and their mean."""
    values = ()
    for pair in tl.static_range(PAIRS):
        values += (tl.load(distances + pair * voxels + voxel, mask=inside, other=0.0),)
    lowest = values[0]
    for pair in tl.static_range(1, PAIRS):
        lowest = tl.minimum(lowest, values[pair])
    above, total = (), tl.zeros_like(lowest)
    for pair in tl.static_range(PAIRS):
        above += (values[pair] - lowest,)
        total += values[pair] - lowest
    return above, total / PAIRS


@triton.jit(do_not_specialize=SIZES)
def variance_kernel(distances, sums, voxels, PAIRS: tl.constexpr, BLOCK: tl.constexpr):
    """Sum over each block of the variance of its voxels, ``sums [blocks]``. Grid ``(blocks,)``."""
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    _, variance = _above_lowest(distances, voxel, voxels, inside, PAIRS)
    tl.store(sums + tl.program_id(0), tl.sum(tl.where(inside, variance, 0.0), axis=0))


@triton.jit(do_not_specialize=SIZES)
def descriptors_kernel(
    distances, typical, target, voxels, PAIRS: tl.constexpr, BLOCK: tl.constexpr
):
    """``exp(-distance / variance)``, ``[PAIRS, N]``. Grid ``(cdiv(N, BLOCK),)``.

    The variance is kept within a factor 1000 of the one number ``typical``.
    """
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    above, variance = _above_lowest(distances, voxel, voxels, inside, PAIRS)
    middle = tl.load(typical)
    variance = tl.minimum(tl.maximum(variance, middle / 1000), middle * 1000)
    variance = tl.maximum(variance, _TINY)
    for pair in tl.static_range(PAIRS):
        found = tl.exp(-above[pair] / variance)
        tl.store(target + pair * voxels + voxel, found, mask=inside)


def mind_ssc(
    volume: Tensor, radius: int, dilation: int, channel_offsets: Sequence[object]
) -> Tensor:
    """Descriptors ``[N, 12, D, H, W]`` of ``volume [N, C, D, H, W]`` float32, one by one.

    Args:
        channel_offsets: the two compared offsets of each channel, in units of the dilation.
    """
    count, _, depth, height, width = volume.shape
    offsets = torch.tensor(channel_offsets, dtype=torch.int32, device=volume.device)
    result = volume.new_empty(count, len(offsets), depth, height, width)
    for one, found in zip(volume.contiguous(), result, strict=True):
        _describe(one.flatten(1), (depth, height, width), radius, dilation, offsets, found)
    return result


def _describe(
    volume: Tensor, shape: Shape, radius: int, dilation: int, offsets: Tensor, found: Tensor
) -> None:
    """Descriptors of one volume ``[C, N]`` into ``found [12, D, H, W]``."""
    (channels, voxels), pairs = volume.shape, len(offsets)
    blocks = triton.cdiv(voxels, _BLOCK)
    distances = volume.new_empty(pairs, voxels)
    differences_kernel[(blocks, pairs)](
        volume, offsets, distances, channels, dilation, *shape, BLOCK=_BLOCK, **FUSED
    )
    distances, _ = box_means(distances, shape, radius, torch.empty_like(distances))
    sums = volume.new_empty(blocks)
    variance_kernel[(blocks,)](distances, sums, voxels, PAIRS=pairs, BLOCK=_BLOCK, **FUSED)
    typical = sums.sum() / voxels
    descriptors_kernel[(blocks,)](
        distances, typical, found, voxels, PAIRS=pairs, BLOCK=_BLOCK, **FUSED
    )
