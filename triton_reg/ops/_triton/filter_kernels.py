"""The passes of the adaptive filter, see ``adaptive_filter.py``.

All three axes in one launch: a block of columns marches along axis 0 and filters along the other
two in registers, so each value is read once from memory and written once.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import triton
import triton.language as tl

from triton_reg.ops._triton.coupled_argmin import decode
from triton_reg.ops._triton.layout import SIZES, pack, unpack
from triton_reg.ops._triton.stencil import (
    block_of_columns,
    filter_in_plane,
    load_plane,
    load_sides,
    nine_columns,
    three_taps,
)


@triton.jit(do_not_specialize=SIZES)
def filter_packed_kernel(
    source,
    target,
    sides,
    side0,
    side1,
    side2,
    depth,
    height,
    width,
    words,
    planes,
    WORDS: tl.constexpr,
    BLOCK: tl.constexpr,
    CONSTANT: tl.constexpr,
):
    """One pass over ``[B, words, N]`` int32, two fp16 labels in each word.

    ``sides [B, N]`` fp16, or constants. Grid ``(columns x marches, words / WORDS, B)``. What is
    carried from plane to plane stays packed: half the registers.
    """
    pair, plane = tl.program_id(2).to(tl.int64), height * width
    voxels = depth * plane
    index, first, last = block_of_columns(plane, depth, planes, BLOCK)
    inside = nine_columns(index, height, width)
    offset = (pair * words + tl.program_id(1) * WORDS) * voxels
    source += offset
    target += offset
    sides += pair * voxels
    before, here = (), ()
    for word in tl.static_range(WORDS):
        volume = source + word * voxels
        before += load_plane(volume, first - 1, depth, plane, index, width, inside)
        here += load_plane(volume, first, depth, plane, index, width, inside)
    for z in range(first, last):
        weights = load_sides(sides, z, plane, index, width, inside, side0, CONSTANT)
        after = ()
        for word in tl.static_range(WORDS):
            volume = source + word * voxels
            after += load_plane(volume, z + 1, depth, plane, index, width, inside)
            low, high = (), ()
            for column in tl.static_range(9):
                low0, high0 = unpack(before[9 * word + column])
                low1, high1 = unpack(here[9 * word + column])
                low2, high2 = unpack(after[9 * word + column])
                low += (three_taps(low0, low1, low2, weights[column]),)
                high += (three_taps(high0, high1, high2, weights[column]),)
            both = pack(
                filter_in_plane(low, weights, side1, side2, CONSTANT),
                filter_in_plane(high, weights, side1, side2, CONSTANT),
            )
            tl.store(target + word * voxels + z * plane + index, both, mask=inside[4])
        before = here
        here = after


@triton.jit(do_not_specialize=SIZES)
def filter_plain_kernel(
    source,
    target,
    sides,
    side0,
    side1,
    side2,
    depth,
    height,
    width,
    planes,
    BLOCK: tl.constexpr,
    CONSTANT: tl.constexpr,
):
    """One pass over ``[B, K, N]`` float32. Grid ``(columns x marches, K, B)``."""
    pair, plane = tl.program_id(2).to(tl.int64), height * width
    voxels = depth * plane
    index, first, last = block_of_columns(plane, depth, planes, BLOCK)
    inside = nine_columns(index, height, width)
    offset = (pair * tl.num_programs(1) + tl.program_id(1)) * voxels
    source += offset
    target += offset
    sides += pair * voxels
    before = load_plane(source, first - 1, depth, plane, index, width, inside)
    here = load_plane(source, first, depth, plane, index, width, inside)
    for z in range(first, last):
        weights = load_sides(sides, z, plane, index, width, inside, side0, CONSTANT)
        after = load_plane(source, z + 1, depth, plane, index, width, inside)
        along = ()
        for column in tl.static_range(9):
            along += (three_taps(before[column], here[column], after[column], weights[column]),)
        found = filter_in_plane(along, weights, side1, side2, CONSTANT)
        tl.store(target + z * plane + index, found, mask=inside[4])
        before = here
        here = after


@triton.jit(do_not_specialize=SIZES)
def filter_codes_kernel(
    codes,
    target,
    sides,
    side0,
    side1,
    side2,
    depth,
    height,
    width,
    planes,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
    CONSTANT: tl.constexpr,
):
    """The first pass over the labels that an argmin found: codes ``[B, N]`` to ``[B, 3, N]``.

    A code is 2 bytes where the vector is 12, and nine loads serve all three components.
    Grid ``(columns x marches, 1, B)``.
    """
    pair, plane = tl.program_id(2).to(tl.int64), height * width
    voxels = depth * plane
    index, first, last = block_of_columns(plane, depth, planes, BLOCK)
    inside = nine_columns(index, height, width)
    codes += pair * voxels
    target += pair * 3 * voxels
    sides += pair * voxels
    before = load_plane(codes, first - 1, depth, plane, index, width, inside)
    here = load_plane(codes, first, depth, plane, index, width, inside)
    for z in range(first, last):
        weights = load_sides(sides, z, plane, index, width, inside, side0, CONSTANT)
        after = load_plane(codes, z + 1, depth, plane, index, width, inside)
        along0, along1, along2 = (), (), ()
        for column in tl.static_range(9):
            before0, before1, before2 = decode(before[column], BITS)
            here0, here1, here2 = decode(here[column], BITS)
            after0, after1, after2 = decode(after[column], BITS)
            along0 += (three_taps(before0, here0, after0, weights[column]),)
            along1 += (three_taps(before1, here1, after1, weights[column]),)
            along2 += (three_taps(before2, here2, after2, weights[column]),)
        out = target + z * plane + index
        found0 = filter_in_plane(along0, weights, side1, side2, CONSTANT)
        found1 = filter_in_plane(along1, weights, side1, side2, CONSTANT)
        found2 = filter_in_plane(along2, weights, side1, side2, CONSTANT)
        tl.store(out, found0, mask=inside[4])
        tl.store(out + voxels, found1, mask=inside[4])
        tl.store(out + 2 * voxels, found2, mask=inside[4])
        before = here
        here = after


@triton.jit(do_not_specialize=SIZES)
def filter_axis_kernel(
    source, target, sides, size, stride, voxels, RADIUS: tl.constexpr, BLOCK: tl.constexpr
):
    """One axis, of ``size`` voxels ``stride`` apart, of a filter of any radius over ``[B, K, N]``.

    ``sides [B, RADIUS, N]``, both float32. Grid ``(cdiv(N, BLOCK), K, B)``.
    """
    pair = tl.program_id(2).to(tl.int64)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, place = voxel < voxels, voxel // stride % size
    offset = (pair * tl.num_programs(1) + tl.program_id(1)) * voxels
    volume = source + offset + voxel
    here = tl.load(volume, mask=inside, other=0.0)
    found = here
    for step in tl.static_range(1, RADIUS + 1):
        low = tl.load(volume - step * stride, mask=inside & (place >= step), other=0.0)
        high = tl.load(volume + step * stride, mask=inside & (place + step < size), other=0.0)
        row = sides + (pair * RADIUS + step - 1) * voxels + voxel
        found += tl.load(row, mask=inside, other=0.0) * (low + high - 2 * here)
    tl.store(target + offset + voxel, found, mask=inside)
