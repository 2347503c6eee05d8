"""Corners on the surfaces of labelled structures."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL


def label_surfaces(
    labels: np.ndarray, numbers: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The corners that have voxels of a structure and others around them, by structure.

    Args:
        labels: ``[D, H, W]``, integers.
        numbers: int32, which of the structures ``1 .. count`` each label value is; 0 is none.
        count: how many structures there are.

    Returns:
        ``starts [count + 1]`` int64, where each structure's corners begin; ``corners [P, 3]``
        int16, and ``codes [P]`` uint8, in the order of the volume.
    """
    rows = np.zeros(tuple(size + 2 for size in labels.shape), np.int32)
    _number(labels, numbers, rows)
    flags = np.empty(tuple(size + 1 for size in labels.shape), np.bool_)
    most = 8 * _mixed_corners(rows, flags)
    owners, found = np.empty(most, np.int32), np.empty((most, 3), np.int16)
    codes, counts = np.empty(most, np.uint8), np.zeros(count + 1, np.int64)
    total = _surface_corners(rows, flags, owners, found, codes, counts)
    starts = np.cumsum(counts)
    by_structure = np.empty((total, 3), np.int16), np.empty(total, np.uint8)
    _sort(owners[:total], found, codes, starts[:-1].copy(), *by_structure)
    return starts, *by_structure


@njit(**KERNEL)
def _number(labels, numbers, rows):
    """Number of the structure at each voxel, inside a border of zeros."""
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            row = rows[z + 1, y + 1]
            for x in range(width):
                row[x + 1] = numbers[labels[z, y, x]]


@njit(**KERNEL)
def _mixed_corners(rows, flags):
    """Flag the corners whose eight voxels are not all of one structure, and count them."""
    depth, height, width = flags.shape
    total = 0
    for z in range(depth):
        for y in range(height):
            flag = flags[z, y]
            first, second = rows[z, y], rows[z, y + 1]
            third, fourth = rows[z + 1, y], rows[z + 1, y + 1]
            for x in range(width):
                one = first[x]
                same = (one ^ second[x]) | (one ^ third[x]) | (one ^ fourth[x])
                one = first[x + 1]
                same |= (one ^ second[x + 1]) | (one ^ third[x + 1]) | (one ^ fourth[x + 1])
                same |= one ^ first[x]
                flag[x] = same != 0
            for x in range(width):
                total += flag[x]
    return total


@njit(**KERNEL)
def _surface_corners(rows, flags, owners, corners, codes, counts):
    """List every structure around each flagged corner with its code, and count them."""
    depth, height, width = flags.shape
    window = np.empty(8, np.int32)
    total = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if not flags[z, y, x]:
                    continue
                for i in range(8):
                    window[i] = rows[z + (i >> 2), y + ((i >> 1) & 1), x + (i & 1)]
                done = 0
                for i in range(8):
                    owner = window[i]
                    if owner == 0 or done & (128 >> i):
                        continue
                    code = 0
                    for j in range(8):
                        code |= (window[j] == owner) * (128 >> j)
                    done |= code
                    owners[total], codes[total] = owner - 1, code
                    corners[total, 0], corners[total, 1], corners[total, 2] = z, y, x
                    counts[owner] += 1
                    total += 1
    return total


@njit(**KERNEL)
def _sort(owners, corners, codes, places, sorted_corners, sorted_codes):
    """Copy the corners to their structure's ``places``, which move on."""
    for i in range(owners.shape[0]):
        place = places[owners[i]]
        places[owners[i]] += 1
        for axis in range(3):
            sorted_corners[place, axis] = corners[i, axis]
        sorted_codes[place] = codes[i]
