"""Which voxels a row of samples reads along each axis, and their weights.

Beside the two voxels that a sample lies between, the symmetric derivative reads the nearer of their
outer neighbours: 3 x 3 x 3 less the voxels that two or three axes would share, 20 in all.
"""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4

# rows of the weights of an axis: of the samples (lower, upper voxel), of their slopes (lower,
# upper, outer voxel)
WEIGHTS = 5


@njit(**KERNEL)
def tables_of(width):
    """Positions ``[W]``, for :func:`row_taps` alone; places and weights of its rows.

    Places are uint32 ``[3, 3, W]``: along each axis of the lower, upper and outer voxel.
    """
    position, places = np.empty(width, np.float32), np.empty((3, 3, width), np.uint32)
    return position, places, np.empty((3, WEIGHTS, width), np.float32)


@njit(**KERNEL)
def row_taps(vectors, placement, where, layout, symmetric, tables):
    """The taps of one fixed row along all axes.

    Args:
        vectors: ``[3, D, H, W]``.
        placement: ``[3, 7]`` float64, see :func:`triton_reg.ops.sampling.positions_of`.
        where: ``(z, y)`` of the row.
        layout: ``(depth, height, width, channels)`` of the moving volume, channels last.
        symmetric: whether slopes are those of half a voxel to either side.
        tables: of :func:`tables_of`, filled: places along each axis are elements from the start
            of a plane along the last two and planes along the first; weights are zero for what
            lies outside.
    """
    position, places, weights = tables
    strides = np.uint32(1), np.uint32(layout[2] * layout[3]), np.uint32(layout[3])
    for axis in range(3):
        row_positions(vectors, placement[axis], where, position)
        _axis_taps(position, layout[axis], strides[axis], symmetric, places[axis], weights[axis])


@njit(**KERNEL)
def row_positions(vectors, placement, where, position):
    """Moving positions of a fixed row along the axis of this row of its placement, ``[W]``."""
    z, y = where
    start, step = placement[0] * z + placement[1] * y + placement[3], placement[2]
    lead_z, lead_y, lead_x = f4(placement[4]), f4(placement[5]), f4(placement[6])
    along_z, along_y, along_x = vectors[0, z, y], vectors[1, z, y], vectors[2, z, y]
    for x in range(position.shape[0]):
        led = lead_z * along_z[x] + lead_y * along_y[x] + lead_x * along_x[x]
        position[x] = f4(start + step * x) + led


@njit(**KERNEL)
def _axis_taps(position, size, stride, symmetric, places, weights):
    last, half, one, two = f4(size - 1), f4(0.5), f4(1), f4(2)
    for x in range(position.shape[0]):
        low = np.floor(position[x])
        t = position[x] - low
        above = t >= half
        if symmetric:
            outer = low + two if above else low - one
            slope_low = t - f4(1.5) if above else -two * t
            slope_high = two - two * t if above else t + half
            slope_outer = t - half
        else:
            outer, slope_low, slope_high, slope_outer = low, -one, one, f4(0)
        low_in, high_in, outer_in = inside(low, last), inside(low + one, last), inside(outer, last)
        places[0, x] = _place(low, last) * stride
        places[1, x] = _place(low + one, last) * stride
        places[2, x] = _place(outer, last) * stride
        weights[0, x], weights[1, x] = (one - t) * low_in, t * high_in
        weights[2, x], weights[3, x] = slope_low * low_in, slope_high * high_in
        weights[4, x] = slope_outer * outer_in


@njit(**KERNEL)
def inside(voxel, last):
    return f4(1) if voxel >= 0 and voxel <= last else f4(0)


@njit(**KERNEL)
def _place(voxel, last):
    """The voxel or the nearest inside; a comparison with NaN is false, so that is inside too."""
    voxel = voxel if voxel > 0 else f4(0)
    return np.uint32(np.int32(last if voxel > last else voxel))


@njit(**KERNEL)
def sample_row(moving, plane, places, weights, out):
    """Samples and slopes ``[4, W]`` of one channel, ``moving [M]`` of ``plane`` voxels a plane.

    Voxels of the row are done side by side: loads become gathers.
    """
    for x in range(out.shape[1]):
        low_z, high_z = np.uint64(places[0, 0, x]) * plane, np.uint64(places[0, 1, x]) * plane
        outer_z, outer_y = np.uint64(places[0, 2, x]) * plane, np.uint64(places[1, 2, x])
        low_y, high_y = np.uint64(places[1, 0, x]), np.uint64(places[1, 1, x])
        columns = np.uint64(places[2, 0, x]), np.uint64(places[2, 1, x]), np.uint64(places[2, 2, x])
        along = weights[2, 0, x], weights[2, 1, x], weights[2, 2, x], weights[2, 3, x]
        last = weights[2, 4, x]
        y, y_low, y_high = (weights[1, 0, x], weights[1, 1, x]), weights[1, 2, x], weights[1, 3, x]
        z, z_low, z_high = (weights[0, 0, x], weights[0, 1, x]), weights[0, 2, x], weights[0, 3, x]
        a, slope_a = _line(moving, low_z + low_y, columns, along, last)
        b, slope_b = _line(moving, low_z + high_y, columns, along, last)
        c, slope_c = _line(moving, high_z + low_y, columns, along, last)
        d, slope_d = _line(moving, high_z + high_y, columns, along, last)
        beside_low = _between(moving, low_z + outer_y, columns, along)
        beside_high = _between(moving, high_z + outer_y, columns, along)
        beyond_low = _between(moving, outer_z + low_y, columns, along)
        beyond_high = _between(moving, outer_z + high_y, columns, along)
        low, high = y[0] * a + y[1] * b, y[0] * c + y[1] * d
        beyond = y[0] * beyond_low + y[1] * beyond_high
        tilt_low = y_low * a + y_high * b + weights[1, 4, x] * beside_low
        tilt_high = y_low * c + y_high * d + weights[1, 4, x] * beside_high
        out[0, x] = z[0] * low + z[1] * high
        out[1, x] = z_low * low + z_high * high + weights[0, 4, x] * beyond
        out[2, x] = z[0] * tilt_low + z[1] * tilt_high
        out[3, x] = z[0] * (y[0] * slope_a + y[1] * slope_b)
        out[3, x] += z[1] * (y[0] * slope_c + y[1] * slope_d)


@njit(**KERNEL)
def _line(values, row, columns, weights, last):
    low, high = values[row + columns[0]], values[row + columns[1]]
    slope = weights[2] * low + weights[3] * high + last * values[row + columns[2]]
    return weights[0] * low + weights[1] * high, slope


@njit(**KERNEL)
def _between(values, row, columns, weights):
    return weights[0] * values[row + columns[0]] + weights[1] * values[row + columns[1]]
