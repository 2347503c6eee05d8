"""Gradients of the squared feature differences: the sampling again, and its transpose."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.aligned import LINE, aligned
from triton_reg.ops._cpu.arithmetic import KERNEL, f4
from triton_reg.ops._cpu.dense_cost import between, expand_plane, lattice_samples, repeat_features


def dense_cost_backward(fixed, moving, lattice, scale, gradient):
    """Gradients with respect to ``fixed``, ``moving`` and ``scale``.

    Fast as :func:`triton_reg.ops._cpu.dense_cost.dense_cost` is: gradients are gathered in expanded
    planes, and go back to the voxels of ``moving`` when no label of the current control points
    reads the plane any more.

    Args:
        fixed: ``[C, *lattice.points]``.
        moving: ``[C, D, H, W]``.
        gradient: of the cost, ``[L, *lattice.points]``.
    """
    samples = lattice_samples(moving.shape[1:], lattice)
    channels, _, height, _ = moving.shape
    row = -(-lattice.width * lattice.points[2] // LINE) * LINE
    window = int(np.ptp(samples[0][0], axis=1).max()) + 2
    planes = aligned("expanded planes", window, height, channels, row)
    of_planes = aligned("their gradients", *planes.shape)
    # unpacked here: what a kernel unpacks from an array is not contiguous to the compiler
    plane = tuple(aligned("sampled plane", 2, height, channels, row))
    target = tuple(aligned("repeated features", 2, lattice.points[1], channels, row))
    rows = tuple(aligned("differences", 3, row))
    of_fixed, of_moving = np.zeros_like(fixed), np.zeros_like(moving)
    buffers = planes, of_planes, plane, target, rows
    of_scale = _backward(
        fixed, moving, samples, f4(scale), gradient, buffers, (of_fixed, of_moving)
    )
    return of_fixed, of_moving, of_scale


@njit(**KERNEL)
def _backward(fixed, moving, samples, scale, gradient, buffers, found):
    planes, of_planes, (plane, of_plane), (target, of_target), lines = buffers
    of_fixed, of_moving = found
    (lower, weight), rows, columns = samples
    points, width = lower.shape
    held = np.full(planes.shape[0], -1)
    slopes = np.zeros(plane.shape[2], np.float64)
    planes[:] = 0  # beyond the last label too
    target[:] = 0
    of_planes[:] = 0
    lines[0][:] = 0
    for i in range(points):
        for z in range(lower[i].min(), min(lower[i].max() + 2, moving.shape[1])):
            slot = z % planes.shape[0]
            if held[slot] != z:
                if held[slot] >= 0:
                    _gather_plane(of_planes[slot], held[slot], columns, of_moving)
                of_planes[slot] = 0
                expand_plane(moving, z, columns, planes[slot])
                held[slot] = z
        repeat_features(fixed, i, width, target)
        of_target[:] = 0
        for a in range(width):
            z = lower[i, a]
            above = min(z + 1, moving.shape[1] - 1)
            low, high = z % planes.shape[0], above % planes.shape[0]
            between(planes[low], planes[high], weight[i, a], plane)
            of_plane[:] = 0
            for j in range(rows[0].shape[0]):
                _row_backward(
                    (plane, of_plane), (target[j], of_target[j]), rows, scale, gradient,
                    lines, slopes, (a, i, j),
                )  # fmt: skip
            _add_planes(of_plane, f4(1) - weight[i, a], of_planes[low])
            _add_planes(of_plane, weight[i, a], of_planes[high])
        _gather_features(of_target, i, width, of_fixed)
    for slot in range(planes.shape[0]):
        if held[slot] >= 0:
            _gather_plane(of_planes[slot], held[slot], columns, of_moving)
    return slopes.sum()


@njit(**KERNEL)
def _row_backward(planes, targets, rows, scale, gradient, lines, slopes, where):
    """Through all labels of the last two axes for one row of control points."""
    plane, of_plane = planes
    target, of_target = targets
    lower, weight = rows
    given, total, error = lines
    a, i, j = where
    width, points, double = lower.shape[1], gradient.shape[3], f4(2) * scale
    for b in range(width):
        for c in range(width):
            source = gradient[(a * width + b) * width + c, i, j]
            row = given[c * points :]
            for k in range(points):
                row[k] = source[k]
        y, w = lower[j, b], weight[j, b]
        above = min(y + 1, plane.shape[0] - 1)
        total[:] = 0
        for c in range(target.shape[0]):
            _errors(plane[y, c], plane[above, c], w, target[c], error)
            _slopes(double, given, error, total)
            _scatter(error, w, of_target[c], of_plane[y, c], of_plane[above, c])
        for x in range(slopes.shape[0]):
            slopes[x] += np.float64(given[x]) * np.float64(total[x])


# three loops in place of one: with more arrays in a loop, none of it vectorises
@njit(**KERNEL)
def _errors(low, high, weight, target, error):
    rest = f4(1) - weight
    for x in range(error.shape[0]):
        error[x] = rest * low[x] + weight * high[x] - target[x]


@njit(**KERNEL)
def _slopes(double, given, error, total):
    for x in range(total.shape[0]):
        total[x] += error[x] * error[x]
        error[x] *= double * given[x]


@njit(**KERNEL)
def _scatter(error, weight, of_target, of_low, of_high):
    rest = f4(1) - weight
    for x in range(error.shape[0]):
        of_target[x] -= error[x]
        of_low[x] += rest * error[x]
        of_high[x] += weight * error[x]


@njit(**KERNEL)
def _add_planes(source, share, out):
    for y in range(out.shape[0]):
        for c in range(out.shape[1]):
            one, target = source[y, c], out[y, c]
            for x in range(target.shape[0]):
                target[x] += share * one[x]


@njit(**KERNEL)
def _gather_features(of_target, i, times, of_fixed):
    """Transpose of :func:`triton_reg.ops._cpu.dense_cost.repeat_features`."""
    channels, _, rows, points = of_fixed.shape
    for j in range(rows):
        for c in range(channels):
            row = of_fixed[c, i, j]
            for label in range(times):
                source = of_target[j, c, label * points :]
                for k in range(points):
                    row[k] += source[k]


@njit(**KERNEL)
def _gather_plane(of_expanded, z, columns, of_moving):
    """Transpose of :func:`triton_reg.ops._cpu.dense_cost.expand_plane`, added to."""
    lower, weight = columns
    points, width = lower.shape
    above = 1 if of_moving.shape[3] > 1 else 0
    for y in range(of_expanded.shape[0]):
        for c in range(of_expanded.shape[1]):
            row, source = of_moving[c, z, y], of_expanded[y, c]
            for label in range(width):
                for k in range(points):
                    x, w, value = lower[k, label], weight[k, label], source[label * points + k]
                    row[x] += (f4(1) - w) * value
                    row[x + above] += w * value


@njit(**KERNEL)
def anchor_cost_backward(anchors, width, gradient, found):
    """Gradient of :func:`triton_reg.ops._cpu.dense_cost.add_anchor_cost` with respect to anchors.

    Args:
        anchors: ``[4, N]``.
        gradient: of the cost, ``[L, N]``.
        found: ``[4, N]`` float64, zero; added to.
    """
    radius = width // 2
    toward_z, toward_y, toward_x, weight = anchors[0], anchors[1], anchors[2], anchors[3]
    for label in range(gradient.shape[0]):
        z, y, x = label // (width * width), label // width % width, label % width
        z, y, x = f4(z - radius), f4(y - radius), f4(x - radius)
        given = gradient[label]
        for p in range(given.shape[0]):
            e_z, e_y, e_x = z - toward_z[p], y - toward_y[p], x - toward_x[p]
            pull = f4(-2) * weight[p] * given[p]
            found[0, p] += pull * e_z
            found[1, p] += pull * e_y
            found[2, p] += pull * e_x
            found[3, p] += given[p] * (e_z * e_z + e_y * e_y + e_x * e_x)
