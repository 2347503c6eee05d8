"""One step of an optimiser on a vector field."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4
from triton_reg.ops._cpu.compose import NEAR, compose_bordered, compose_far, longest_component
from triton_reg.ops._cpu.gaussian import (
    enter_plane,
    fill_plane,
    leave_plane,
    plane_buffers,
    plane_row,
    smooth_volume,
)
from triton_reg.ops._cpu.layout import crop, padded_size, scratch, zero_border


def advance(vectors, gradient, moments, active, settings, taps):
    """See :func:`triton_reg.ops.advance.advance`.

    Args:
        vectors, gradient: ``[B, 3, D, H, W]``.
        moments: two arrays like them and the number of steps ``[B]``, changed in place.
        active: ``[B]`` or None.
        settings: see :class:`triton_reg.ops.advance.StepSettings`.
        taps: of the gradient's smoothing and of the vectors', three float32 arrays each.
    """
    first, second, steps = moments
    moved = np.empty_like(vectors)
    for pair in range(len(vectors)):
        if active is not None and not active[pair]:
            moved[pair] = vectors[pair]
            continue
        steps[pair] += 1
        given = gradient[pair], first[pair], second[pair]
        rates = _rates(settings, int(steps[pair]))
        step = _add if settings.update == "add" else _compose
        step(vectors[pair], given, rates, settings, taps, moved[pair])
    return moved


def _rates(settings, steps):
    """What Adam keeps and adds of both means, the two bias corrections, and what it adds."""
    if settings.optimiser == "sgd":
        return None
    first, second = settings.betas
    kept = first, 1 - first, second, 1 - second
    corrections = 1 / (1 - first**steps), 1 / (1 - second**steps) ** 0.5
    return np.array([*kept, *corrections, settings.eps], np.float32)


def _add(vectors, given, rates, settings, taps, out):
    """Subtract the step and smooth, component by component."""
    shape = vectors.shape[1:]
    target = scratch("moved vectors", *shape)
    planes = plane_buffers("smoothed gradient", shape, taps[0])
    others = plane_buffers("smoothed vectors", shape, taps[1])
    for axis, unit in enumerate(settings.unit):
        one = given[0][axis], given[1][axis], given[2][axis]
        flat = target.reshape(-1)
        _direct(*one, rates, f4(unit), taps[0], planes, 0, flat)
        _subtract(vectors[axis].reshape(-1), f4(settings.rate * unit), flat)
        smooth_volume(target, taps[1], others, out[axis])


def _compose(vectors, given, rates, settings, taps, out):
    """Move by the step, then by the vectors, and smooth."""
    shape = vectors.shape[1:]
    directions = scratch("directions", 3, padded_size(shape, 1))
    planes = plane_buffers("smoothed gradient", shape, taps[0])
    for axis, unit in enumerate(settings.unit):
        one = given[0][axis], given[1][axis], given[2][axis]
        _direct(*one, rates, f4(unit), taps[0], planes, 1, directions[axis])
    zero_border(directions, shape[0], shape[1], shape[2], 1)
    longest = max(float(np.sqrt(_longest_square(directions))) + settings.eps, 1)
    for axis, unit in enumerate(settings.unit):
        directions[axis] *= f4(-settings.rate * unit / longest)
    composed = scratch("moved vectors", *vectors.shape)
    if longest_component(directions) <= NEAR:
        compose_bordered(directions, vectors, (*shape, 1), composed)
    else:
        step = np.empty_like(vectors)
        crop(directions, 1, step)
        compose_far(step, vectors, composed)
    others = plane_buffers("smoothed vectors", shape, taps[1])
    for axis in range(3):
        smooth_volume(composed[axis], taps[1], others, out[axis])


@njit(**KERNEL)
def _direct(gradient, first, second, rates, unit, taps, planes, border, out):
    """One component of the direction, and its moments moved on.

    Args:
        gradient, first, second: ``[D, H, W]``.
        rates: see :func:`_rates`; None takes the gradient itself.
        unit: by which the smoothed gradient is multiplied.
        taps, planes: see :func:`triton_reg.ops._cpu.gaussian.smooth_volume`.
        border: of ``out``, a bordered volume.
    """
    depth, height, width = gradient.shape
    reach, row = taps[0].shape[0] // 2, width + 2 * border
    planes[0, :] = 0
    for z in range(depth + reach):
        if z < depth:
            fill_plane(gradient[z], taps, planes[0])
            enter_plane(z, taps, planes, gradient.shape)
        at = z - reach
        if at < 0:
            continue
        leave_plane(at, taps, planes, gradient.shape)
        for y in range(height):
            begin = ((at + border) * (height + 2 * border) + y + border) * row + border
            source, target = plane_row(planes[2], y, taps, width), out[begin : begin + width]
            if rates is None:
                for x in range(width):
                    target[x] = source[x] * unit
            else:
                _adam(source, unit, first[at, y], second[at, y], rates, target)


@njit(**KERNEL)
def _adam(gradient, unit, first, second, rates, out):
    keep_first, add_first, keep_second, add_second = rates[0], rates[1], rates[2], rates[3]
    correction, root, eps = rates[4], rates[5], rates[6]
    for x in range(out.shape[0]):
        here = gradient[x] * unit
        first[x] = keep_first * first[x] + add_first * here
        second[x] = keep_second * second[x] + add_second * here * here
        out[x] = first[x] * correction / (np.sqrt(second[x]) * root + eps)


@njit(**KERNEL)
def _subtract(vectors, rate, out):
    """``vectors - rate out``, in place of ``out``."""
    for i in range(out.shape[0]):
        out[i] = vectors[i] - rate * out[i]


@njit(**KERNEL)
def _longest_square(directions):
    """Largest squared length."""
    longest = f4(0)
    for i in range(directions.shape[1]):
        z, y, x = directions[0, i], directions[1, i], directions[2, i]
        longest = max(longest, z * z + y * y + x * x)
    return longest
