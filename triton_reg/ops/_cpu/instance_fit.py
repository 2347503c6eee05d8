"""Adam on a displacement that should be likely and smooth, all steps in one kernel."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4
from triton_reg.ops._cpu.layout import crop, pad, padded_size

_FIRST, _SECOND, _TINY = 0.9, 0.999, f4(1e-8)  # Adam's decay rates and what it adds to the root


def instance_fit(probabilities, mean, label_step, settings):
    """See :func:`triton_reg.ops.instance_fit.instance_fit`; ``[B, 3, d, h, w]`` in label steps."""
    fitted = np.empty_like(mean)
    unit = np.array(label_step, np.float32)
    for pair in range(len(mean)):
        fields = np.zeros((5, 3, padded_size(mean.shape[2:], 1)), np.float32)
        pad(mean[pair] * unit[:, None, None, None], f4(1), 1, fields[0])
        likely = probabilities[pair].reshape(probabilities.shape[1], -1)
        rates = settings.iterations, settings.learning_rate, f4(settings.smoothness)
        _fit(likely, unit, rates, mean.shape[2:], fields)
        crop(fields[1], 1, fitted[pair])
    return fitted / unit[:, None, None, None]


@njit(**KERNEL)
def _fit(probabilities, unit, rates, shape, fields):
    """All steps of one pair.

    Args:
        probabilities: ``[L, N]``.
        unit: ``[3]``, a label step in the unit of the parameters.
        rates: iterations, learning rate and smoothness.
        shape: ``(d, h, w)``.
        fields: bordered ``[5, 3, P]``: parameters, what they give (found here), its gradient, and
            Adam's two moments; zero but for the parameters.
    """
    iterations, learning_rate, smoothness = rates
    parameters, fitted, gradient = fields[0], fields[1], fields[2]
    first, second = fields[3], fields[4]
    half = np.zeros(parameters.shape[1], np.float32)
    for iteration in range(1, iterations + 1):
        for axis in range(3):
            _mean(parameters[axis], shape, half)
            _mean(half, shape, fitted[axis])
        if iteration == iterations:  # nothing reads parameters that another step would move
            break
        gradient[:] = 0
        _likelihood_gradient(probabilities, fitted, unit, shape, gradient)
        step = f4(learning_rate / (1 - _FIRST**iteration))
        root = f4(1 / np.sqrt(1 - _SECOND**iteration))
        for axis in range(3):
            _roughness_gradient(fitted[axis], smoothness, shape, gradient[axis])
            # a mean over neighbours with zeros outside is its own transpose
            _mean(gradient[axis], shape, half)
            _mean(half, shape, gradient[axis])
            _adam(parameters[axis], gradient[axis], first[axis], second[axis], step, root)


@njit(**KERNEL)
def _mean(field, shape, out):
    """Mean over 3 x 3 x 3 points with zeros outside; bordered ``[P]`` to bordered ``[P]``."""
    depth, height, width = shape
    row = width + 2
    plane = (height + 2) * row
    inside = height * row
    deep, high = np.zeros(plane, np.float32), np.zeros(plane, np.float32)
    for z in range(depth):
        below, here, above = field[z * plane :], field[(z + 1) * plane :], field[(z + 2) * plane :]
        for i in range(plane):
            deep[i] = below[i] + here[i] + above[i]
        before, after, middle = deep, deep[2 * row :], deep[row:]
        target = high[row:]
        for i in range(inside):
            target[i] = before[i] + middle[i] + after[i]
        left, right, result = high[row - 1 :], high[row + 1 :], out[(z + 1) * plane + row :]
        for i in range(inside):
            result[i] = (left[i] + target[i] + right[i]) * f4(1 / 27)
        for begin in range(0, inside, row):
            result[begin] = result[begin + row - 1] = 0


@njit(**KERNEL)
def _likelihood_gradient(probabilities, fitted, unit, shape, gradient):
    """Subtract the gradient of the mean probability, which is 0 beyond the labels.

    On a label the derivative is the one towards the next label, as of a linear interpolation.
    """
    depth, height, width = shape
    labels = round(probabilities.shape[0] ** (1 / 3))
    radius, share = f4(labels // 2), f4(-1.0 / (depth * height * width))
    for z in range(depth):
        for y in range(height):
            begin = ((z + 1) * (height + 2) + y + 1) * (width + 2) + 1
            point = (z * height + y) * width
            for x in range(width):
                where = (
                    fitted[0, begin + x] / unit[0] + radius,
                    fitted[1, begin + x] / unit[1] + radius,
                    fitted[2, begin + x] / unit[2] + radius,
                )
                slopes = _slopes(probabilities, point + x, labels, where)
                gradient[0, begin + x] = share * slopes[0] / unit[0]
                gradient[1, begin + x] = share * slopes[1] / unit[1]
                gradient[2, begin + x] = share * slopes[2] / unit[2]


@njit(**KERNEL)
def _slopes(probabilities, point, labels, where):
    """Derivatives of a point's probability along the three label axes at a position."""
    lower_z, lower_y, lower_x = np.floor(where[0]), np.floor(where[1]), np.floor(where[2])
    w_z, w_y, w_x = where[0] - lower_z, where[1] - lower_y, where[2] - lower_x
    a, b, c = np.int64(lower_z), np.int64(lower_y), np.int64(lower_x)
    along_z = along_y = along_x = f4(0)
    for up_z in range(2):
        for up_y in range(2):
            for up_x in range(2):
                z, y, x = a + up_z, b + up_y, c + up_x
                if 0 <= z < labels and 0 <= y < labels and 0 <= x < labels:
                    value = probabilities[(z * labels + y) * labels + x, point]
                    share_z = w_z if up_z else f4(1) - w_z
                    share_y = w_y if up_y else f4(1) - w_y
                    share_x = w_x if up_x else f4(1) - w_x
                    along_z += (value if up_z else -value) * share_y * share_x
                    along_y += (value if up_y else -value) * share_z * share_x
                    along_x += (value if up_x else -value) * share_z * share_y
    return along_z, along_y, along_x


