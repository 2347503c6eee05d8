"""Linear samples of channels-last features and their slopes; defined in ``ops/sampling.py``.

Of the three voxels that a symmetric derivative meets along an axis, two are those of the linear
sample, and the third has a slope alone: 20 voxels are read and not 27. What pulls at the samples is
multiplied with each voxel's channels first, so that slopes are worked out once a voxel and not once
a channel. A thread holds some eight channels, which come in loads of 16 bytes.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import triton
import triton.language as tl

from triton_reg.ops._triton.feature_lines import channels_at
from triton_reg.ops._triton.layout import coordinates


@triton.jit
def placed_positions(vectors, placement, index, inside, voxels, fixed_height, fixed_width):
    """Where fixed voxels ``index`` lie in the moving volume, along its three axes.

    ``vectors [3, voxels]`` and ``placement [3, 7]`` of one pair.
    """
    z, y, x = coordinates(index, fixed_height, fixed_width)
    z, y, x = z.to(tl.float32), y.to(tl.float32), x.to(tl.float32)
    w0 = tl.load(vectors + index, mask=inside, other=0.0)
    w1 = tl.load(vectors + voxels + index, mask=inside, other=0.0)
    w2 = tl.load(vectors + 2 * voxels + index, mask=inside, other=0.0)
    return (
        _row_product(placement, z, y, x, w0, w1, w2),
        _row_product(placement + 7, z, y, x, w0, w1, w2),
        _row_product(placement + 14, z, y, x, w0, w1, w2),
    )


@triton.jit
def placed_taps(
    vectors,
    placement,
    index,
    inside,
    voxels,
    fixed_height,
    fixed_width,
    depth,
    height,
    width,
    SYMMETRIC: tl.constexpr,
):
    """What fixed voxels ``index`` meet in the moving volume: the taps along its three axes."""
    there_z, there_y, there_x = placed_positions(
        vectors, placement, index, inside, voxels, fixed_height, fixed_width
    )
    return (
        axis_taps(there_z, depth, SYMMETRIC),
        axis_taps(there_y, height, SYMMETRIC),
        axis_taps(there_x, width, SYMMETRIC),
    )


@triton.jit
def _row_product(row, z, y, x, w0, w1, w2):
    """A row of the placement times voxel, one and vector."""
    base = tl.load(row) * z + tl.load(row + 1) * y + tl.load(row + 2) * x + tl.load(row + 3)
    return base + (tl.load(row + 4) * w0 + tl.load(row + 5) * w1 + tl.load(row + 6) * w2)


@triton.jit
def axis_taps(position, size, SYMMETRIC: tl.constexpr):
    """Voxels that a position meets along an axis: places, shares and slopes, three of each.

    The third has a slope alone; what lies outside has zeros and a place inside.
    """
    below = tl.floor(position)
    share = position - below
    cell = below.to(tl.int32)
    first, second = (cell >= 0) & (cell < size), (cell >= -1) & (cell < size - 1)
    last = size - 1
    low = tl.minimum(tl.maximum(cell, 0), last)
    high = tl.minimum(tl.maximum(cell + 1, 0), last)
    shares = (tl.where(first, 1 - share, 0.0), tl.where(second, share, 0.0))
    if SYMMETRIC:
        near = share < 0.5
        other = tl.where(near, cell - 1, cell + 2)
        outer = tl.where((other >= 0) & (other < size), share - 0.5, 0.0)
        slopes = (
            tl.where(first, tl.where(near, -2 * share, share - 1.5), 0.0),
            tl.where(second, tl.where(near, share + 0.5, 2 - 2 * share), 0.0),
            outer,
        )
        places = (low, high, tl.minimum(tl.maximum(other, 0), last))
    else:
        slopes = (tl.where(first, -1.0, 0.0), tl.where(second, 1.0, 0.0), tl.zeros_like(share))
        places = (low, high, low)
    return places, shares, slopes


@triton.jit
def corners(
    lines,
    z,
    y,
    x,
    height,
    width,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """The channels of the eight voxels of a linear sample, ``8 PARTS`` tiles, x fastest.

    ``z``, ``y``, ``x``: what :func:`axis_taps` says of positions ``[BLOCK, 1, 1]``.
    """
    found = ()
    for i in tl.static_range(2):
        for j in tl.static_range(2):
            row = (z[0][i] * height + y[0][j]) * width
            found += channels_at(lines, row + x[0][0], C, PARTS, LANES, VECTOR)
            found += channels_at(lines, row + x[0][1], C, PARTS, LANES, VECTOR)
    return found


@triton.jit
def values_of(found, z, y, x, PARTS: tl.constexpr):
    """Linear samples of what :func:`corners` found: ``PARTS`` tiles."""
    values = ()
    for part in tl.static_range(PARTS):
        value = tl.zeros_like(found[part])
        for corner in tl.static_range(8):
            share = z[1][corner // 4] * y[1][corner // 2 % 2]
            value += (share * x[1][corner % 2]) * found[corner * PARTS + part]
        values += (value,)
    return values


@triton.jit
def product(pull, found, FROM: tl.constexpr, PARTS: tl.constexpr):
    """Sum over a thread's channels of pull times channels, ``[BLOCK, LANES, 1]``."""
    total = pull[0] * found[FROM]
    for part in tl.static_range(1, PARTS):
        total += pull[part] * found[FROM + part]
    return tl.sum(total, axis=2, keep_dims=True)


