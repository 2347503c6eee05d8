"""One minus the mean local correlation under a displacement, and its gradient.

For sums ``F, W, FF, WW, FW`` over the cube of ``n`` voxels around a voxel, its correlation is
``c = (x² + t) / (f w + t)`` with ``x = FW - F W / n``, ``f = FF - F² / n``, ``w = WW - W² / n`` and
the floor ``t`` of both. It changes with the sums by ``a = ∂c/∂FW``, ``b = 2 ∂c/∂WW`` and
``g = ∂c/∂W``; with one sample, by the sums of these over the cubes that hold it: ``f a + w b + g``.
"""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4
from triton_reg.ops._cpu.layout import copy_row, scratch
from triton_reg.ops._cpu.taps import row_taps, sample_row, tables_of

_FLOOR = 1e-5
_PRODUCTS, _COEFFICIENTS = 5, 3


def correlation_force(fixed, moving, vectors, placement, weight, settings, gradient):
    """Fill ``gradient [3, D, H, W]``; the weighted sum of one minus the correlations.

    Args:
        fixed, moving: ``[*n, C]``; channels are done one after the other.
        vectors, placement: see :func:`triton_reg.ops._cpu.taps.row_taps`.
        weight: ``[D, H, W]``, or ``[1, 1, 1]`` for all.
        settings: with ``window`` and ``derivative``.
    """
    symmetric, mean = settings.derivative == "symmetric", 1 / fixed.size
    shape = fixed.shape[:3]
    sampled = scratch("force samples", *shape[:2], 4, shape[2])
    coefficients = scratch("force coefficients", _COEFFICIENTS, *shape)
    gradient[:] = 0
    total = 0.0
    for channel in range(fixed.shape[-1]):
        still = np.ascontiguousarray(fixed[..., channel])
        searched = np.ascontiguousarray(moving[..., channel])
        _sample(searched, vectors, placement, symmetric, sampled)
        total += _correlate(still, sampled, weight, settings.window, coefficients)
        _pull(still, sampled, coefficients, settings.window // 2, placement, mean, gradient)
    return total


@njit(**KERNEL)
def _sample(moving, vectors, placement, symmetric, sampled):
    """Samples and slopes of ``moving [*m]`` into ``sampled [D, H, 4, W]``."""
    depth, height, _, width = sampled.shape
    tables = tables_of(width)
    _, places, weights = tables
    layout = moving.shape[0], moving.shape[1], moving.shape[2], 1
    flat, plane = moving.reshape(moving.size), np.uint64(moving.shape[1] * moving.shape[2])
    for z in range(depth):
        for y in range(height):
            row_taps(vectors, placement, (z, y), layout, symmetric, tables)
            sample_row(flat, plane, places, weights, sampled[z, y])


@njit(**KERNEL)
def _correlate(fixed, sampled, weight, window, coefficients):
    """Fill the weighted ``coefficients [3, D, H, W]``; the sum of one minus the correlations.

    Fast because sums slide along the first two axes, in float64: what is added is taken away again.
    """
    depth, height, width = fixed.shape
    radius, shared = window // 2, weight.size == 1
    slab = np.zeros((_PRODUCTS, height, width), np.float64)
    lines = np.empty((_PRODUCTS, width + 2 * radius), np.float64)
    sums, losses = np.empty((_PRODUCTS, width), np.float64), np.zeros(width, np.float64)
    everywhere = np.full(width, weight[0, 0, 0])
    for z in range(-radius, depth):
        if z + radius < depth:
            _add_products(fixed[z + radius], sampled[z + radius], 1.0, slab)
        if z - radius - 1 >= 0:
            _add_products(fixed[z - radius - 1], sampled[z - radius - 1], -1.0, slab)
        if z < 0:
            continue
        lines[:] = 0
        for y in range(-radius, height):
            _slide(slab, y, radius, lines)
            if y >= 0:
                _across(lines, sums)
                weights = everywhere if shared else weight[z, y]
                _coefficients(sums, weights, np.float64(window) ** 3, z, y, coefficients, losses)
    return losses.sum()


@njit(**KERNEL)
def _add_products(fixed, sampled, sign, slab):
    for y in range(fixed.shape[0]):
        warped = sampled[y, 0]
        for x in range(fixed.shape[1]):
            f, w = np.float64(fixed[y, x]), np.float64(warped[x])
            slab[0, y, x] += sign * f
            slab[1, y, x] += sign * w
            slab[2, y, x] += sign * (f * f)
            slab[3, y, x] += sign * (w * w)
            slab[4, y, x] += sign * (f * w)


@njit(**KERNEL)
def _slide(slab, y, radius, lines):
    """Move ``lines [K, W + 2 radius]``, sums of rows of the slab, on to row ``y``."""
    height, width = slab.shape[1:]
    for k in range(slab.shape[0]):
        inside = lines[k, radius : radius + width]
        if y + radius < height:
            entering = slab[k, y + radius]
            for x in range(width):
                inside[x] += entering[x]
        if y - radius - 1 >= 0:
            leaving = slab[k, y - radius - 1]
            for x in range(width):
                inside[x] -= leaving[x]


@njit(**KERNEL)
def _across(lines, sums):
    """Sums of neighbours along the row, ``[K, W]``; two a pass, from the outermost inwards."""
    width = sums.shape[1]
    wide = lines.shape[1] - width
    for k in range(sums.shape[0]):
        target, row = sums[k], lines[k]
        copy_row(row[wide // 2 : wide // 2 + width], target)
        for step in range(wide // 2):
            before, behind = row[step : step + width], row[wide - step : wide - step + width]
            for x in range(width):
                target[x] += before[x] + behind[x]


@njit(**KERNEL)
def _coefficients(sums, weights, count, z, y, out, losses):
    """Write the weighted derivatives of a row; add its weighted one minus correlation to losses.

    Losses are kept apart by their place in the row, as one sum of all would not vectorise.
    """
    cross_out, own_out, sum_out = out[0, z, y], out[1, z, y], out[2, z, y]
    for x in range(sums.shape[1]):
        f, w = sums[0, x], sums[1, x]
        cross = sums[4, x] - f * w / count
        var_fixed = max(sums[2, x] - f * f / count, _FLOOR)
        raw = sums[3, x] - w * w / count
        var_warped = max(raw, _FLOOR)
        bottom = var_fixed * var_warped + _FLOOR
        found = (cross * cross + _FLOOR) / bottom
        share = np.float64(weights[x])
        losses[x] += share * (1 - min(found, 1.0))
        share = share if found <= 1 else 0.0
        of_cross = 2 * cross / bottom * share
        of_own = -found * var_fixed / bottom * share if raw >= _FLOOR else 0.0
        cross_out[x] = f4(of_cross)
        own_out[x] = f4(2 * of_own)
        sum_out[x] = f4(-(of_cross * f + 2 * of_own * w) / count)


@njit(**KERNEL)
def _pull(fixed, sampled, coefficients, radius, placement, mean, gradient):
    """Subtract the coefficients' sums, times samples and slopes, from the gradient."""
    depth, height, width = fixed.shape
    slab = np.zeros((_COEFFICIENTS, height, width), np.float64)
    lines = np.empty((_COEFFICIENTS, width + 2 * radius), np.float64)
    sums, force = np.empty((_COEFFICIENTS, width), np.float64), np.empty((3, width), np.float32)
    for z in range(-radius, depth):
        for k in range(_COEFFICIENTS):
            if z + radius < depth:
                _add(coefficients[k, z + radius], 1.0, slab[k])
            if z - radius - 1 >= 0:
                _add(coefficients[k, z - radius - 1], -1.0, slab[k])
        if z < 0:
            continue
        lines[:] = 0
        for y in range(-radius, height):
            _slide(slab, y, radius, lines)
            if y < 0:
                continue
            _across(lines, sums)
            still, found = fixed[z, y], sampled[z, y]
            for x in range(width):
                pull = still[x] * sums[0, x] + found[0, x] * sums[1, x] + sums[2, x]
                pull = f4(-mean * pull)
                force[0, x] = pull * found[1, x]
                force[1, x] = pull * found[2, x]
                force[2, x] = pull * found[3, x]
            for axis in range(3):
                lead_z, lead_y = f4(placement[0, 4 + axis]), f4(placement[1, 4 + axis])
                lead_x, target = f4(placement[2, 4 + axis]), gradient[axis, z, y]
                for x in range(width):
                    target[x] += lead_z * force[0, x] + lead_y * force[1, x] + lead_x * force[2, x]


@njit(**KERNEL)
def _add(plane, sign, slab):
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            slab[y, x] += sign * np.float64(plane[y, x])