@njit(**KERNEL)
def _roughness_gradient(field, smoothness, shape, gradient):
    """Add the gradient of ``smoothness Σ_axes mean (∂field)²``, means over three components."""
    depth, height, width = shape
    row = width + 2
    plane = (height + 2) * row
    factor = f4(2) * smoothness / f4(3 * depth * height * width)
    rate_z = factor * f4(depth) / f4(max(depth - 1, 1))
    rate_y = factor * f4(height) / f4(max(height - 1, 1))
    rate_x = factor * f4(width) / f4(max(width - 1, 1))
    for z in range(depth):
        for y in range(height):
            begin = (z + 1) * plane + (y + 1) * row + 1
            end = begin + width
            out = gradient[begin:end]
            if z > 0:
                _add_difference(field[begin:end], field[begin - plane : end - plane], rate_z, out)
            if z < depth - 1:
                _add_difference(field[begin:end], field[begin + plane : end + plane], rate_z, out)
            if y > 0:
                _add_difference(field[begin:end], field[begin - row : end - row], rate_y, out)
            if y < height - 1:
                _add_difference(field[begin:end], field[begin + row : end + row], rate_y, out)
            left, right = field[begin : end - 1], field[begin + 1 : end]
            _add_difference(left, right, rate_x, gradient[begin : end - 1])
            _add_difference(right, left, rate_x, gradient[begin + 1 : end])


@njit(**KERNEL)
def _add_difference(here, there, rate, out):
    for i in range(out.shape[0]):
        out[i] += rate * (here[i] - there[i])


@njit(**KERNEL)
def _adam(parameters, gradient, first, second, step, root):
    keep_first, keep_second = f4(_FIRST), f4(_SECOND)
    add_first, add_second = f4(1 - _FIRST), f4(1 - _SECOND)
    for i in range(parameters.shape[0]):
        first[i] = keep_first * first[i] + add_first * gradient[i]
        second[i] = keep_second * second[i] + add_second * gradient[i] * gradient[i]
        parameters[i] -= step * first[i] / (np.sqrt(second[i]) * root + _TINY)