@triton.jit
def pulled_along(
    lines,
    found,
    pull,
    z,
    y,
    x,
    height,
    width,
    OUTER: tl.constexpr,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Sum over channels of pull times slope along each axis, three of ``[BLOCK, 1, 1]``.

    ``found``: the :func:`corners`; ``OUTER`` with the voxels that have slopes alone.
    """
    places_z, shares_z, slopes_z = z
    places_y, shares_y, slopes_y = y
    places_x, shares_x, slopes_x = x
    along_z = tl.sum(tl.zeros_like(pull[0]), axis=2, keep_dims=True)
    along_y, along_x = along_z, along_z
    for i in tl.static_range(2):
        for j in tl.static_range(2):
            first = product(pull, found, (4 * i + 2 * j) * PARTS, PARTS)
            second = product(pull, found, (4 * i + 2 * j + 1) * PARTS, PARTS)
            across = shares_x[0] * first + shares_x[1] * second
            slope = slopes_x[0] * first + slopes_x[1] * second
            if OUTER:
                voxel = (places_z[i] * height + places_y[j]) * width + places_x[2]
                outer = channels_at(lines, voxel, C, PARTS, LANES, VECTOR)
                slope += slopes_x[2] * product(pull, outer, 0, PARTS)
            along_z += slopes_z[i] * shares_y[j] * across
            along_y += shares_z[i] * slopes_y[j] * across
            along_x += shares_z[i] * shares_y[j] * slope
    if OUTER:
        for j in tl.static_range(2):
            for k in tl.static_range(2):
                voxel = (places_z[2] * height + places_y[j]) * width + places_x[k]
                outer = channels_at(lines, voxel, C, PARTS, LANES, VECTOR)
                along_z += slopes_z[2] * shares_y[j] * shares_x[k] * product(pull, outer, 0, PARTS)
                voxel = (places_z[j] * height + places_y[2]) * width + places_x[k]
                outer = channels_at(lines, voxel, C, PARTS, LANES, VECTOR)
                along_y += shares_z[j] * slopes_y[2] * shares_x[k] * product(pull, outer, 0, PARTS)
    return (
        tl.sum(along_z, axis=1, keep_dims=True),
        tl.sum(along_y, axis=1, keep_dims=True),
        tl.sum(along_x, axis=1, keep_dims=True),
    )
