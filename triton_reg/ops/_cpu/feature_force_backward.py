"""The gradient of a gradient: what feature_force's results change by with features and vectors.

With the residual ``r`` of a channel, slopes ``d_i`` of its sample, and ``u`` for what the cotangent
of the gradient says along the moving axes, the results add up to ``k (r Σ u_i d_i + l r² / 2)``
over channels: linear in the voxels that a sample reads, by weights that vary with its position.
"""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, REORDERED, f4
from triton_reg.ops._cpu.feature_force import in_blocks
from triton_reg.ops._cpu.taps import inside, row_positions, row_taps, tables_of

# lower, upper and outer voxel along each axis: at most one is an outer one
_TAPS = np.array(
    [(z, y, x) for z in range(3) for y in range(3) for x in range(3) if [z, y, x].count(2) < 2]
)
# of a tap: of the sample, of u times the slopes, and their three derivatives each
_VALUE, _ALONG, _VALUE_BY, _ALONG_BY, _KINDS = 0, 1, 2, 5, 8


def feature_force_backward(given, symmetric, cotangents, wanted):
    """Gradients with respect to fixed, moving and vectors, laid out as they are.

    Args:
        given: fixed, moving, vectors, placement, weights and active, see
            :func:`triton_reg.ops._cpu.feature_force.feature_force`.
        symmetric: which derivative.
        cotangents: with respect to the loss ``[B]`` and the gradient, as vectors.
        wanted: which of the three; the others are arrays without elements.
    """
    fixed, moving, vectors, placement, weights, active = given
    channels, mean = fixed.shape[-1], f4(1 / fixed[0].size)
    fixed, moving = in_blocks(fixed), in_blocks(moving)
    nothing, one = (len(fixed), 0, 0, 0, 0), np.ones((1, 1, 1), np.float32)
    found = [
        np.zeros(tensor.shape if want else nothing, np.float32)
        for tensor, want in zip((fixed, moving, vectors), wanted, strict=True)
    ]
    for pair in range(len(fixed)):
        if active is None or active[pair]:
            weight = one if weights is None else weights[pair]
            tensors = fixed[pair], moving[pair], vectors[pair], placement[pair], weight
            seeds = f4(cotangents[0][pair]), cotangents[1][pair]
            _pair_backward(tensors, mean, symmetric, seeds, tuple(one[pair] for one in found))
    return [np.ascontiguousarray(one[..., :channels]) for one in found[:2]] + found[2:]


@njit(**KERNEL)
def _pair_backward(tensors, mean, symmetric, cotangents, found):
    """One pair; features ``[*n, C]``."""
    fixed, moving, vectors, placement, weight = tensors
    of_loss, of_gradient = cotangents
    of_fixed, of_moving, of_vectors = found
    depth, height, width, channels = fixed.shape
    tables = tables_of(width)
    index = np.empty((len(_TAPS), width), np.uint64)
    taps = np.empty((len(_TAPS), _KINDS, width), np.float32)
    residual, along = np.empty(channels, np.float32), np.empty(channels, np.float32)
    force, flat = np.empty((3, width), np.float32), moving.reshape(moving.size)
    splat = of_moving.reshape(of_moving.size)
    for z in range(depth):
        for y in range(height):
            row_taps(vectors, placement, (z, y), moving.shape, symmetric, tables)
            towards = _towards(of_gradient, placement, z, y)
            kinds = _row_kinds(vectors, placement, (z, y), moving.shape, symmetric, tables)
            _row_weights(tables[1], moving.shape, kinds, towards, index, taps)
            for x in range(width):
                share = f4(2) * mean * (weight[0, 0, 0] if weight.size == 1 else weight[z, y, x])
                _sample(fixed[z, y, x], flat, index, taps, x, residual, along)
                for c in range(channels):
                    residual[c] *= share
                    along[c] = share * along[c] + of_loss * residual[c]
                if of_fixed.size > 0:
                    of_fixed[z, y, x] = -along
                if of_moving.size > 0:
                    _splat(residual, along, index, taps, x, splat)
                if of_vectors.size > 0:
                    _turn(flat, residual, along, index, taps, x, force)
            if of_vectors.size > 0:
                _lead(force, placement, z, y, of_vectors)


@njit(**KERNEL)
def _towards(of_gradient, placement, z, y):
    """A row of the cotangent along the moving axes, ``[3, W]``."""
    towards = np.zeros((3, of_gradient.shape[3]), np.float32)
    for axis in range(3):
        for lead in range(3):
            share, source = f4(placement[axis, 4 + lead]), of_gradient[lead, z, y]
            for x in range(source.shape[0]):
                towards[axis, x] += share * source[x]
    return towards


@njit(**KERNEL)
def _row_kinds(vectors, placement, where, layout, symmetric, tables):
    """Of each axis and its three taps: weight of sample and slope and their derivatives.

    Returns:
        ``[3, 3, 4, W]``.
    """
    position, _, weights = tables
    kinds = np.empty((3, 3, 4, position.shape[0]), np.float32)
    for axis in range(3):
        row_positions(vectors, placement[axis], where, position)
        _axis_kinds(position, layout[axis], symmetric, weights[axis], kinds[axis])
    return kinds


