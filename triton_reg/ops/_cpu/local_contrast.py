"""Intensities relative to the mean and standard deviation around each voxel."""

import math

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4
from triton_reg.ops._cpu.layout import copy_row


def local_contrast(volume: np.ndarray, widths: tuple[int, ...], floor: float) -> np.ndarray:
    """``(x - mean) / (sd + floor)`` over cubes of each width, ``[N, 1, D, H, W]`` in,
    ``[N, len(widths), D, H, W]`` out; edge voxels are repeated."""
    count, _, *shape = volume.shape
    result = np.empty((count, len(widths), *shape), np.float32)
    sums = np.empty((2, 2, *shape), np.float32)
    for subject in range(count):
        for channel, width in enumerate(widths):
            one = volume[subject, 0]
            _along_rows(one, width // 2, sums[0])
            _along_columns(sums[0], width // 2, sums[1])
            _contrast(one, sums[1], width, f4(floor), result[subject, channel])
    return result


@njit(**KERNEL)
def _along_rows(volume, radius, sums):
    """Sums of ``x`` and ``x²`` over ``2 radius + 1`` voxels of each row, ``sums [2, D, H, W]``."""
    depth, height, width = volume.shape
    padded = np.empty((2, width + 2 * radius), np.float32)
    for z in range(depth):
        for y in range(height):
            copy_row(volume[z, y], padded[0, radius : radius + width])
            padded[0, :radius] = volume[z, y, 0]
            padded[0, radius + width :] = volume[z, y, width - 1]
            for x in range(padded.shape[1]):
                padded[1, x] = padded[0, x] * padded[0, x]
            for power in range(2):
                row = sums[power, z, y]
                row[:] = 0
                for step in range(2 * radius + 1):
                    shifted = padded[power, step : step + width]
                    for x in range(width):
                        row[x] += shifted[x]


@njit(**KERNEL)
def _along_columns(sums, radius, out):
    """Sums over ``2 radius + 1`` rows of each plane; whole rows are added, so it vectorises."""
    for power in range(2):
        for z in range(sums.shape[1]):
            for y in range(sums.shape[2]):
                row = out[power, z, y]
                row[:] = 0
                for step in range(-radius, radius + 1):
                    other = sums[power, z, min(max(y + step, 0), sums.shape[2] - 1)]
                    for x in range(row.shape[0]):
                        row[x] += other[x]


@njit(**KERNEL)
def _contrast(volume, sums, width, floor, out):
    """Add over the planes, and turn the two sums of each voxel into its contrast."""
    depth, height, length = volume.shape
    scale = f4(1) / f4(width * width * width)
    first, second = np.empty(length, np.float32), np.empty(length, np.float32)
    for z in range(depth):
        for y in range(height):
            first[:] = 0
            second[:] = 0
            for step in range(-(width // 2), width // 2 + 1):
                other = min(max(z + step, 0), depth - 1)
                plain, squared = sums[0, other, y], sums[1, other, y]
                for x in range(length):
                    first[x] += plain[x]
                    second[x] += squared[x]
            for x in range(length):
                mean = first[x] * scale
                variance = max(second[x] * scale - mean * mean, f4(0))
                out[z, y, x] = (volume[z, y, x] - mean) / (math.sqrt(variance) + floor)
