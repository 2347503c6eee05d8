"""Gradients of linear samples, zero outside, with respect to volume and displacement."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4


def warp_backward(volume, displacement, gradient):
    """See :func:`triton_reg.ops.warp.warp` with linear interpolation and zeros outside.

    Args:
        volume: ``[B, C, *m]``.
        displacement: ``[B, 3, D, H, W]``.
        gradient: with respect to the warped volume, ``[B, C, D, H, W]``.

    Returns:
        Those with respect to volume and displacement.
    """
    of_volume, of_displacement = np.zeros_like(volume), np.empty_like(displacement)
    for pair in range(len(volume)):
        _pair_backward(
            volume[pair], displacement[pair], gradient[pair], of_volume[pair], of_displacement[pair]
        )
    return of_volume, of_displacement


@njit(**KERNEL)
def _pair_backward(volume, displacement, gradient, of_volume, of_displacement):
    channels, depth, height, width = volume.shape
    _, fixed_depth, fixed_height, fixed_width = displacement.shape
    flat, splat = volume.reshape(channels, -1), of_volume.reshape(channels, -1)
    step_z = (depth - 1) / max(fixed_depth - 1, 1)
    step_y = (height - 1) / max(fixed_height - 1, 1)
    step_x = (width - 1) / max(fixed_width - 1, 1)
    places, values, slopes = (
        np.empty(8, np.int64),
        np.empty(8, np.float32),
        np.empty((3, 8), np.float32),
    )
    for z in range(fixed_depth):
        for y in range(fixed_height):
            for x in range(fixed_width):
                u_z, u_y, u_x = (
                    displacement[0, z, y, x],
                    displacement[1, z, y, x],
                    displacement[2, z, y, x],
                )
                in_z = _two(f4(z * step_z) + u_z, depth)
                in_y = _two(f4(y * step_y) + u_y, height)
                in_x = _two(f4(x * step_x) + u_x, width)
                _corners(in_z, in_y, in_x, height, width, places, values, slopes)
                along_z = along_y = along_x = f4(0)
                for c in range(channels):
                    here = gradient[c, z, y, x]
                    for corner in range(8):
                        value = flat[c, places[corner]] * here
                        along_z += slopes[0, corner] * value
                        along_y += slopes[1, corner] * value
                        along_x += slopes[2, corner] * value
                        splat[c, places[corner]] += values[corner] * here
                of_displacement[0, z, y, x] = along_z
                of_displacement[1, z, y, x] = along_y
                of_displacement[2, z, y, x] = along_x


@njit(**KERNEL)
def _two(position, size):
    """The two voxels around a position, their weights and these weights' derivatives.

    Along an axis of one voxel a sample stays on it.
    """
    if size == 1:
        return 0, 0, f4(1), f4(0), f4(0), f4(0)
    low = np.floor(position)
    t, last = position - low, f4(size - 1)
    low_in = f4(1) if low >= 0 and low <= last else f4(0)
    high_in = f4(1) if low >= -1 and low < last else f4(0)
    # a comparison with NaN is false: the index stays inside, the weights become NaN
    inside = low if low > 0 else f4(0)
    inside = last if inside > last else inside
    above = low + f4(1) if low > -1 else f4(0)
    above = last if above > last else above
    return np.int64(inside), np.int64(above), (f4(1) - t) * low_in, t * high_in, -low_in, high_in


@njit(**KERNEL)
def _corners(in_z, in_y, in_x, height, width, places, values, slopes):
    for corner in range(8):
        up_z, up_y, up_x = corner // 4, corner // 2 % 2, corner % 2
        z, v_z, s_z = _chosen(in_z, up_z)
        y, v_y, s_y = _chosen(in_y, up_y)
        x, v_x, s_x = _chosen(in_x, up_x)
        places[corner] = (z * height + y) * width + x
        values[corner] = v_z * v_y * v_x
        slopes[0, corner] = s_z * v_y * v_x
        slopes[1, corner] = v_z * s_y * v_x
        slopes[2, corner] = v_z * v_y * s_x


@njit(**KERNEL)
def _chosen(two, up):
    if up:
        return two[1], two[3], two[5]
    return two[0], two[2], two[4]
