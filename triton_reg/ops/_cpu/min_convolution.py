"""Min-convolutions over the labels of the control points of a plane, in place."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4

# points at a time: all their labels, twice, stay in the second-level cache
POINTS = 64
_CENTRE, _NEAR, _FAR = f4(3 / 9), f4(2 / 9), f4(1 / 9)  # two means over three, as one filter


@njit(**KERNEL)
def pooled_min_convolution(cost, width):
    """A minimum over 3 x 3 x 3 labels and two means over as many, the border repeated by three.

    Beyond the border of the labels only one more minimum differs from the last: with the border
    repeated, lines of ``width`` labels become ``width + 2`` minima. Points lie innermost, so that
    every step over the labels is a loop over neighbouring floats.

    Args:
        cost: ``[L, N]``, overwritten.
    """
    line = width * POINTS
    cubes = np.zeros((width, width, line), np.float32)
    lowest = np.empty((width, line), np.float32)
    padded = np.empty((width + 6) * POINTS, np.float32)
    minima = np.empty((width + 4) * POINTS, np.float32)
    rows = np.empty((width + 2, line), np.float32)
    planes = np.empty((width + 2, width, line), np.float32)
    for first in range(0, cost.shape[1], POINTS):
        count = min(POINTS, cost.shape[1] - first)
        take(cost, first, count, cubes)
        for z in range(-1, width + 1):
            minimum(
                cubes[max(z - 1, 0)].ravel(),
                cubes[min(max(z, 0), width - 1)].ravel(),
                cubes[min(z + 1, width - 1)].ravel(),
                lowest.ravel(),
            )
            for y in range(-1, width + 1):
                inner = padded[3 * POINTS : (width + 3) * POINTS]
                minimum(
                    lowest[max(y - 1, 0)],
                    lowest[min(max(y, 0), width - 1)],
                    lowest[min(y + 1, width - 1)],
                    inner,
                )
                _line(padded, minima, rows[y + 1])
            for y in range(width):
                far, farther = rows[max(y - 1, 0)], rows[min(y + 3, width + 1)]
                _five_taps(far, rows[y], rows[y + 1], rows[y + 2], farther, planes[z + 1, y])
        for z in range(width):
            far, farther = planes[max(z - 1, 0)].ravel(), planes[min(z + 3, width + 1)].ravel()
            near, centre, nearer = planes[z].ravel(), planes[z + 1].ravel(), planes[z + 2].ravel()
            _five_taps(far, near, centre, nearer, farther, cubes[z].ravel())
        give(cubes, first, count, cost)


@njit(**KERNEL)
def take(cost, first, count, cubes):
    width = cubes.shape[0]
    for label in range(cost.shape[0]):
        row = cubes[label // (width * width), label // width % width]
        begin, source = label % width * POINTS, cost[label]
        for i in range(count):
            row[begin + i] = source[first + i]


@njit(**KERNEL)
def give(cubes, first, count, cost):
    width = cubes.shape[0]
    for label in range(cost.shape[0]):
        row = cubes[label // (width * width), label // width % width]
        begin, target = label % width * POINTS, cost[label]
        for i in range(count):
            target[first + i] = row[begin + i]


@njit(**KERNEL)
def minimum(before, here, after, out):
    for i in range(out.shape[0]):
        lower = before[i] if before[i] < here[i] else here[i]
        out[i] = lower if lower < after[i] else after[i]


@njit(**KERNEL)
def _line(padded, minima, out):
    """Minima and means along one line of labels that stands in the middle of ``padded``."""
    begin, end = 3 * POINTS, padded.shape[0] - 3 * POINTS
    first, last = padded[begin:], padded[end - POINTS :]
    for repeat in range(3):
        before, after = padded[repeat * POINTS :], padded[end + repeat * POINTS :]
        for i in range(POINTS):
            before[i] = first[i]
            after[i] = last[i]
    minimum(padded, padded[POINTS:], padded[2 * POINTS :], minima)
    far, near, centre = minima, minima[POINTS:], minima[2 * POINTS :]
    nearer, farther = minima[3 * POINTS :], minima[4 * POINTS :]
    _five_taps(far, near, centre, nearer, farther, out)


@njit(**KERNEL)
def _five_taps(far, near, centre, nearer, farther, out):
    for i in range(out.shape[0]):
        out[i] = _CENTRE * centre[i] + _NEAR * (near[i] + nearer[i]) + _FAR * (far[i] + farther[i])


@njit(**KERNEL)
def exact_min_convolution(cost, width, curvature):
    """``min_k cost(k) + curvature |l - k|²``, one axis after the other.

    Fast because labels that lie equally far apart share a price, and a loop: along the first axis
    it runs over all the labels of the other two.

    Args:
        cost: ``[L, N]``, overwritten.
    """
    cubes = np.zeros((width, width, width * POINTS), np.float32)
    lowest = np.empty_like(cubes)
    for first in range(0, cost.shape[1], POINTS):
        count = min(POINTS, cost.shape[1] - first)
        take(cost, first, count, cubes)
        _envelope(cubes.ravel(), width, curvature, lowest.ravel())
        for z in range(width):
            _envelope(lowest[z].ravel(), width, curvature, cubes[z].ravel())
            for y in range(width):
                _envelope(cubes[z, y], width, curvature, lowest[z, y])
        give(lowest, first, count, cost)


@njit(**KERNEL)
def _envelope(values, width, curvature, lowest):
    """Along the first of ``width`` labels, each with a block of values."""
    block = values.shape[0] // width
    for i in range(values.shape[0]):
        lowest[i] = values[i]
    for apart in range(1, width):
        price, shift = curvature * f4(apart * apart), apart * block
        _lower(values, price, lowest[shift:])
        _lower(values[shift:], price, lowest[: values.shape[0] - shift])


@njit(**KERNEL)
def _lower(values, price, lowest):
    for i in range(lowest.shape[0]):
        found = values[i] + price
        lowest[i] = lowest[i] if lowest[i] < found else found
