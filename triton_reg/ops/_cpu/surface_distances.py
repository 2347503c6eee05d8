"""Distances between the surfaces of two label maps, and what is reported of them."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import f4
from triton_reg.ops._cpu.distance_transform import DISTANCES, along_depth, along_height

_FAR = f4(np.inf)
_LANES = 16  # rows are padded to whole vectors
_BINS = 256
_REACH = 2  # voxels


@njit(**DISTANCES)
def surface_sums(starts, corners, areas, other_starts, other_corners, squares, settings, sums):
    """Measures of the distances from each structure's surface to the other map's.

    Args:
        starts, corners: ``[M + 1]`` and ``[P, 3]``, of the surfaces measured.
        areas: ``[P]`` float64 of their corners.
        other_starts, other_corners: ``[M + 1]`` and ``[Q, 3]``, of the surfaces measured to.
        squares: squared spacing along each axis, ``[3]``.
        settings: the share of the area for the percentile, and the largest squared distance that
            is within the tolerance.
        sums: ``[M, 5]``: area, area times distance, area within the tolerance, percentile, and
            greatest distance; untouched where a surface is empty.
    """
    longest = 0
    for structure in range(starts.shape[0] - 1):
        longest = max(longest, starts[structure + 1] - starts[structure])
    distances = np.empty(longest, np.float32)
    for structure in range(starts.shape[0] - 1):
        begin, end = starts[structure], starts[structure + 1]
        other_begin, other_end = other_starts[structure], other_starts[structure + 1]
        if begin == end or other_begin == other_end:
            continue
        found = distances[: end - begin]
        _nearest(corners[begin:end], other_corners[other_begin:other_end], squares, found)
        _measure(found, areas[begin:end], settings, sums[structure])


@njit(**DISTANCES)
def _nearest(corners, others, squares, found):
    """Squared distance of each corner to the nearest of the others.

    A distance transform of the others' box, along the depth to where the corners are and beyond.
    Most corners have another one near, so each plane with corners is first transformed as far as
    the reach. For a corner that may have a nearer one beyond, its row is transformed along the
    height, and searched along the width.
    """
    low, high = _box(corners)
    other_low, other_high = _box(others)
    first, last = min(low[0], other_low[0]), max(high[0], other_high[0])
    margin = 2 * _REACH  # places up to the reach away from the box look around as well
    top, left = other_low[1] - margin, other_low[2] - margin
    height, width = other_high[1] + margin + 1 - top, other_high[2] + margin + 1 - left
    padded = (width + _LANES - 1) // _LANES * _LANES
    planes = np.full((last - first + 1, height, padded), _FAR, np.float32)
    for i in range(others.shape[0]):
        planes[others[i, 0] - first, others[i, 1] - top, others[i, 2] - left] = f4(0)
    along_depth(planes.reshape(last - first + 1, height * padded), f4(squares[0]))
    across = f4(squares[1]), f4(squares[2])
    settled = f4((_REACH + 1) * (_REACH + 1)) * min(across)
    between = np.full((height, padded), _FAR, np.float32)
    near, line = np.full((height, padded), _FAR, np.float32), np.empty(padded, np.float32)
    plane, row = -1, -1
    for i in range(corners.shape[0]):
        # corners come in the order of the volume: those of a plane and of a row share it
        z, y, x = corners[i, 0] - first, corners[i, 1] - top, corners[i, 2] - left
        if z != plane:
            plane, row = z, -1
            _near(planes[z], across, between, near)
        if 0 <= y < height and 0 <= x < width and near[y, x] <= settled:
            found[i] = near[y, x]
            continue
        if corners[i, 1] != row:
            row = corners[i, 1]
            along_height(planes[z], y, across[0], line)
        found[i] = _least(line, width, x, across[1])


@njit(**DISTANCES)
def _near(rows, squares, between, out):
    """:func:`_within_reach` along the height, then along the width of ``rows [H, W]``."""
    # beyond the end of a row lies the margin of the next, where nothing is
    _within_reach(rows.ravel(), rows.shape[1], squares[0], between.ravel())
    _within_reach(between.ravel(), 1, squares[1], out.ravel())


@njit(**DISTANCES)
def _within_reach(values, stride, square, out):
    """The least of ``values[i + k stride] + square k²`` for ``k`` of -2 to 2, into ``out[i]``;
    where a step would leave the values, that stays as it is."""
    count = values.shape[0] - 4 * stride
    here, target = values[2 * stride :], out[2 * stride :]
    before, after = values[stride:], values[3 * stride :]
    first, last = values, values[4 * stride :]
    near, far = f4(1) * square, f4(4) * square
    for i in range(count):
        nearest = min(here[i], min(before[i], after[i]) + near)
        target[i] = min(nearest, min(first[i], last[i]) + far)


@njit(**DISTANCES)
def _box(corners):
    low, high = np.full(3, 32767), np.full(3, -1)
    for i in range(corners.shape[0]):
        for axis in range(3):
            low[axis] = min(low[axis], corners[i, axis])
            high[axis] = max(high[axis], corners[i, axis])
    return low, high


@njit(**DISTANCES)
def _least(line, width, place, square):
    """The least of ``line[i] + square (i - place)²``; ``place`` may lie outside the line."""
    least = _FAR
    step = max(max(-place, place - width + 1), 0)
    while True:
        added = f4(step * step) * square
        if added >= least:
            return least
        low, high = max(place - step, 0), min(place + step, width - 1)
        least = min(least, min(line[low], line[high]) + added)
        step += 1


@njit(**DISTANCES)
def _measure(squared, areas, settings, sums):
    share, tolerance = settings
    total, weighted, within, greatest = 0.0, 0.0, 0.0, f4(0)
    for i in range(squared.shape[0]):
        total += areas[i]
        weighted += areas[i] * np.sqrt(np.float64(squared[i]))
        within += areas[i] * (squared[i] <= tolerance)
        greatest = max(greatest, squared[i])
    sums[0], sums[1], sums[2] = total, weighted, within
    sums[3] = np.sqrt(_quantile(squared, areas, share * total, greatest))
    sums[4] = np.sqrt(np.float64(greatest))


@njit(**DISTANCES)
def _quantile(squared, areas, wanted, greatest):
    """The least value up to which the areas add up to ``wanted``: only the values in the interval
    that holds it are sorted."""
    if greatest == 0:
        return 0.0
    scale = _BINS / np.sqrt(np.float64(greatest))
    held, places = np.zeros(_BINS + 1), np.empty(squared.shape[0], np.int64)
    for i in range(squared.shape[0]):
        places[i] = int(np.sqrt(np.float64(squared[i])) * scale)
        held[places[i]] += areas[i]
    place, before = 0, 0.0
    while place < _BINS and before + held[place] < wanted:
        before += held[place]
        place += 1
    inside = np.nonzero(places == place)[0]
    for i in inside[np.argsort(squared[inside])]:
        before += areas[i]
        if before >= wanted:
            return np.float64(squared[i])
    return np.float64(greatest)