@njit(**KERNEL)
def _row_weights(places, layout, kinds, towards, index, taps):
    """Fill ``index [20, W]`` and the taps' weights ``[20, 8, W]``."""
    plane = np.uint64(layout[1] * layout[2] * layout[3])
    for tap in range(len(_TAPS)):
        a, b, c = _TAPS[tap]
        for x in range(index.shape[1]):
            row = np.uint64(places[0, a, x]) * plane + np.uint64(places[1, b, x])
            index[tap, x] = row + np.uint64(places[2, c, x])
        _tap_weights(kinds[0, a], kinds[1, b], kinds[2, c], towards, taps[tap])


@njit(**KERNEL)
def _axis_kinds(position, size, symmetric, weights, kinds):
    last, zero = f4(size - 1), f4(0)
    bend = f4(1) if symmetric else zero
    for x in range(position.shape[0]):
        low = np.floor(position[x])
        above = position[x] - low >= f4(0.5)
        low_in, high_in = inside(low, last), inside(low + f4(1), last)
        outer_in = inside(low + f4(2) if above else low - f4(1), last)
        kinds[0, 0, x], kinds[1, 0, x], kinds[2, 0, x] = weights[0, x], weights[1, x], zero
        kinds[0, 1, x], kinds[1, 1, x], kinds[2, 1, x] = weights[2, x], weights[3, x], weights[4, x]
        kinds[0, 2, x], kinds[1, 2, x], kinds[2, 2, x] = -low_in, high_in, zero
        kinds[0, 3, x] = (bend if above else f4(-2) * bend) * low_in
        kinds[1, 3, x] = (f4(-2) * bend if above else bend) * high_in
        kinds[2, 3, x] = bend * outer_in


@njit(**KERNEL)
def _tap_weights(in_z, in_y, in_x, towards, out):
    """The ``[8, W]`` weights of one tap from those ``[4, W]`` of its axes."""
    for x in range(out.shape[1]):
        u_z, u_y, u_x = towards[0, x], towards[1, x], towards[2, x]
        v_z, s_z, dv_z, ds_z = in_z[0, x], u_z * in_z[1, x], in_z[2, x], u_z * in_z[3, x]
        v_y, s_y, dv_y, ds_y = in_y[0, x], u_y * in_y[1, x], in_y[2, x], u_y * in_y[3, x]
        v_x, s_x, dv_x, ds_x = in_x[0, x], u_x * in_x[1, x], in_x[2, x], u_x * in_x[3, x]
        out[0, x] = v_z * v_y * v_x
        out[1, x] = s_z * v_y * v_x + v_z * (s_y * v_x + v_y * s_x)
        out[2, x] = dv_z * v_y * v_x
        out[3, x] = v_z * dv_y * v_x
        out[4, x] = v_z * v_y * dv_x
        out[5, x] = ds_z * v_y * v_x + dv_z * (s_y * v_x + v_y * s_x)
        out[6, x] = (s_z * dv_y + v_z * ds_y) * v_x + v_z * dv_y * s_x
        out[7, x] = (s_z * v_y + v_z * s_y) * dv_x + v_z * v_y * ds_x


@njit(**KERNEL)
def _sample(fixed, moving, index, taps, x, residual, along):
    """Residuals and slopes along u of all channels of a voxel."""
    for c in range(fixed.shape[0]):
        residual[c] = -fixed[c]
        along[c] = 0
    for tap in range(index.shape[0]):
        here = moving[index[tap, x] :]
        value, slope = taps[tap, _VALUE, x], taps[tap, _ALONG, x]
        for c in range(residual.shape[0]):
            residual[c] += value * here[c]
            along[c] += slope * here[c]


@njit(**KERNEL)
def _splat(residual, along, index, taps, x, of_moving):
    for tap in range(index.shape[0]):
        target = of_moving[index[tap, x] :]
        value, slope = taps[tap, _VALUE, x], taps[tap, _ALONG, x]
        for c in range(residual.shape[0]):
            target[c] += value * along[c] + slope * residual[c]


@njit(**REORDERED)
def _turn(moving, residual, along, index, taps, x, force):
    """Derivatives with respect to the position of voxel ``x`` into ``force [3, W]``."""
    force_z = force_y = force_x = f4(0)
    for tap in range(index.shape[0]):
        here = moving[index[tap, x] :]
        by_value = by_slope = f4(0)
        for c in range(residual.shape[0]):
            by_value += along[c] * here[c]
            by_slope += residual[c] * here[c]
        force_z += taps[tap, _VALUE_BY, x] * by_value + taps[tap, _ALONG_BY, x] * by_slope
        force_y += taps[tap, _VALUE_BY + 1, x] * by_value + taps[tap, _ALONG_BY + 1, x] * by_slope
        force_x += taps[tap, _VALUE_BY + 2, x] * by_value + taps[tap, _ALONG_BY + 2, x] * by_slope
    force[0, x], force[1, x], force[2, x] = force_z, force_y, force_x


@njit(**KERNEL)
def _lead(force, placement, z, y, out):
    """Gradients with respect to positions to those with respect to vectors."""
    for axis in range(3):
        lead_z, lead_y = f4(placement[0, 4 + axis]), f4(placement[1, 4 + axis])
        lead_x, target = f4(placement[2, 4 + axis]), out[axis, z, y]
        for x in range(force.shape[1]):
            target[x] = lead_z * force[0, x] + lead_y * force[1, x] + lead_x * force[2, x]
