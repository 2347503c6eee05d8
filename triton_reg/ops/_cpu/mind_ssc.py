"""MIND with self-similarity context: twelve channels of a volume."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, exp, f4
from triton_reg.ops._cpu.layout import copy_row

_TINY = np.finfo(np.float32).tiny


def mind_ssc(
    volume: np.ndarray, radius: int, dilation: int, channel_offsets: np.ndarray
) -> np.ndarray:
    """Descriptors ``[N, 12, D, H, W]`` of ``volume [N, C, D, H, W]``.

    Args:
        channel_offsets: int64 ``[12, 2, 3]``, the compared offsets in units of the dilation.
    """
    count, _, *shape = volume.shape
    result = np.empty((count, len(channel_offsets), *shape), np.float32)
    edges = [(0, 0), *[(dilation, dilation)] * 3]
    for subject in range(count):
        padded = np.pad(volume[subject], edges, mode="edge")
        patch_distances(padded, dilation * (1 + channel_offsets), radius, result[subject])
        typical = variances_below_lowest(result[subject])
        least = max(typical / 1000, float(_TINY))
        descriptors(result[subject], f4(least), f4(max(typical * 1000, least)))
    return result


@njit(**KERNEL)
def patch_distances(padded, starts, radius, out):
    """Mean squared difference of patches for each pair of offsets, ``out [12, D, H, W]``.

    Fast because the box mean is three short sums: rows and columns of a plane while it is in the
    cache, then the sums of the ``2 radius + 1`` planes around one, kept in a ring.

    Args:
        padded: ``[C, ...]``, edge voxels repeated.
        starts: int64 ``[12, 2, 3]``, where in ``padded`` the two shifted volumes start.
        radius: half width of the box in voxels; edge values are repeated.
    """
    depth, height, width = out.shape[1:]
    box = 2 * radius + 1
    ring = np.empty((box, height, width), np.float32)
    square = np.empty(width + 2 * radius, np.float32)
    row_sums = np.empty((height, width), np.float32)
    scale = f4(1 / (padded.shape[0] * box**3))
    for pair in range(out.shape[0]):
        out[pair] = 0
        for c in range(padded.shape[0]):
            done = 0
            for z in range(depth):
                while done < min(z + radius + 1, depth):
                    _plane_sums(padded[c], starts[pair], done, radius, square, row_sums,
                                ring[done % box])  # fmt: skip
                    done += 1
                for step in range(-radius, radius + 1):
                    plane = ring[min(max(z + step, 0), depth - 1) % box]
                    for y in range(height):
                        target, values = out[pair, z, y], plane[y]
                        for x in range(width):
                            target[x] += values[x] * scale


@njit(**KERNEL)
def _plane_sums(padded, starts, z, radius, square, row_sums, out):
    """Squared differences of plane ``z``, summed along rows and columns."""
    height, width = out.shape
    for y in range(height):
        first = padded[starts[0, 0] + z, starts[0, 1] + y, starts[0, 2] :]
        second = padded[starts[1, 0] + z, starts[1, 1] + y, starts[1, 2] :]
        for x in range(width):
            difference = first[x] - second[x]
            square[radius + x] = difference * difference
        square[:radius] = square[radius]
        square[radius + width :] = square[radius + width - 1]
        target = row_sums[y]
        copy_row(square, target)
        for step in range(1, 2 * radius + 1):
            shifted = square[step : step + width]
            for x in range(width):
                target[x] += shifted[x]
    for y in range(height):
        target = out[y]
        copy_row(row_sums[max(y - radius, 0)], target)
        for step in range(1 - radius, radius + 1):
            values = row_sums[min(max(y + step, 0), height - 1)]
            for x in range(width):
                target[x] += values[x]


@njit(**KERNEL)
def variances_below_lowest(distances):
    """Subtract the lowest channel in place; the mean over the volume of the mean over channels."""
    channels, depth, height, width = distances.shape
    lowest = np.empty(width, np.float32)
    total = 0.0
    for z in range(depth):
        for y in range(height):
            copy_row(distances[0, z, y], lowest)
            for c in range(1, channels):
                values = distances[c, z, y]
                for x in range(width):
                    lowest[x] = min(lowest[x], values[x])
            row_total = f4(0)
            for c in range(channels):
                values = distances[c, z, y]
                for x in range(width):
                    values[x] -= lowest[x]
            for x in range(width):
                lowest[x] = 0
            for c in range(channels):
                values = distances[c, z, y]
                for x in range(width):
                    lowest[x] += values[x]
            for x in range(width):
                row_total += lowest[x]
            total += row_total
    return total / (channels * depth * height * width)


@njit(**KERNEL)
def descriptors(distances, least, most):
    """``exp(-distance / variance)`` in place, the variance kept between ``least`` and ``most``."""
    channels, depth, height, width = distances.shape
    factor = np.empty(width, np.float32)
    for z in range(depth):
        for y in range(height):
            factor[:] = 0
            for c in range(channels):
                values = distances[c, z, y]
                for x in range(width):
                    factor[x] += values[x]
            for x in range(width):
                variance = min(max(factor[x] / f4(channels), least), most)
                factor[x] = f4(-1) / variance
            for c in range(channels):
                values = distances[c, z, y]
                for x in range(width):
                    values[x] = exp(values[x] * factor[x])
