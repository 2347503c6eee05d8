"""Distances between the surfaces of structures; the definition stands in ``metrics/surface.py``.

Every corner is compared with the corners of the other surface, but only as far along the first axis
as one could still be nearer: within a structure corners come in the order of the volume. All
structures share three launches, however many there are.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED, SIZES

# where each structure's corners begin, [M + 1] int64, and the corners, [P, 3] int16
Corners = tuple[Tensor, Tensor]
_BLOCK, _CHUNK = 64, 32
_RUN = 1024  # corners that a structure's program takes at once
_FAR = tl.constexpr(1e18)  # voxels; its square is still a float32


@triton.jit
def _block_of(starts, structures, BLOCK: tl.constexpr, MOST: tl.constexpr):
    """The structure that this program's corners are of, and where they begin; programs are given
    out structure by structure, and those that are left over begin behind the last one's end."""
    lane, program = tl.arange(0, MOST), tl.program_id(0)
    valid = lane < structures
    first = tl.load(starts + lane, mask=valid, other=0).to(tl.int32)
    last = tl.load(starts + lane + 1, mask=valid, other=0).to(tl.int32)
    blocks = (last - first + BLOCK - 1) // BLOCK
    done = valid & (tl.cumsum(blocks, axis=0) <= program)
    structure = tl.minimum(tl.sum(done.to(tl.int32), axis=0), structures - 1)
    before = tl.sum(tl.where(lane < structure, blocks, 0), axis=0)
    begin = tl.load(starts + structure).to(tl.int32) + (program - before) * BLOCK
    return structure, begin


@triton.jit
def _coordinates(corners, index, valid, other):
    z = tl.load(corners + 3 * index, mask=valid, other=other).to(tl.float32)
    y = tl.load(corners + 3 * index + 1, mask=valid, other=other).to(tl.float32)
    return z, y, tl.load(corners + 3 * index + 2, mask=valid, other=other).to(tl.float32)


@triton.jit
def _least(least, z, y, x, others, begin, low, high, scales, CHUNK: tl.constexpr):
    """The lesser of ``least`` and the squared distances to a chunk of the other corners."""
    index = begin + tl.arange(0, CHUNK)
    valid = (index >= low) & (index < high)
    oz, oy, ox = _coordinates(others, index, valid, 0)
    oz = tl.where(valid, oz, _FAR)
    dz, dy, dx = z[:, None] - oz[None, :], y[:, None] - oy[None, :], x[:, None] - ox[None, :]
    squares = scales[0] * (dz * dz) + scales[1] * (dy * dy) + scales[2] * (dx * dx)
    return tl.minimum(least, tl.min(squares, axis=1))


@triton.jit(do_not_specialize=(*SIZES, "structures"))
def nearest_corner_kernel(
    starts,
    corners,
    other_starts,
    others,
    keys,
    structures,
    scale0,
    scale1,
    scale2,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    MOST: tl.constexpr,
):
    """Squared distance of each of the ``corners [P, 3]`` to its structure's nearest other one.

    ``starts``, ``other_starts [structures + 1]`` int64: where each structure's corners begin, for
    ``MOST`` structures at most. ``scale``: squared spacing along each axis. ``keys [P]`` int64: the
    structure in the high half, the bits of the squared distance (float32, infinite if there is
    none) in the low one. Grid: ``cdiv(P, BLOCK) + structures`` or more programs.
    """
    structure, begin = _block_of(starts, structures, BLOCK, MOST)
    first = tl.load(starts + structure).to(tl.int32)
    end = tl.load(starts + structure + 1).to(tl.int32)
    low = tl.load(other_starts + structure).to(tl.int32)
    high = tl.load(other_starts + structure + 1).to(tl.int32)
    index = begin + tl.arange(0, BLOCK)
    valid = index < end
    z, y, x = _coordinates(corners, index, valid, 0)
    scales = (scale0, scale1, scale2)
    least = tl.where(valid, float("inf"), 0.0)
    z_low = tl.min(tl.where(valid, z, _FAR), axis=0)
    z_high = tl.max(tl.where(valid, z, -_FAR), axis=0)
    # what lies as far along the other surface is near; both ways from there it gets farther
    share = (begin - first).to(tl.float32) / tl.maximum(end - first, 1)
    middle = tl.minimum(low + (share * (high - low)).to(tl.int32), high)
    worst, bound, here = tl.max(least, axis=0), 0.0, middle
    while (here < high) & (bound < worst):
        least = _least(least, z, y, x, others, here, middle, high, scales, CHUNK)
        worst, here = tl.max(least, axis=0), here + CHUNK
        following = tl.load(others + 3 * here, mask=here < high, other=0).to(tl.float32)
        gap = tl.maximum(following - z_high, 0.0)
        bound = scale0 * (gap * gap)
    bound, here = 0.0, middle - CHUNK
    while (here > low - CHUNK) & (bound < worst):
        least = _least(least, z, y, x, others, here, low, middle, scales, CHUNK)
        worst = tl.max(least, axis=0)
        before = tl.load(others + 3 * (here - 1), mask=here > low, other=0).to(tl.float32)
        gap = tl.maximum(z_low - before, 0.0)
        bound, here = scale0 * (gap * gap), here - CHUNK
    key = (structure.to(tl.int64) << 32) | least.to(tl.int32, bitcast=True).to(tl.int64)
    tl.store(keys + index, key, mask=valid)


