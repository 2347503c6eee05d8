"""The launches of a local correlation and its gradient, see ``correlation_force.py``.

A channel of a voxel is a lane; lanes lie as channels-last features do, so that a neighbour along an
axis is a constant stride away and no layout changes in between.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import triton
import triton.language as tl

from triton_reg.ops._triton.feature_lines import lines_of
from triton_reg.ops._triton.layout import SIZES

_FLOOR = tl.constexpr(1e-5)


@triton.jit
def window_sum(field, place, size, stride, radius, inside):
    """Sum over ``2 radius + 1`` lanes along an axis, zeros outside; ``field``: this lane's."""
    total = tl.load(field, mask=inside, other=0.0)
    for step in range(1, radius + 1):
        total += tl.load(field - step * stride, mask=inside & (place >= step), other=0.0)
        total += tl.load(field + step * stride, mask=inside & (place + step < size), other=0.0)
    return total


@triton.jit(do_not_specialize=SIZES)
def window_axis_kernel(
    source, target, active, batch, size, stride, lanes, radius, BLOCK: tl.constexpr
):
    """Sums along an axis of ``[K B, lanes]`` float32. Grid ``(cdiv(lanes, BLOCK), K B)``."""
    row = tl.program_id(1).to(tl.int64)
    if tl.load(active + row % batch) == 0:
        return
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, place = lane < lanes, lane // stride % size
    found = window_sum(source + row * lanes + lane, place, size, stride, radius, inside)
    tl.store(target + row * lanes + lane, found, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def window_products_kernel(
    fixed,
    warped,
    target,
    active,
    size,
    lanes,
    radius,
    TYPE: tl.constexpr,
    C: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums along the last axis of fixed, warped, their squares and product.

    ``fixed``: addresses ``[B]``; ``warped [B, lanes]``; ``target [5, B, lanes]`` float32.
    Grid ``(cdiv(lanes, BLOCK), B)``.
    """
    pair, batch = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    if tl.load(active + pair) == 0:
        return
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, place = lane < lanes, lane // C % size
    here = lines_of(fixed, pair, TYPE, ALIGNED) + lane
    there = warped + pair * lanes + lane
    f, w = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    ff, ww, fw = f, f, f
    for step in range(-radius, radius + 1):
        valid = inside & (place + step >= 0) & (place + step < size)
        one = tl.load(here + step * C, mask=valid, other=0.0).to(tl.float32)
        other = tl.load(there + step * C, mask=valid, other=0.0)
        f += one
        w += other
        ff += one * one
        ww += other * other
        fw += one * other
    out, field = target + pair * lanes + lane, batch * lanes.to(tl.int64)
    tl.store(out, f, mask=inside)
    tl.store(out + field, w, mask=inside)
    tl.store(out + 2 * field, ff, mask=inside)
    tl.store(out + 3 * field, ww, mask=inside)
    tl.store(out + 4 * field, fw, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def coefficients_kernel(
    source,
    target,
    weights,
    active,
    sums,
    size,
    stride,
    lanes,
    radius,
    count,
    C: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums along the first axis, the correlation, and what its gradient is made of.

    ``source [5, B, lanes]``; ``target [3, B, lanes]``: factors of fixed and warped values in their
    windows, and what is subtracted; ``weights [B, N]``; ``sums [B, blocks]`` of what is unlike;
    ``count`` voxels in a window. Grid ``(blocks, B)``.
    """
    pair, batch = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    partial = sums + pair * tl.num_programs(0) + tl.program_id(0)
    if tl.load(active + pair) == 0:
        tl.store(partial, 0.0)
        return
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, place = lane < lanes, lane // stride
    field = batch * lanes.to(tl.int64)
    source += pair * lanes + lane
    f = window_sum(source, place, size, stride, radius, inside)
    w = window_sum(source + field, place, size, stride, radius, inside)
    ff = window_sum(source + 2 * field, place, size, stride, radius, inside)
    ww = window_sum(source + 3 * field, place, size, stride, radius, inside)
    cross = window_sum(source + 4 * field, place, size, stride, radius, inside) - f * w / count
    spread = ww - w * w / count
    var_fixed = tl.maximum(ff - f * f / count, _FLOOR)
    var_warped = tl.maximum(spread, _FLOOR)
    product = var_fixed * var_warped + _FLOOR
    squared = (cross * cross + _FLOOR) / product
    weight = tl.where(inside, 1.0, 0.0)
    if WEIGHTED:
        voxels = lanes // C
        weight = tl.load(weights + pair * voxels + lane // C, mask=inside, other=0.0)
    unlike = 1 - tl.minimum(tl.maximum(squared, -1.0), 1.0)
    tl.store(partial, tl.sum(weight * unlike, axis=0))
    share = tl.where(squared <= 1, -weight / lanes.to(tl.float32), 0.0)
    of_fixed = share * 2 * cross / product
    of_warped = tl.where(spread >= _FLOOR, share * 2 * squared * var_fixed / product, 0.0)
    target += pair * lanes + lane
    tl.store(target, of_fixed, mask=inside)
    tl.store(target + field, of_warped, mask=inside)
    tl.store(target + 2 * field, (of_fixed * f - of_warped * w) / count, mask=inside)
