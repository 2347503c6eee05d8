"""Sums of the Jacobian determinant and its logarithm over a volume."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4, log


@njit(**KERNEL)
def jacobian_sums(vectors, crop, lowest):
    """Of ``det ∇(x + u)``: the voxels where it is not positive, and sums of ``ln`` and ``ln²``.

    Fast because nothing is stored: a row of determinants stays in the cache. The float64 sums have
    an accumulator for each column, so that additions vectorise without a change of their order.

    Args:
        vectors: ``u``, ``[3, D, H, W]`` in voxels.
        crop: voxels left out on each side, at least 1.
        lowest: determinants below it count as it in the logarithm.
    """
    _, depth, height, width = vectors.shape
    count = width - 2 * crop
    line = np.empty(count, np.float32)
    folded, total, squares = np.zeros(count), np.zeros(count), np.zeros(count)
    for z in range(crop, depth - crop):
        for y in range(crop, height - crop):
            determinant_line(vectors, z, y, crop, line)
            for x in range(count):
                folded[x] += line[x] <= 0
                # the difference is zero, or NaN where the determinant is not finite: log hides that
                value = np.float64(log(max(line[x], lowest)) + (line[x] - line[x]))
                total[x] += value
                squares[x] += value * value
    return folded.sum(), total.sum(), squares.sum()


@njit(**KERNEL)
def determinant_line(vectors, z, y, crop, line):
    """The determinants of one row, by central differences."""
    count, half, one = line.shape[0], f4(0.5), f4(1)
    u, v, w = vectors[0], vectors[1], vectors[2]
    end = crop + count
    u_z0, u_z1 = u[z - 1, y, crop:end], u[z + 1, y, crop:end]
    v_z0, v_z1 = v[z - 1, y, crop:end], v[z + 1, y, crop:end]
    w_z0, w_z1 = w[z - 1, y, crop:end], w[z + 1, y, crop:end]
    u_y0, u_y1 = u[z, y - 1, crop:end], u[z, y + 1, crop:end]
    v_y0, v_y1 = v[z, y - 1, crop:end], v[z, y + 1, crop:end]
    w_y0, w_y1 = w[z, y - 1, crop:end], w[z, y + 1, crop:end]
    u_x, v_x, w_x = u[z, y, crop - 1 :], v[z, y, crop - 1 :], w[z, y, crop - 1 :]
    for x in range(count):
        uz, uy = half * (u_z1[x] - u_z0[x]) + one, half * (u_y1[x] - u_y0[x])
        vz, vy = half * (v_z1[x] - v_z0[x]), half * (v_y1[x] - v_y0[x]) + one
        wz, wy = half * (w_z1[x] - w_z0[x]), half * (w_y1[x] - w_y0[x])
        ux, vx = half * (u_x[x + 2] - u_x[x]), half * (v_x[x + 2] - v_x[x])
        wx = half * (w_x[x + 2] - w_x[x]) + one
        line[x] = uz * (vy * wx - vx * wy) - uy * (vz * wx - vx * wz) + ux * (vz * wy - vy * wz)
