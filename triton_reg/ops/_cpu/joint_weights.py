"""Weights of joint label fusion, voxel by voxel.

A voxel's patches are copied into rows of a small buffer first: all that follows are loops over
whole rows, which vectorise, and sums of some hundred numbers of one size, whose order is left open.
"""

import math

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, REORDERED, f4


def joint_weights(
    volumes: np.ndarray,
    voxels: np.ndarray,
    positions: np.ndarray,
    radius: int,
    alpha: float,
    beta: int,
    flat: float,
) -> np.ndarray:
    """Weights ``[V, N]``; ``volumes [1 + N, ...]`` have a border of ``radius``, target first."""
    weights = np.empty(positions.shape, np.float32)
    _weigh(volumes, voxels, positions, 2 * radius + 1, alpha, beta, f4(flat), weights)
    return weights


@njit(**REORDERED)
def _weigh(volumes, voxels, positions, side, alpha, beta, flat, weights):
    count, share = positions.shape[1], f4(1) / f4(side**3)
    own, errors = np.empty(side**3, np.float32), np.empty((count, side**3), np.float32)
    matrix, found = np.empty((count, count), np.float64), np.empty(count, np.float64)
    for v in range(voxels.shape[0]):
        _standard(volumes[0], voxels[v], side, flat, own)
        for atlas in range(count):
            row = errors[atlas]
            _standard(volumes[atlas + 1], positions[v, atlas], side, flat, row)
            for k in range(own.shape[0]):
                row[k] = abs(own[k] - row[k])
            for earlier in range(atlas + 1):
                matrix[atlas, earlier] = np.float64(_dot(row, errors[earlier]) * share) ** beta
            matrix[atlas, atlas] += alpha
        _solve_ones(matrix, found)
        total = 0.0
        for atlas in range(count):
            total += found[atlas]
        for atlas in range(count):
            weights[v, atlas] = f4(found[atlas] / total)


@njit(**REORDERED)
def _standard(volume, position, side, flat, out):
    """The patch around a voxel with mean 0 and variance 1; zeros if it is flat."""
    height, width = volume.shape[1] - side + 1, volume.shape[2] - side + 1
    rest, x = divmod(position, width)
    z, y = divmod(rest, height)
    k = 0
    for a in range(z, z + side):
        for b in range(y, y + side):
            row = volume[a, b]
            for c in range(x, x + side):
                out[k] = row[c]
                k += 1
    share, mean, variance = f4(1) / f4(out.shape[0]), f4(0), f4(0)
    for k in range(out.shape[0]):
        mean += out[k]
    mean *= share
    for k in range(out.shape[0]):
        out[k] -= mean
        variance += out[k] * out[k]
    variance *= share
    scale = f4(1) / math.sqrt(variance) if variance > flat else f4(0)
    for k in range(out.shape[0]):
        out[k] *= scale


@njit(**REORDERED)
def _dot(first, second):
    total = f4(0)
    for k in range(first.shape[0]):
        total += first[k] * second[k]
    return total


@njit(**KERNEL)
def _solve_ones(matrix, found):
    """Solve ``matrix found = 1`` by Cholesky's decomposition, in the lower half of ``matrix``.

    The elementwise power of a Gram matrix is positive semidefinite (Schur), and the diagonal has
    been raised, so that no pivot is zero.
    """
    count = found.shape[0]
    for i in range(count):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = math.sqrt(total) if i == j else total / matrix[j, j]
    for i in range(count):
        total = 1.0
        for k in range(i):
            total -= matrix[i, k] * found[k]
        found[i] = total / matrix[i, i]
    for i in range(count - 1, -1, -1):
        total = found[i]
        for k in range(i + 1, count):
            total -= matrix[k, i] * found[k]
        found[i] = total / matrix[i, i]
