"""Voxels that each label has in a fixed map, in a linearly warped one, and in both at once."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import EXACT, f4


@njit(**EXACT)
def soft_label_counts(fixed, moving, vectors, mask, counts):
    """Add to ``counts [3, L]`` float64.

    Args:
        fixed: integers ``[D, H, W]``, below ``L``.
        moving: integers ``[*m]``, below ``L``.
        vectors: ``[3, D, H, W]`` float32, in moving voxels.
        mask: ``[D, H, W]`` bool.
    """
    depth, height, width = fixed.shape
    lowest, parts = np.empty(3, np.int64), np.empty(3, np.float32)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if not mask[z, y, x]:
                    continue
                label = fixed[z, y, x]
                counts[0, label] += 1
                if _place(vectors, (z, y, x), fixed.shape, moving.shape, lowest, parts):
                    _add(moving, lowest, parts, label, counts)


@njit(**EXACT)
def _place(vectors, voxel, fixed_shape, shape, lowest, parts):
    """The lowest of the eight voxels around where a voxel goes, and how far above it that is; False
    if none of the eight is in the grid, or the voxel goes nowhere (NaN)."""
    for axis in range(3):
        size = shape[axis]
        scale = (size - 1) / max(fixed_shape[axis] - 1, 1)
        position = vectors[axis, voxel[0], voxel[1], voxel[2]] + f4(voxel[axis] * scale)
        # along an axis of one voxel there is nowhere to go
        position = position if size > 1 else position * f4(0)
        if not (position > f4(-1) and position < f4(size)):
            return False
        below = np.floor(position)
        lowest[axis], parts[axis] = np.int64(below), position - below
    return True


@njit(**EXACT)
def _add(moving, lowest, parts, label, counts):
    """Give the eight voxels' weights to their labels; most places have one label all around."""
    depth, height, width = moving.shape
    z, y, x = lowest[0], lowest[1], lowest[2]
    if 0 <= z < depth - 1 and 0 <= y < height - 1 and 0 <= x < width - 1:
        other = moving[z, y, x]
        near = (moving[z, y, x + 1] == other) & (moving[z, y + 1, x] == other)
        near &= (moving[z, y + 1, x + 1] == other) & (moving[z + 1, y, x] == other)
        near &= (moving[z + 1, y, x + 1] == other) & (moving[z + 1, y + 1, x] == other)
        if near & (moving[z + 1, y + 1, x + 1] == other):
            counts[1, other] += 1
            counts[2, other] += other == label
            return
    for corner in range(8):
        i, j, k = z + (corner >> 2), y + ((corner >> 1) & 1), x + (corner & 1)
        if 0 <= i < depth and 0 <= j < height and 0 <= k < width:
            weight = parts[0] if corner & 4 else f4(1) - parts[0]
            weight *= parts[1] if corner & 2 else f4(1) - parts[1]
            weight *= parts[2] if corner & 1 else f4(1) - parts[2]
            other = moving[i, j, k]
            counts[1, other] += weight
            counts[2, other] += weight if other == label else f4(0)
