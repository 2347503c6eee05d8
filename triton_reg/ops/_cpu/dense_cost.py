"""Squared feature differences of control points and displacement labels."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.aligned import LINE, aligned
from triton_reg.ops._cpu.arithmetic import KERNEL, f4
from triton_reg.ops._cpu.layout import copy_row


def lattice_samples(shape, lattice):
    """Where the labels of each axis read ``shape`` voxels, which continue as at their border.

    Returns:
        For each axis the lower voxel ``[points, width]`` and the weight of the one above it.
    """
    labels = np.arange(lattice.width) - lattice.width // 2
    samples = []
    for axis, size in enumerate(shape):
        controls = lattice.start[axis] + lattice.step[axis] * np.arange(lattice.points[axis])
        positions = np.clip(controls[:, None] + lattice.label_step[axis] * labels, 0, size - 1)
        lower = np.clip(np.floor(positions), 0, max(size - 2, 0))
        samples.append((lower.astype(np.int64), (positions - lower).astype(np.float32)))
    return tuple(samples)


def dense_cost(fixed, moving, lattice, scale, cost):
    """``scale Σ_c (fixed_c(p) - moving_c(p + l))²``.

    Fast because sampled positions are a product of three axes, so that interpolation is as well:
    planes of ``moving`` are expanded along the last axis to all its positions, label by label, and
    from then on nothing is gathered.

    Args:
        fixed: ``[C, *lattice.points]``.
        moving: ``[C, D, H, W]``.
        cost: ``[L, *lattice.points]``, overwritten.
    """
    samples = lattice_samples(moving.shape[1:], lattice)
    channels, _, height, _ = moving.shape
    row = -(-lattice.width * lattice.points[2] // LINE) * LINE
    window = int(np.ptp(samples[0][0], axis=1).max()) + 2
    planes = aligned("expanded planes", window, height, channels, row)
    plane = aligned("sampled plane", height, channels, row)
    target = aligned("repeated features", lattice.points[1], channels, row)
    buffers = planes, plane, target, aligned("differences", row)
    _dense_cost(fixed, moving, samples, f4(scale), buffers, cost)


@njit(**KERNEL)
def _dense_cost(fixed, moving, samples, scale, buffers, cost):
    planes, plane, target, total = buffers
    (lower, weight), rows, columns = samples
    points, width = lower.shape
    held = np.full(planes.shape[0], -1)
    planes[:] = 0  # beyond the last label too
    target[:] = 0
    for i in range(points):
        for z in range(lower[i].min(), min(lower[i].max() + 2, moving.shape[1])):
            slot = z % planes.shape[0]
            if held[slot] != z:
                expand_plane(moving, z, columns, planes[slot])
                held[slot] = z
        repeat_features(fixed, i, width, target)
        for a in range(width):
            z = lower[i, a]
            above = min(z + 1, moving.shape[1] - 1)
            between(
                planes[z % planes.shape[0]], planes[above % planes.shape[0]], weight[i, a], plane
            )
            for j in range(rows[0].shape[0]):
                _cost_row(plane, target[j], rows, scale, total, cost, (a, i, j))


@njit(**KERNEL)
def expand_plane(moving, z, columns, out):
    """Sample a plane of ``moving`` along its last axis: ``out [H, C, width x points]``."""
    lower, weight = columns
    points, width = lower.shape
    above = 1 if moving.shape[3] > 1 else 0
    for y in range(out.shape[0]):
        for c in range(out.shape[1]):
            row, target = moving[c, z, y], out[y, c]
            for label in range(width):
                for k in range(points):
                    x, w = lower[k, label], weight[k, label]
                    target[label * points + k] = row[x] * (f4(1) - w) + row[x + above] * w


@njit(**KERNEL)
def repeat_features(fixed, i, times, target):
    """Features of plane ``i`` of control points, each row once for each label of the last axis."""
    channels, _, rows, points = fixed.shape
    for j in range(rows):
        for c in range(channels):
            row = fixed[c, i, j]
            for label in range(times):
                begin = label * points
                copy_row(row, target[j, c, begin : begin + points])


@njit(**KERNEL)
def between(low, high, weight, out):
    """``(1 - weight) low + weight high`` of sampled planes."""
    rest = f4(1) - weight
    for y in range(out.shape[0]):
        for c in range(out.shape[1]):
            one, other, target = low[y, c], high[y, c], out[y, c]
            for x in range(target.shape[0]):
                target[x] = rest * one[x] + weight * other[x]


@njit(**KERNEL)
def _cost_row(plane, target, rows, scale, total, cost, where):
    """All labels of the last two axes for one row of control points."""
    lower, weight = rows
    a, i, j = where
    width, points = lower.shape[1], cost.shape[3]
    for b in range(width):
        y = lower[j, b]
        above = min(y + 1, plane.shape[0] - 1)
        _differences(plane[y], plane[above], weight[j, b], target, total)
        for c in range(width):
            out, found = cost[(a * width + b) * width + c, i, j], total[c * points :]
            for k in range(points):
                out[k] = scale * found[k]


@njit(**KERNEL)
def _differences(low, high, weight, target, total):
    """Squared differences between ``target [C, N]`` and the mean of two rows, over channels."""
    rest = f4(1) - weight
    total[:] = 0
    for c in range(target.shape[0]):
        one, other, aim = low[c], high[c], target[c]
        for x in range(total.shape[0]):
            error = rest * one[x] + weight * other[x] - aim[x]
            total[x] += error * error


@njit(**KERNEL)
def add_anchor_cost(anchors, width, cost):
    """Add each control point's weighted squared distance from its anchor to every label.

    Args:
        anchors: ``[4, N]``, a displacement in label steps and a weight.
        cost: ``[L, N]``, added to.
    """
    radius = width // 2
    toward_z, toward_y, toward_x, weight = anchors[0], anchors[1], anchors[2], anchors[3]
    for label in range(cost.shape[0]):
        z, y, x = label // (width * width), label // width % width, label % width
        z, y, x = f4(z - radius), f4(y - radius), f4(x - radius)
        out = cost[label]
        for p in range(out.shape[0]):
            e_z, e_y, e_x = z - toward_z[p], y - toward_y[p], x - toward_x[p]
            out[p] += weight[p] * (e_z * e_z + e_y * e_y + e_x * e_x)
