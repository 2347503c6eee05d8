"""Squared distances to the nearest voxel; the definition stands in ``ops/distance_transform.py``.

A thread a voxel, which looks at its whole line: no branches, and neighbours share their reads.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED, SIZES

_BLOCK = 256


@triton.jit(do_not_specialize=SIZES)
def distance_axis_kernel(source, target, size, stride, voxels, scale, BLOCK: tl.constexpr):
    """The least of ``source[i] + scale (i - x)²`` along an axis of ``[K, N]`` float32.

    The axis has ``size`` voxels that lie ``stride`` apart. Grid ``(cdiv(N, BLOCK), K)``.
    """
    row = tl.program_id(1).to(tl.int64) * voxels
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, place = voxel < voxels, voxel // stride % size
    first = source + row + voxel - place * stride
    least = tl.full([BLOCK], float("inf"), tl.float32)
    for i in range(size):
        away = (place - i).to(tl.float32)
        value = tl.load(first + i * stride, mask=inside, other=0.0)
        least = tl.minimum(least, value + scale * away * away)
    tl.store(target + row + voxel, least, mask=inside)


def distance_transform(mask: Tensor, spacing: tuple[float, float, float]) -> Tensor:
    """``mask [B, 1, D, H, W]`` bool in, squared distances of the same shape in float32 out."""
    batch, _, depth, height, width = mask.shape
    squares = torch.zeros(mask.shape, device=mask.device)
    squares = squares.masked_fill_(~mask, torch.inf).view(batch, -1)
    voxels, spare = squares.shape[1], torch.empty_like(squares)
    axes = zip((depth, height, width), (height * width, width, 1), spacing, strict=True)
    for size, stride, step in axes:
        distance_axis_kernel[(triton.cdiv(voxels, _BLOCK), batch)](
            squares, spare, size, stride, voxels, step**2, BLOCK=_BLOCK, **FUSED
        )
        squares, spare = spare, squares
    return squares.view(mask.shape)
