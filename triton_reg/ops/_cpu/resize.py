"""Corner-aligned linear resampling to another grid."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4


def resize(field: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """``field [B, C, *n]`` on the grid ``m``; output voxel x reads ``x (n - 1) / (m - 1)``."""
    batch, channels, *size = field.shape
    resized = np.empty((batch * channels, *shape), np.float32)
    resize_volumes(field.reshape(batch * channels, *size), resized)
    return resized.reshape(batch, channels, *shape)


@njit(**KERNEL)
def resize_volumes(volumes, out):
    """``volumes [K, *n]`` into ``out [K, *m]``.

    Fast because it is separable: the four rows around an output row are blended into one in a loop
    that vectorises, and only that one row is read through an index.
    """
    channels, depth, height, width = volumes.shape
    line = np.empty(width + 1, np.float32)
    lower_x = np.empty(out.shape[3], np.uint32)
    weight_x = np.empty(out.shape[3], np.float32)
    for x in range(out.shape[3]):
        i, weight_x[x] = _source(x, width, out.shape[3])
        lower_x[x] = np.uint32(i)
    for k in range(channels):
        for z in range(out.shape[1]):
            z0, weight_z = _source(z, depth, out.shape[1])
            z1 = min(z0 + 1, depth - 1)
            for y in range(out.shape[2]):
                y0, weight_y = _source(y, height, out.shape[2])
                y1 = min(y0 + 1, height - 1)
                _blend(volumes[k, z0, y0], volumes[k, z0, y1], volumes[k, z1, y0],
                       volumes[k, z1, y1], weight_z, weight_y, line)  # fmt: skip
                line[width] = line[width - 1]
                target = out[k, z, y]
                for x in range(target.shape[0]):
                    i = lower_x[x]
                    low, high = line[i], line[i + np.uint32(1)]
                    target[x] = low + weight_x[x] * (high - low)


@njit(**KERNEL)
def _source(x, size, out_size):
    """The voxel at or below output voxel ``x`` on one axis, and the weight of the next."""
    position = x * ((size - 1) / max(out_size - 1, 1))
    lower = min(int(position), size - 1)
    return lower, f4(position - lower)


@njit(**KERNEL)
def _blend(low_low, low_high, high_low, high_high, weight_z, weight_y, line):
    for x in range(low_low.shape[0]):
        low = low_low[x] + weight_y * (low_high[x] - low_low[x])
        high = high_low[x] + weight_y * (high_high[x] - high_low[x])
        line[x] = low + weight_z * (high - low)
