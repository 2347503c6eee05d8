"""Gradients of min-convolutions: each minimum passes its own on to the label that gave it."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4
from triton_reg.ops._cpu.min_convolution import POINTS, give, minimum, take


def transposed_means(width):
    """How the ``width`` means of two means over three read ``width + 2`` minima: ``[w + 2, w]``."""
    shares = np.zeros((width + 2, width), np.float32)
    for label in range(width):
        for step, tap in zip(range(-2, 3), (1, 2, 3, 2, 1), strict=True):
            shares[min(max(label + step, -1), width) + 1, label] += tap / 9
    return shares


@njit(**KERNEL)
def pooled_min_convolution_backward(cost, shares, gradient):
    """Gradient with respect to ``cost``, of which the labels of each point are a cube.

    Means are transposed axis by axis; then the minima over one axis after the other are taken
    again, and where a value was the lowest of its three, the gradient follows it.

    Args:
        cost: ``[L, N]``, what went into the min-convolution.
        shares: :func:`transposed_means`.
        gradient: ``[L, N]``, replaced.
    """
    width = shares.shape[1]
    line = width * POINTS
    cubes = np.zeros((width, width, line), np.float32)
    found = np.zeros_like(cubes)
    planes = np.empty((width + 2, width, line), np.float32)
    lowest, gathered = np.empty_like(cubes[0]), np.empty_like(cubes[0])
    buffers = (
        np.empty((width + 2, line), np.float32),
        np.empty((2, line), np.float32),
        np.empty((3, line + 4 * POINTS), np.float32),
    )
    for first in range(0, cost.shape[1], POINTS):
        count = min(POINTS, cost.shape[1] - first)
        take(cost, first, count, cubes)
        take(gradient, first, count, found)
        _transposed(found, shares, planes)
        found[:] = 0
        for z in range(-1, width + 1):
            before, here, after = max(z - 1, 0), min(max(z, 0), width - 1), min(z + 1, width - 1)
            minimum(
                cubes[before].ravel(), cubes[here].ravel(), cubes[after].ravel(), lowest.ravel()
            )
            gathered[:] = 0
            _plane_backward(planes[z + 1], lowest, shares, buffers, gathered)
            _route(
                (cubes[before].ravel(), cubes[here].ravel(), cubes[after].ravel()),
                gathered.ravel(),
                (found[before].ravel(), found[here].ravel(), found[after].ravel()),
            )
        give(found, first, count, gradient)


@njit(**KERNEL)
def _plane_backward(means, values, shares, buffers, gathered):
    """Through the last two axes: from ``means [w, w P]`` to where ``values [w, w P]`` gave them."""
    width = shares.shape[1]
    rows, lines, padded = buffers
    row, gradient = lines[0], lines[1]
    _transposed(means, shares, rows)
    for y in range(-1, width + 1):
        before, here, after = max(y - 1, 0), min(max(y, 0), width - 1), min(y + 1, width - 1)
        minimum(values[before], values[here], values[after], row)
        _line_backward(row, rows[y + 1], padded, gradient)
        _route(
            (values[before], values[here], values[after]),
            gradient,
            (gathered[before], gathered[here], gathered[after]),
        )


@njit(**KERNEL)
def _line_backward(row, means, padded, gradient):
    """Through the last axis, all labels of a line in each loop: a short loop costs as much."""
    size, end = row.shape[0], row.shape[0] + POINTS
    values, collected, spread = padded[0], padded[1], padded[2]
    spread[:] = 0
    for step in range(5):
        tap, target = f4(min(step + 1, 5 - step)) / f4(9), spread[step * POINTS :]
        for i in range(size):
            target[i] += tap * means[i]
    for i in range(size):
        values[POINTS + i] = row[i]
    collected[:] = 0
    for i in range(POINTS):
        values[i], values[end + i] = row[i], row[size - POINTS + i]
    inner = spread[2 * POINTS :]
    _route(
        (values, values[POINTS:], values[2 * POINTS :]),
        inner[:size],
        (collected, collected[POINTS:], collected[2 * POINTS :]),
    )
    for i in range(size):
        gradient[i] = collected[POINTS + i]
    # minima beyond an end are those of the end itself
    last, beyond = gradient[size - POINTS :], spread[size + 2 * POINTS :]
    for i in range(POINTS):
        gradient[i] += collected[i] + spread[i] + spread[POINTS + i]
        last[i] += collected[end + i] + beyond[i] + beyond[POINTS + i]


@njit(**KERNEL)
def _transposed(means, shares, out):
    """``out[u] = Σ_t shares[u, t] means[t]`` along the first axis."""
    for u in range(shares.shape[0]):
        target = out[u].ravel()
        target[:] = 0
        for t in range(max(u - 3, 0), min(u + 2, shares.shape[1])):
            share, source = shares[u, t], means[t].ravel()
            for i in range(target.shape[0]):
                target[i] += share * source[i]


@njit(**KERNEL)
def _route(values, gradient, targets):
    """Add ``gradient`` to the target whose value is the lowest, the first of those that tie."""
    one, two, three = values
    for_one, for_two, for_three = targets
    # loops of their own, since the targets may be the same; selects in place of branches
    for i in range(gradient.shape[0]):
        least = two[i] if two[i] < three[i] else three[i]
        for_one[i] += gradient[i] if one[i] <= least else f4(0)
    for i in range(gradient.shape[0]):
        before = gradient[i] if two[i] < one[i] else f4(0)
        for_two[i] += before if two[i] <= three[i] else f4(0)
    for i in range(gradient.shape[0]):
        least = one[i] if one[i] < two[i] else two[i]
        for_three[i] += f4(0) if three[i] >= least else gradient[i]


@njit(**KERNEL)
def exact_min_convolution_backward(cost, width, curvature, gradient):
    """Gradient with respect to ``cost``, through one axis after the other.

    Args:
        cost: ``[L, N]``, what went into the min-convolution.
        width: labels along each axis.
        curvature: price of the squared distance of two labels.
        gradient: ``[L, N]``, replaced.
    """
    labels = cost.shape[0]
    stages = np.empty((3, labels, POINTS), np.float32)
    given, found = np.empty((labels, POINTS), np.float32), np.empty((labels, POINTS), np.float32)
    strides = (width * width, width, 1)
    winner = np.empty(POINTS, np.int64)
    for first in range(0, cost.shape[1], POINTS):
        count = min(POINTS, cost.shape[1] - first)
        for label in range(labels):
            for i in range(count):
                stages[0, label, i] = cost[label, first + i]
                given[label, i] = gradient[label, first + i]
        for axis in range(2):
            for label in range(labels):
                _winner(
                    stages[axis], label, strides[axis], width, curvature, winner,
                    stages[axis + 1, label], count,
                )  # fmt: skip
        for axis in range(2, -1, -1):
            found[:] = 0
            for label in range(labels):
                # the values themselves are not needed any more
                _winner(
                    stages[axis], label, strides[axis], width, curvature, winner,
                    stages[2, label] if axis < 2 else gradient[label, first:], count,
                )  # fmt: skip
                for i in range(count):
                    found[winner[i], i] += given[label, i]
            given[:] = found
        for label in range(labels):
            for i in range(count):
                gradient[label, first + i] = given[label, i]


@njit(**KERNEL)
def _winner(stage, label, stride, width, curvature, winner, lowest, count):
    """Which label of the same line gives ``label`` its minimum, and that minimum."""
    at = label // stride % width
    begin = label - at * stride
    for i in range(count):
        lowest[i] = np.inf
    for k in range(width):
        price, source = curvature * f4((at - k) * (at - k)), begin + k * stride
        line = stage[source]
        for i in range(count):
            lower = line[i] + price < lowest[i]
            lowest[i] = line[i] + price if lower else lowest[i]
            winner[i] = source if lower or k == 0 else winner[i]
