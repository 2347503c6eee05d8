"""Takes what lies outside of the masks out of a cost volume; see ``ops/masked_cost.py``.

Masks cost what the fused kernel saves: the costs go through memory. That is the price of a cohort
with masks alone; without them nothing of this runs.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED, SIZES, Lines, coordinates, subject_lines

_BLOCK = 128


@triton.jit
def _mask_at(features, voxel, inside, CP: tl.constexpr, C: tl.constexpr):
    """The mask ``[BLOCK]``, which follows the ``C`` features of a voxel; 0 where not ``inside``."""
    return tl.load(features + voxel * CP + C, mask=inside, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=SIZES)
def restrict_kernel(
    fixed,
    moving,
    cost,
    depth,
    height,
    width,
    side,
    C: tl.constexpr,
    CP: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Centre ``cost [B, L, N]`` float32 on its weighted mean and weight it, in place.

    ``fixed, moving``: addresses ``[B]`` of ``[N, CP]``, whose channel ``C`` is the mask. ``cost``
    still holds that channel's own difference. ``side`` is ``2 radius + 1``. Grid
    ``(cdiv(N, BLOCK), B)``.
    """
    pair = tl.program_id(1).to(tl.int64)
    voxels = depth * height * width
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    z, y, x = coordinates(voxel, height, width)
    moving = subject_lines(moving, pair, HALF)
    here = _mask_at(subject_lines(fixed, pair, HALF), voxel, inside, CP, C)
    first = cost + pair * side * side * side * voxels + voxel
    total, mean = tl.zeros_like(here), tl.zeros_like(here)
    for turn in range(2):
        column = first
        for label in range(side * side * side):
            nz = z + (label // (side * side) - side // 2)
            ny = y + (label // side % side - side // 2)
            nx = x + (label % side - side // 2)
            valid = inside & (nz >= 0) & (nz < depth) & (ny >= 0) & (ny < height)
            valid = valid & (nx >= 0) & (nx < width)
            there = _mask_at(moving, (nz * height + ny) * width + nx, valid, CP, C)
            weight = here * there
            found = tl.load(column, mask=inside, other=0.0)
            if turn == 0:
                found -= tl.abs(there - here) * (1.0 / C)
                tl.store(column, found, mask=inside)
                total += weight
                mean += weight * found
            else:
                tl.store(column, weight * (found - mean), mask=inside)
            column += voxels
        if turn == 0:
            mean = tl.where(total > 0, mean / tl.where(total > 0, total, 1.0), 0.0)


def restrict(fixed: Lines, moving: Lines, cost: Tensor) -> None:
    """Launch the kernel on ``cost [B, L, N]``; the last of the features' channels is the mask."""
    batch, labels, voxels = cost.shape
    restrict_kernel[(triton.cdiv(voxels, _BLOCK), batch)](
        fixed.addresses, moving.addresses, cost, *fixed.shape, round(labels ** (1 / 3)),
        C=fixed.channels - 1, CP=fixed.padded, HALF=fixed.dtype == torch.float16, BLOCK=_BLOCK,
        **FUSED,
    )  # fmt: skip
