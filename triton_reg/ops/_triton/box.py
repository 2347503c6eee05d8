"""Sums over cubes, axis by axis; edge voxels are repeated.

Plain kernels, a thread a voxel: features are made once a subject, and each axis' few reads come
from the cache.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED, SIZES, Shape

_BLOCK = 256


@triton.jit(do_not_specialize=SIZES)
def box_axis_kernel(source, target, size, stride, voxels, radius, scale, BLOCK: tl.constexpr):
    """``scale`` times the sum over ``2 radius + 1`` voxels along an axis of ``[K, N]`` float32.

    The axis has ``size`` voxels that lie ``stride`` apart. Grid ``(cdiv(N, BLOCK), K)``.
    """
    row = tl.program_id(1).to(tl.int64) * voxels
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, place = voxel < voxels, voxel // stride % size
    first = source + row + voxel - place * stride
    total = tl.zeros([BLOCK], tl.float32)
    for step in range(-radius, radius + 1):
        other = tl.minimum(tl.maximum(place + step, 0), size - 1)
        total += tl.load(first + other * stride, mask=inside, other=0.0)
    tl.store(target + row + voxel, scale * total, mask=inside)


def box_means(rows: Tensor, shape: Shape, radius: int, spare: Tensor) -> tuple[Tensor, Tensor]:
    """Means over cubes of ``2 radius + 1`` voxels of ``[K, N]`` float32; both are overwritten.

    Returns:
        The means and the memory left over: ``rows`` and ``spare`` in some order.
    """
    count, voxels = rows.shape
    strides = (shape[1] * shape[2], shape[2], 1)
    for size, stride in zip(shape, strides, strict=True):
        box_axis_kernel[(triton.cdiv(voxels, _BLOCK), count)](
            rows, spare, size, stride, voxels, radius, 1 / (2 * radius + 1), BLOCK=_BLOCK, **FUSED
        )
        rows, spare = spare, rows
    return rows, spare
