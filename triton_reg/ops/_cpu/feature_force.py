"""Mean squared difference of features under a displacement, and its gradient, in one sweep."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, REORDERED, f4
from triton_reg.ops._cpu.correlation_force import correlation_force
from triton_reg.ops._cpu.prefetch import prefetch
from triton_reg.ops._cpu.taps import row_taps, sample_row, tables_of

_BLOCK = 4  # channels come in multiples of it
_AHEAD = 3  # rows from a sample's lower voxel to the one that the next row of samples reads first


def feature_force(fixed, moving, vectors, placement, weights, active, settings):
    """See :func:`triton_reg.ops.feature_force.feature_force`.

    Args:
        fixed, moving: ``[B, *n, C]``, channels last.
        vectors: ``[B, 3, D, H, W]``.
        placement: ``[B, 3, 7]`` float64.
        weights: ``[B, D, H, W]`` or None.
        active: ``[B]`` or None.
        settings: with ``loss``, ``window`` and ``derivative``.

    Returns:
        The loss ``[B]`` and the gradient, as vectors.
    """
    loss, gradient = np.zeros(len(fixed), np.float32), np.empty_like(vectors)
    mean, one = 1 / fixed[0].size, np.ones((1, 1, 1), np.float32)
    if settings.loss == "mse" and fixed.shape[-1] > 1:
        fixed, moving = in_blocks(fixed), in_blocks(moving)
    for pair in range(len(fixed)):
        if active is not None and not active[pair]:
            gradient[pair] = 0
            continue
        weight = one if weights is None else weights[pair]
        given = fixed[pair], moving[pair], vectors[pair], placement[pair]
        if settings.loss == "mse":
            symmetric = settings.derivative == "symmetric"
            total = _squares(*given, weight, symmetric, mean, gradient[pair])
        else:
            total = correlation_force(*given, weight, settings, gradient[pair])
        loss[pair] = total * mean
    return loss, gradient


def in_blocks(features):
    """``[B, *n, C]`` with zero channels added up to a multiple of four."""
    missing = -features.shape[-1] % _BLOCK
    if not missing:
        return features
    return np.pad(features, [(0, 0)] * 4 + [(0, missing)])


@njit(**KERNEL)
def _squares(fixed, moving, vectors, placement, weight, symmetric, mean, gradient):
    """Fill ``gradient [3, D, H, W]``; the weighted sum of squared differences.

    Args:
        fixed, moving: ``[*n, C]``.
        weight: ``[D, H, W]``, or ``[1, 1, 1]`` for all.
        mean: by which sums become the mean.
    """
    depth, height, width, channels = fixed.shape
    tables, sums = tables_of(width), np.empty((4, width), np.float32)
    _, places, weights = tables
    still, flat = fixed.reshape(fixed.size), moving.reshape(moving.size)
    plane = np.uint64(moving.shape[1] * moving.shape[2] * channels)
    row = width * channels
    total = 0.0
    for z in range(depth):
        for y in range(height):
            row_taps(vectors, placement, (z, y), moving.shape, symmetric, tables)
            begin = (z * height + y) * row
            if channels == 1:
                sample_row(flat, plane, places, weights, sums)
                _times_residual(still[begin : begin + row], sums)
            else:
                sums[:] = 0
                strides = plane, np.uint64(channels)
                _all_channels(still[begin : begin + row], flat, strides, places, weights, sums)
            total += finish_row(sums, weight, placement, mean, (z, y), gradient)
    return total


@njit(**KERNEL)
def _all_channels(fixed, moving, strides, places, weights, sums):
    channels = np.int64(strides[1])
    for c in range(0, channels - 15, 16):
        _sixteen(fixed[c:], moving[c:], strides, places, weights, sums)
    c = channels // 16 * 16
    if channels - c >= 8:
        _eight(fixed[c:], moving[c:], strides, places, weights, sums)
        c += 8
    if channels - c >= 4:
        _four(fixed[c:], moving[c:], strides, places, weights, sums)


@njit(**KERNEL)
def _times_residual(fixed, sums):
    """Samples and slopes ``[4, W]`` to the squared difference and its product with the slopes."""
    for x in range(sums.shape[1]):
        residual = sums[0, x] - fixed[x]
        sums[0, x] = residual * residual
        sums[1, x] *= residual
        sums[2, x] *= residual
        sums[3, x] *= residual


@njit(**KERNEL)
def finish_row(sums, weight, placement, mean, where, gradient):
    """Weigh a row's sums ``[4, W]``; write its gradient with respect to the vectors.

    Returns:
        The row's weighted squared differences.
    """
    z, y = where
    shared = weight.size == 1
    weights = weight[0, 0] if shared else weight[z, y]
    double = f4(2 * mean)
    total = 0.0
    for x in range(sums.shape[1]):
        share = weights[0 if shared else x]
        total += np.float64(share * sums[0, x])
        sums[0, x] = double * share
    for axis in range(3):
        target = gradient[axis, z, y]
        lead_z, lead_y = f4(placement[0, 4 + axis]), f4(placement[1, 4 + axis])
        lead_x = f4(placement[2, 4 + axis])
        for x in range(sums.shape[1]):
            led = lead_z * sums[1, x] + lead_y * sums[2, x] + lead_x * sums[3, x]
            target[x] = sums[0, x] * led
    return total


def _block(width):
    """A kernel for ``width`` channels, a constant: what they add to the sums of a row."""

    @njit(**REORDERED)
    def add(fixed, moving, strides, places, weights, sums):
        plane, channels = strides
        row = np.uint64(sums.shape[1]) * channels
        for x in range(sums.shape[1]):
            low_z, high_z = np.uint64(places[0, 0, x]) * plane, np.uint64(places[0, 1, x]) * plane
            outer_z, outer_y = np.uint64(places[0, 2, x]) * plane, np.uint64(places[1, 2, x])
            low_y, high_y = np.uint64(places[1, 0, x]), np.uint64(places[1, 1, x])
            low_x, high_x = np.uint64(places[2, 0, x]), np.uint64(places[2, 1, x])
            outer_x = np.uint64(places[2, 2, x])
            z0, z1, z2, z3, z4 = _five(weights[0], x)
            y0, y1, y2, y3, y4 = _five(weights[1], x)
            x0, x1, x2, x3, x4 = _five(weights[2], x)
            i, j, k, m = low_z + low_y, low_z + high_y, high_z + low_y, high_z + high_y
            p, q, r, s = low_z + outer_y, high_z + outer_y, outer_z + low_y, outer_z + high_y
            here = np.uint64(x) * channels
            ahead = low_y + low_x + np.uint64(_AHEAD) * row
            prefetch(moving, outer_z + ahead)
            prefetch(moving, low_z + ahead)
            prefetch(moving, high_z + ahead)
            prefetch(fixed, here + np.uint64(_AHEAD) * row)
            squares = force_z = force_y = force_x = f4(0)
            for channel in range(width):
                c = np.uint64(channel)
                low, high, outer = low_x + c, high_x + c, outer_x + c
                i0, i1, j0, j1 = (
                    moving[i + low],
                    moving[i + high],
                    moving[j + low],
                    moving[j + high],
                )
                k0, k1, m0, m1 = (
                    moving[k + low],
                    moving[k + high],
                    moving[m + low],
                    moving[m + high],
                )
                v_i, v_j = x0 * i0 + x1 * i1, x0 * j0 + x1 * j1
                v_k, v_m = x0 * k0 + x1 * k1, x0 * m0 + x1 * m1
                s_i, s_j = x2 * i0 + x3 * i1, x2 * j0 + x3 * j1
                s_k, s_m = x2 * k0 + x3 * k1, x2 * m0 + x3 * m1
                s_i, s_j = s_i + x4 * moving[i + outer], s_j + x4 * moving[j + outer]
                s_k, s_m = s_k + x4 * moving[k + outer], s_m + x4 * moving[m + outer]
                v_p = x0 * moving[p + low] + x1 * moving[p + high]
                v_q = x0 * moving[q + low] + x1 * moving[q + high]
                v_r = x0 * moving[r + low] + x1 * moving[r + high]
                v_s = x0 * moving[s + low] + x1 * moving[s + high]
                below, above = y0 * v_i + y1 * v_j, y0 * v_k + y1 * v_m
                residual = z0 * below + z1 * above - fixed[here + c]
                along_z = z2 * below + z3 * above + z4 * (y0 * v_r + y1 * v_s)
                along_y = z0 * (y2 * v_i + y3 * v_j + y4 * v_p)
                along_y += z1 * (y2 * v_k + y3 * v_m + y4 * v_q)
                along_x = z0 * (y0 * s_i + y1 * s_j) + z1 * (y0 * s_k + y1 * s_m)
                squares += residual * residual
                force_z += residual * along_z
                force_y += residual * along_y
                force_x += residual * along_x
            sums[0, x] += squares
            sums[1, x] += force_z
            sums[2, x] += force_y
            sums[3, x] += force_x

    return add


@njit(**KERNEL)
def _five(weights, x):
    return weights[0, x], weights[1, x], weights[2, x], weights[3, x], weights[4, x]


_four, _eight, _sixteen = _block(4), _block(8), _block(16)
