"""Correlations of a target's patches with those of atlases, and where nearby they are largest.

The correlation of all patches at one offset takes one box filter of a product of two volumes, so
that the time grows with the offsets that are tried, not with the size of the patches.
"""

import math

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4


def match_patches(
    volumes: np.ndarray, voxels: np.ndarray, radius: int, search: int, flat: float
) -> tuple[np.ndarray, np.ndarray]:
    """Flat positions ``[V, N]`` of the most alike patches, and their correlations.

    ``volumes [1 + N, ...]`` have a border of ``radius`` voxels, the target first.
    """
    count, *sizes = volumes.shape
    shape = tuple(size - 2 * radius for size in sizes)
    found = (
        np.empty((len(voxels), count - 1), np.int64),
        np.empty((len(voxels), count - 1), np.float32),
    )
    if not len(voxels):
        return found
    places = np.stack(np.unravel_index(voxels, shape))
    low, high = places.min(axis=1), places.max(axis=1) + 1
    steps = np.stack(np.meshgrid(*[np.arange(-search, search + 1)] * 3, indexing="ij"), -1)
    steps = steps.reshape(-1, 3)
    # the middle first: it wins ties
    steps = np.concatenate([np.zeros((1, 3), np.int64), steps[steps.any(axis=1)]])
    buffers = [np.empty(shape, np.float32) for _ in range(6)]
    plain = np.ones(volumes.shape[1:], np.float32)
    _moments(volumes[0], plain, radius, flat, *buffers[:2])
    for atlas in range(1, count):
        _moments(volumes[atlas], plain, radius, flat, *buffers[2:4])
        best, which = buffers[4], np.zeros(shape, np.int16)
        best[:] = -2
        for number, step in enumerate(steps):
            product = buffers[5]
            first, last = np.maximum(low, -step), np.minimum(high, shape - step)
            _box_mean(volumes[0], volumes[atlas], step, first, last, radius, product)
            _keep_better(product, tuple(buffers[:5]), step, first, last, number, which)
        taken = steps[which.ravel()[voxels]]
        moved = taken @ np.array([shape[1] * shape[2], shape[2], 1])
        found[0][:, atlas - 1] = voxels + moved
        found[1][:, atlas - 1] = best.ravel()[voxels]
    return found


@njit(**KERNEL)
def _box_mean(first, second, step, low, high, radius, out):
    """Mean of ``first(x) second(x + step)`` over the patch around each voxel of a box.

    Sums of a plane's rows lie in a ring of as many planes as a patch has.
    """
    side = 2 * radius + 1
    height, width = high[1] - low[1], high[2] - low[2]
    if height <= 0 or width <= 0:
        return
    rows = np.empty((height + side - 1, width), np.float32)
    ring = np.empty((side, height, width), np.float32)
    share = f4(1) / f4(side**3)
    for plane in range(low[0], high[0] + side - 1):
        for y in range(height + side - 1):
            one = first[plane, low[1] + y, low[2] :]
            other = second[plane + step[0], low[1] + step[1] + y, low[2] + step[2] :]
            row = rows[y]
            for x in range(width):
                row[x] = one[x] * other[x]
            for k in range(1, side):
                for x in range(width):
                    row[x] += one[x + k] * other[x + k]
        sums = ring[plane % side]
        for y in range(height):
            _add_rows(rows, y, side, sums[y])
        z = plane - side + 1
        if z < low[0]:
            continue
        for y in range(height):
            row = out[z, low[1] + y, low[2] :]
            for x in range(width):
                row[x] = ring[0, y, x]
            for k in range(1, side):
                for x in range(width):
                    row[x] += ring[k, y, x]
            for x in range(width):
                row[x] *= share


@njit(**KERNEL)
def _add_rows(rows, start, side, out):
    for x in range(out.shape[0]):
        out[x] = rows[start, x]
    for k in range(1, side):
        row = rows[start + k]
        for x in range(out.shape[0]):
            out[x] += row[x]


@njit(**KERNEL)
def _moments(volume, plain, radius, flat, mean, inverse):
    """Mean of the patch around each voxel, and one over its standard deviation; 0 if it is flat."""
    step, low, high = np.zeros(3, np.int64), np.zeros(3, np.int64), np.empty(3, np.int64)
    high[0], high[1], high[2] = mean.shape
    _box_mean(volume, plain, step, low, high, radius, mean)
    _box_mean(volume, volume, step, low, high, radius, inverse)
    for z in range(high[0]):
        for y in range(high[1]):
            for x in range(high[2]):
                variance = inverse[z, y, x] - mean[z, y, x] * mean[z, y, x]
                is_flat = not variance > f4(flat)
                inverse[z, y, x] = f4(0) if is_flat else f4(1) / math.sqrt(variance)


@njit(**KERNEL)
def _keep_better(product, maps, step, low, high, number, which):
    """Turn products at one offset into correlations, and keep those above the best so far."""
    own_mean, own_inverse, mean, inverse, best = maps[0], maps[1], maps[2], maps[3], maps[4]
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            for x in range(low[2], high[2]):
                a, b, c = z + step[0], y + step[1], x + step[2]
                cross = product[z, y, x] - own_mean[z, y, x] * mean[a, b, c]
                alike = cross * own_inverse[z, y, x] * inverse[a, b, c]
                if alike > best[z, y, x]:
                    best[z, y, x], which[z, y, x] = alike, number
