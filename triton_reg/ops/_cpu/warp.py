"""Sample volumes through displacements."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4

# voxels done together: enough of each channel's rows for the prefetcher, and their weights stay in
# the first-level cache
RUN = 512


def warp(
    volume: np.ndarray,
    displacement: np.ndarray,
    *,
    interpolation: str = "linear",
    padding: str = "zeros",
) -> np.ndarray:
    """Sample ``volume [B, C, *m]`` at ``x (m - 1) / (f - 1) + u(x)``, ``u [B, 3, *f]`` in voxels.

    ``interpolation`` is ``"linear"`` or ``"nearest"`` (halves to the even voxel); ``padding`` is
    ``"zeros"`` or ``"border"``. Returns ``[B, C, *f]``.
    """
    warped = np.empty((*volume.shape[:2], *displacement.shape[2:]), np.float32)
    for pair in range(len(volume)):
        if interpolation == "linear":
            warp_linear(volume[pair], displacement[pair], padding == "border", warped[pair], 0)
        else:
            warp_nearest(volume[pair], displacement[pair], padding == "border", warped[pair])
    return warped


@njit(**KERNEL)
def warp_linear(volume, displacement, border, out, margin):
    """Trilinear samples of ``volume [C, *m]`` into the inside of ``out``.

    Fast because the positions in a few rows are found once for all channels, in loops that
    vectorise, and four channels share the loads of weights and index. Each axis has two voxels
    that always exist and their weights ``max(0, 1 - distance)``: samples outside need no branch.

    Args:
        displacement: ``[3, *f]``.
        border: whether the edge voxel, not zero, lies outside.
        out: ``[C, *(f + 2 margin)]``; its margin is left as it is.
    """
    channels, depth, height, width = volume.shape
    fixed_shape, shape = displacement.shape[1:], volume.shape[1:]
    strides = (height * width, width, 1)
    out_width = fixed_shape[2]
    rows = max(1, RUN // out_width)
    axes = np.empty((6, rows, out_width), np.float32)
    weights = np.empty((8, rows, out_width), np.float32)
    base = np.empty((rows, out_width), np.uint64)
    flat = volume.reshape(channels, depth * height * width)
    # the second voxel of an axis of one voxel is the first, with weight zero
    step_z = np.uint64(strides[0] if depth > 1 else 0)
    step_y = np.uint64(strides[1] if height > 1 else 0)
    steps = (step_z, step_y, np.uint64(1 if width > 1 else 0))
    fours = channels // 4 * 4
    for z in range(fixed_shape[0]):
        for y in range(0, fixed_shape[1], rows):
            taken = min(rows, fixed_shape[1] - y)
            base[:] = 0
            for r in range(taken):
                for axis in range(3):
                    grid = _grid_position(axis, z, y + r, shape[axis], fixed_shape[axis])
                    u = displacement[axis, z, y + r]
                    low, high = axes[2 * axis, r], axes[2 * axis + 1, r]
                    _place(grid, u, shape[axis], strides[axis], border, low, high, base[r])
            _corner_weights(axes, weights)
            for c in range(0, fours, 4):
                for r in range(taken):
                    _gather_four(flat, c, base[r], weights, r, steps, out, (z, y + r, margin))
            for c in range(fours, channels):
                for r in range(taken):
                    _gather_one(flat[c], base[r], weights, r, steps, out[c], (z, y + r, margin))


@njit(**KERNEL)
def _grid_position(axis, z, y, size, fixed_size):
    """Start and increment along the row of the position that no displacement gives."""
    scale = (size - 1) / max(fixed_size - 1, 1)
    if axis == 2:
        return f4(0), f4(scale)
    return f4((z if axis == 0 else y) * scale), f4(0)


@njit(**KERNEL)
def _place(grid, u, size, stride, border, low, high, base):
    """The lower voxel of each sample along one axis, times its stride, onto ``base``; weights."""
    start, increment = grid
    last = f4(size - 1)
    second = f4(1 if size > 1 else 0)  # along an axis of one voxel there is nowhere to go
    last_low = f4(max(size - 2, 0))
    for x in range(u.shape[0]):
        position = (start + f4(x) * increment + u[x]) * second
        if border:
            position = min(max(position, f4(0)), last)
        # a comparison with NaN is false: the index stays inside, the weights become NaN
        inside = position if position > 0 else f4(0)
        lower = min(np.floor(inside), last_low)
        distance = position - lower
        low[x] = max(f4(1) - abs(distance), f4(0))
        high[x] = max(f4(1) - abs(distance - f4(1)), f4(0)) * second
        base[x] += np.uint64(np.int64(lower)) * np.uint64(stride)


@njit(**KERNEL)
def _inner_row(volume, where, width):
    z, y, margin = where
    return volume[z + margin, y + margin, margin : margin + width]


@njit(**KERNEL)
def _gather_one(values, base, weights, r, steps, out, where):
    target = _inner_row(out, where, base.shape[0])
    for x in range(base.shape[0]):
        target[x] = _trilinear(values, base[x], steps, _weights(weights, r, x))


@njit(**KERNEL)
def _gather_four(flat, c, base, weights, r, steps, out, where):
    values_0, values_1, values_2, values_3 = flat[c], flat[c + 1], flat[c + 2], flat[c + 3]
    width = base.shape[0]
    target_0, target_1 = _inner_row(out[c], where, width), _inner_row(out[c + 1], where, width)
    target_2, target_3 = _inner_row(out[c + 2], where, width), _inner_row(out[c + 3], where, width)
    for x in range(width):
        i, w = base[x], _weights(weights, r, x)
        target_0[x] = _trilinear(values_0, i, steps, w)
        target_1[x] = _trilinear(values_1, i, steps, w)
        target_2[x] = _trilinear(values_2, i, steps, w)
        target_3[x] = _trilinear(values_3, i, steps, w)


@njit(**KERNEL)
def _weights(weights, r, x):
    low = weights[0, r, x], weights[1, r, x], weights[2, r, x], weights[3, r, x]
    return low, (weights[4, r, x], weights[5, r, x], weights[6, r, x], weights[7, r, x])


@njit(**KERNEL)
def _trilinear(values, i, steps, weights):
    low, high = weights
    step_z, step_y, step_x = steps
    j, k = i + step_y, i + step_z
    jk = k + step_y
    below = low[0] * values[i] + low[1] * values[i + step_x]
    below += low[2] * values[j] + low[3] * values[j + step_x]
    above = high[0] * values[k] + high[1] * values[k + step_x]
    above += high[2] * values[jk] + high[3] * values[jk + step_x]
    return below + above


@njit(**KERNEL)
def _corner_weights(axes, corners):
    """Products of the axes' weights ``[6, rows, W]``: the eight corners' ``[8, rows, W]``."""
    for corner in range(8):
        for r in range(corners.shape[1]):
            in_z, in_y = axes[corner // 4, r], axes[2 + corner // 2 % 2, r]
            in_x, target = axes[4 + corner % 2, r], corners[corner, r]
            for x in range(target.shape[0]):
                target[x] = in_z[x] * in_y[x] * in_x[x]


@njit(**KERNEL)
def warp_nearest(volume, displacement, border, out):
    """The nearest voxel of ``volume [C, *m]`` into ``out [C, *f]``; halves go to the even voxel."""
    shape = volume.shape[1:]
    where = np.empty((3, out.shape[3]), np.int32)
    for z in range(out.shape[1]):
        for y in range(out.shape[2]):
            for axis in range(3):
                size = shape[axis]
                start, increment = _grid_position(axis, z, y, size, out.shape[1 + axis])
                u, index = displacement[axis, z, y], where[axis]
                extended = f4(1 if size > 1 else 0)
                for x in range(u.shape[0]):
                    position = np.rint((start + f4(x) * increment + u[x]) * extended)
                    if border:
                        position = min(max(position, f4(0)), f4(size - 1))
                    # -1 for outside, NaN included
                    inside = position >= 0 and position <= f4(size - 1)
                    index[x] = np.int32(position) if inside else np.int32(-1)
            for c in range(volume.shape[0]):
                target = out[c, z, y]
                for x in range(target.shape[0]):
                    i, j, k = where[0, x], where[1, x], where[2, x]
                    outside = i < 0 or j < 0 or k < 0
                    target[x] = f4(0) if outside else volume[c, i, j, k]