@triton.jit
def _run(keys, areas, index, valid):
    """Squared distances in float64, and areas, of corners in the order of their keys."""
    bits = tl.load(keys + index, mask=valid, other=0).to(tl.int32)
    area = tl.load(areas + index, mask=valid, other=0.0)
    return bits.to(tl.float32, bitcast=True).to(tl.float64), area


@triton.jit
def surface_sums_kernel(
    starts,
    other_starts,
    keys,
    areas,
    sums,
    tolerance,
    SHARE: tl.constexpr,
    RUN: tl.constexpr,
):
    """Measures of each structure's distances, ``sums [M, 5]`` float64; NaN if a surface is empty.

    Area, area times distance, area within the ``tolerance`` (squared), the distance within which
    ``SHARE`` of the area lies, and the greatest. ``keys [P]`` are sorted, ``areas [P]`` float64 in
    their order. Grid ``(M,)``.
    """
    structure, lane = tl.program_id(0), tl.arange(0, RUN)
    begin = tl.load(starts + structure).to(tl.int32)
    end = tl.load(starts + structure + 1).to(tl.int32)
    total = tl.zeros([RUN], tl.float64)
    weighted, within, greatest = total, total, total
    for start in range(begin, end, RUN):
        squares, area = _run(keys, areas, start + lane, start + lane < end)
        total += area
        weighted += area * tl.sqrt(squares)
        within += tl.where(squares <= tolerance, area, 0.0)
        greatest = tl.maximum(greatest, squares)
    area_sum = tl.sum(total, axis=0)
    before = tl.zeros_like(area_sum)
    found = before + float("inf")
    for start in range(begin, end, RUN):
        valid = start + lane < end
        squares, area = _run(keys, areas, start + lane, valid)
        reached = valid & (before + tl.cumsum(area, axis=0) >= SHARE * area_sum)
        found = tl.minimum(found, tl.min(tl.where(reached, squares, float("inf")), axis=0))
        before += tl.sum(area, axis=0)
    low = tl.load(other_starts + structure)
    is_empty = (begin == end) | (low == tl.load(other_starts + structure + 1))
    unknown = tl.where(is_empty, float("nan"), 0.0)
    row = sums + structure * 5
    tl.store(row, area_sum + unknown)
    tl.store(row + 1, tl.sum(weighted, axis=0) + unknown)
    tl.store(row + 2, tl.sum(within, axis=0) + unknown)
    tl.store(row + 3, tl.sqrt(found) + unknown)
    tl.store(row + 4, tl.sqrt(tl.max(greatest, axis=0)) + unknown)


def nearest_corners(one: Corners, other: Corners, squares: tuple[float, float, float]) -> Tensor:
    """Keys ``[P]`` int64 of one surface's distances to the other, see
    :func:`nearest_corner_kernel`; ``squares`` are the squared spacings."""
    (starts, corners), (other_starts, others) = one, other
    structures, count = len(starts) - 1, len(corners)
    keys = torch.empty(count, dtype=torch.int64, device=corners.device)
    if count:
        nearest_corner_kernel[(triton.cdiv(count, _BLOCK) + structures,)](
            starts, corners, other_starts, others, keys, structures, *map(float, squares),
            BLOCK=_BLOCK, CHUNK=_CHUNK, MOST=max(32, triton.next_power_of_2(structures)), **FUSED,
        )  # fmt: skip
    return keys


def surface_sums(
    one: Corners,
    other: Corners,
    areas: Tensor,
    squares: tuple[float, float, float],
    limits: tuple[float, float],
) -> Tensor:
    """Area, area times distance, area within the tolerance, percentile and greatest distance from
    one map's surface of each structure to the other's: ``[M, 5]`` float64, NaN if one is empty.

    Args:
        one, other: where each structure's corners begin, and the corners.
        areas: ``[P]`` float64 of the corners of ``one``.
        squares: squared spacing along each axis.
        limits: the share of the area for the percentile, and the largest squared distance that is
            within the tolerance.
    """
    starts, share, tolerance = one[0], *limits
    keys, order = nearest_corners(one, other, squares).sort(stable=True)
    sums = torch.empty(len(starts) - 1, 5, dtype=torch.float64, device=areas.device)
    if len(sums):
        surface_sums_kernel[(len(sums),)](
            starts, other[0], keys, areas[order], sums, float(tolerance), SHARE=share, RUN=_RUN
        )
    return sums
