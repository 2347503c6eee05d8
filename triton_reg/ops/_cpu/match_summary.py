"""Probabilities of displacement labels, and what they say together."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, exp, f4, log


@njit(**KERNEL)
def summarise_plane(message, plane, width, sharpness, keep, mean, entropy, covariance):
    """Mean, entropy and covariance of ``softmax_l(-sharpness message)`` on one plane.

    Fast because a plane is swept twice while it lies in the cache: for the most likely label, then
    for exponentials and all their sums, those along the last label axis first.

    Args:
        message: ``[L, d, N]``; overwritten by the probabilities if ``keep``.
        plane: which plane to do.
        mean, entropy, covariance: ``[3, d, N]``, ``[d, N]`` and ``[6, d, N]``, overwritten there.
    """
    points = message.shape[2]
    top = np.empty(points, np.float32)
    lines = np.empty((4, points), np.float32)
    sums = np.zeros((11, points), np.float32)
    highest(message, plane, sharpness, top)
    for row in range(width * width):
        lines[:] = 0
        for c in range(width):
            values = message[row * width + c, plane]
            _exponentials(values, top, sharpness, f4(c - width // 2), keep, lines)
        _add_line(lines, f4(row // width - width // 2), f4(row % width - width // 2), sums)
    total = sums[0]
    for i in range(points):
        total[i] = f4(1) / total[i]
        entropy[plane, i] = -log(total[i]) - sums[1, i] * total[i]
    for axis in range(3):
        for i in range(points):
            mean[axis, plane, i] = sums[2 + axis, i] * total[i]
    for moment in range(6):
        one = moment if moment < 3 else (0 if moment < 5 else 1)
        other = moment if moment < 3 else (1 if moment == 3 else 2)
        for i in range(points):
            covariance[moment, plane, i] = (
                sums[5 + moment, i] * total[i] - mean[one, plane, i] * mean[other, plane, i]
            )
    if keep:
        for label in range(message.shape[0]):
            values = message[label, plane]
            for i in range(points):
                values[i] *= total[i]


@njit(**KERNEL)
def highest(message, plane, sharpness, top):
    top[:] = -np.inf
    for label in range(message.shape[0]):
        values = message[label, plane]
        for i in range(top.shape[0]):
            logit = -sharpness * values[i]
            top[i] = top[i] if top[i] > logit else logit


@njit(**KERNEL)
def _exponentials(values, top, sharpness, step, keep, lines):
    """Add one label to the sums along a line: ``e``, ``e ln e``, ``e x`` and ``e x²``."""
    zeroth, information, first, second = lines[0], lines[1], lines[2], lines[3]
    for i in range(top.shape[0]):
        power = -sharpness * values[i] - top[i]
        found = exp(power)
        if keep:
            values[i] = found
        zeroth[i] += found
        information[i] += found * power
        first[i] += found * step
        second[i] += found * (step * step)


@njit(**KERNEL)
def _add_line(lines, z, y, sums):
    """Add the sums along a line of labels to all moments."""
    for i in range(sums.shape[1]):
        zeroth, first = lines[0, i], lines[2, i]
        sums[0, i] += zeroth
        sums[1, i] += lines[1, i]
        sums[2, i] += z * zeroth
        sums[3, i] += y * zeroth
        sums[4, i] += first
        sums[5, i] += z * z * zeroth
        sums[6, i] += y * y * zeroth
        sums[7, i] += lines[3, i]
        sums[8, i] += z * y * zeroth
        sums[9, i] += z * first
        sums[10, i] += y * first
