"""Gradient of mean, entropy, covariance and probabilities with respect to the last message."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, exp, f4
from triton_reg.ops._cpu.match_summary import highest


@njit(**KERNEL)
def summarise_plane_backward(message, plane, width, sharpness, gradients, slopes):
    """Replace a plane of messages by the gradient with respect to them.

    With ``q_l`` the gradient with respect to a probability, of all but the entropy, that of a logit
    is ``p_l (q_l - Σ_k p_k q_k - g_H (ln p_l + H))``. Three sweeps over a plane in the cache: for
    the sums of the softmax, for ``Σ p q``, and for the result.

    Args:
        message: ``[L, d, N]``, replaced there.
        plane: which plane to do.
        gradients: of mean ``[3, d, N]``, entropy ``[d, N]``, covariance ``[6, d, N]`` and
            probabilities ``[L, d, N]``, or ``[0, d, N]``.
        slopes: ``[N]`` float64, ``-Σ_l message dlogit`` is added.
    """
    of_mean, of_entropy, of_covariance, of_probabilities = gradients
    points, labels = message.shape[2], message.shape[0]
    top, power = np.empty(points, np.float32), np.empty(points, np.float32)
    share, base = np.empty(points, np.float32), np.empty(points, np.float32)
    linear, of_share = np.empty(points, np.float32), np.empty(points, np.float32)
    sums = np.zeros((6, points), np.float32)
    highest(message, plane, sharpness, top)
    for label in range(labels):
        steps = _steps(label, width)
        _powers(message[label, plane], sharpness, top, power)
        for i in range(points):
            share[i] = exp(power[i])
            sums[0, i] += share[i]
            sums[1, i] += share[i] * power[i]
            sums[2, i] += share[i] * steps[0]
            sums[3, i] += share[i] * steps[1]
            sums[4, i] += share[i] * steps[2]
    total, information, mean = sums[0], sums[1], sums[2:5]
    _settle(total, information, mean)
    expected = sums[5]
    for sweep in range(2):
        for label in range(labels):
            z, y, x = _steps(label, width)
            if label % width == 0:
                _along_line(of_mean, of_covariance, plane, mean, (z, y), base, linear)
            curve = of_covariance[2, plane]
            _powers(message[label, plane], sharpness, top, power)
            for i in range(points):
                share[i] = exp(power[i]) * total[i]
                power[i] += information[i]  # ln p + H
            for i in range(points):
                of_share[i] = base[i] + x * (linear[i] + x * curve[i])
            if of_probabilities.shape[0] > 0:
                given = of_probabilities[label, plane]
                for i in range(points):
                    of_share[i] += given[i]
            if sweep == 0:
                for i in range(points):
                    expected[i] += share[i] * of_share[i]
            else:
                for i in range(points):
                    share[i] *= of_share[i] - expected[i] - of_entropy[plane, i] * power[i]
                _finish(share, sharpness, top, message[label, plane], slopes)


@njit(**KERNEL)
def _steps(label, width):
    radius = width // 2
    z, y, x = label // (width * width), label // width % width, label % width
    return f4(z - radius), f4(y - radius), f4(x - radius)


@njit(**KERNEL)
def _powers(message, sharpness, top, power):
    for i in range(power.shape[0]):
        power[i] = -sharpness * message[i] - top[i]


@njit(**KERNEL)
def _settle(total, information, mean):
    """From sums to ``1 / Σ e``, what ``power`` lacks of ``ln p + H``, and means."""
    for i in range(total.shape[0]):
        share = f4(1) / total[i]
        # ln p = power - ln Σ e and H = ln Σ e - Σ e power / Σ e
        information[i] = -information[i] * share
        total[i] = share
        for axis in range(3):
            mean[axis, i] *= share


@njit(**KERNEL)
def _along_line(of_mean, of_covariance, plane, mean, steps, base, linear):
    """``q`` of a line of labels is ``base + x linear + x² curve``, but for given probabilities."""
    z, y = steps
    for i in range(base.shape[0]):
        zz, yy, xx = (
            of_covariance[0, plane, i],
            of_covariance[1, plane, i],
            of_covariance[2, plane, i],
        )
        zy, zx, yx = (
            of_covariance[3, plane, i],
            of_covariance[4, plane, i],
            of_covariance[5, plane, i],
        )
        m_z, m_y, m_x = mean[0, i], mean[1, i], mean[2, i]
        pull_z = of_mean[0, plane, i] - f4(2) * zz * m_z - zy * m_y - zx * m_x
        pull_y = of_mean[1, plane, i] - f4(2) * yy * m_y - zy * m_z - yx * m_x
        pull_x = of_mean[2, plane, i] - f4(2) * xx * m_x - zx * m_z - yx * m_y
        base[i] = z * (pull_z + z * zz + y * zy) + y * (pull_y + y * yy)
        linear[i] = pull_x + z * zx + y * yx


@njit(**KERNEL)
def _finish(of_logit, sharpness, top, message, slopes):
    # all messages of a point may move together: relative to the lowest, the sum loses nothing
    inverse = f4(0) if sharpness == f4(0) else f4(1) / sharpness
    for i in range(message.shape[0]):
        above = message[i] + top[i] * inverse
        slopes[i] -= np.float64(of_logit[i]) * np.float64(above)
        message[i] = -sharpness * of_logit[i]
