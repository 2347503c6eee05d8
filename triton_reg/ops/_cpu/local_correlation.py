"""Local correlation of two volumes, summed over a mask."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4


@njit(**KERNEL)
def local_correlation_sums(first, second, mask, radius, floor):
    """Sum of squared correlations in cubes around the voxels with ``mask > 0``, and their number.

    Cubes are cut at the border of the volume. Fast because the five box sums slide along the first
    axis plane by plane, and along the others row by row: two additions a voxel, axis and sum.

    Args:
        first, second, mask: ``[D, H, W]``.
        radius: half width of the cubes in voxels.
        floor: variances below it count as it; a flat cube correlates with nothing.
    """
    depth, height, width = first.shape
    slab = np.zeros((5, height, width), np.float64)
    total, count = 0.0, 0.0
    planes = np.zeros((5, width), np.float64)
    for z in range(-radius, depth):
        if z + radius < depth:
            _add_plane(first[z + radius], second[z + radius], 1.0, slab)
        if z - radius - 1 >= 0:
            _add_plane(first[z - radius - 1], second[z - radius - 1], -1.0, slab)
        if z < 0:
            continue
        deep = min(z + radius, depth - 1) - max(z - radius, 0) + 1
        planes[:] = 0
        for y in range(-radius, height):
            if y + radius < height:
                planes += slab[:, y + radius]
            if y - radius - 1 >= 0:
                planes -= slab[:, y - radius - 1]
            if y < 0:
                continue
            high = min(y + radius, height - 1) - max(y - radius, 0) + 1
            found, seen = _row(planes, mask[z, y], radius, np.float64(deep * high), floor)
            total += found
            count += seen
    return total, count


@njit(**KERNEL)
def _add_plane(first, second, sign, slab):
    for y in range(first.shape[0]):
        for x in range(first.shape[1]):
            a, b = np.float64(first[y, x]), np.float64(second[y, x])
            slab[0, y, x] += sign * a
            slab[1, y, x] += sign * b
            slab[2, y, x] += sign * a * a
            slab[3, y, x] += sign * b * b
            slab[4, y, x] += sign * a * b


@njit(**KERNEL)
def _row(planes, mask, radius, area, floor):
    width = planes.shape[1]
    total, count = 0.0, 0.0
    a = b = aa = bb = ab = 0.0
    for x in range(-radius, width):
        if x + radius < width:
            a += planes[0, x + radius]
            b += planes[1, x + radius]
            aa += planes[2, x + radius]
            bb += planes[3, x + radius]
            ab += planes[4, x + radius]
        if x - radius - 1 >= 0:
            a -= planes[0, x - radius - 1]
            b -= planes[1, x - radius - 1]
            aa -= planes[2, x - radius - 1]
            bb -= planes[3, x - radius - 1]
            ab -= planes[4, x - radius - 1]
        if x < 0 or not mask[x] > 0:
            continue
        voxels = area * (min(x + radius, width - 1) - max(x - radius, 0) + 1)
        both = ab / voxels - a * b / (voxels * voxels)
        one = max(aa / voxels - a * a / (voxels * voxels), floor)
        other = max(bb / voxels - b * b / (voxels * voxels), floor)
        total += both * both / (one * other)
        count += 1.0
    return total, count


@njit(**KERNEL)
def joint_histogram(first, second, inside, low, scale, counts):
    """Count the voxels ``inside`` in ``counts [bins, bins]``.

    Args:
        first, second: flat ``[N]``. inside: of that shape, bool.
        low, scale: ``[2]`` float32 each: a value's bin is ``(value - low) * scale``, clipped.
        counts: int64, added to.
    """
    last = counts.shape[0] - 1
    for i in range(inside.shape[0]):
        if inside[i]:
            row = int(min(max((first[i] - low[0]) * scale[0], f4(0)), f4(last)))
            column = int(min(max((second[i] - low[1]) * scale[1], f4(0)), f4(last)))
            counts[row, column] += 1
