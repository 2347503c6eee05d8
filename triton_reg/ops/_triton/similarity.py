"""The sums that a correlation of two volumes needs; defined in ``metrics/similarity.py``.

One sweep; each block leaves its sums in float64 and they are added in one order.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED, SIZES

_BLOCK = 1024


@triton.jit(do_not_specialize=SIZES)
def correlation_kernel(first, second, mask, origins, sums, voxels, BLOCK: tl.constexpr):
    """Sums over blocks of ``first`` and ``second [B, N]`` float32 inside a mask.

    ``mask [B, N]`` uint8 is 0 outside. ``p`` and ``q`` are the differences to the values at the
    voxels ``origins [B]`` int64. ``sums [B, 7, blocks]`` float64: number, ``p``, ``q``, ``p²``,
    ``q²``, ``p q``, and the squared difference of both volumes. Grid ``(blocks, B)``.
    """
    pair, blocks = tl.program_id(1).to(tl.int64), tl.num_programs(0)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    row = pair * voxels
    inside = inside & (tl.load(mask + row + voxel, mask=inside, other=0) != 0)
    origin = row + tl.load(origins + pair)
    a = tl.load(first + row + voxel, mask=inside, other=0.0).to(tl.float64)
    b = tl.load(second + row + voxel, mask=inside, other=0.0).to(tl.float64)
    p = tl.where(inside, a - tl.load(first + origin).to(tl.float64), 0.0)
    q = tl.where(inside, b - tl.load(second + origin).to(tl.float64), 0.0)
    target = sums + pair * 7 * blocks + tl.program_id(0)
    tl.store(target, tl.sum(inside.to(tl.int32), axis=0).to(tl.float64))
    tl.store(target + blocks, tl.sum(p, axis=0))
    tl.store(target + 2 * blocks, tl.sum(q, axis=0))
    tl.store(target + 3 * blocks, tl.sum(p * p, axis=0))
    tl.store(target + 4 * blocks, tl.sum(q * q, axis=0))
    tl.store(target + 5 * blocks, tl.sum(p * q, axis=0))
    tl.store(target + 6 * blocks, tl.sum((a - b) * (a - b), axis=0))


def correlation_sums(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """The seven sums of :func:`correlation_kernel`, ``[B, 7]``, of ``[B, N]`` volumes and masks.

    Differences are to the first voxel inside, so that nothing is lost where values vary little
    about a large mean, and constants give zeros exactly.
    """
    batch, voxels = first.shape
    blocks = triton.cdiv(voxels, _BLOCK)
    sums = torch.empty(batch, 7, blocks, dtype=torch.float64, device=first.device)
    inside = (mask > 0).byte()
    origins = inside.argmax(1)
    correlation_kernel[(blocks, batch)](
        first.contiguous(), second.contiguous(), inside, origins, sums, voxels,
        BLOCK=_BLOCK, **FUSED,
    )  # fmt: skip
    return sums.sum(2)
