"""All that is measured of a displacement's derivatives, in one sweep over it."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4
from triton_reg.ops._cpu.jacobian import determinant_line


@njit(**KERNEL)
def sweep(vectors, spacing_mm, crop):
    """Determinants, lengths, and the means that ``metrics/deformation.py`` defines.

    Args:
        vectors: ``u``, ``[3, D, H, W]`` in voxels.
        spacing_mm: float32 ``[3]``.
        crop: voxels that the determinants leave out on each side, at least 1.

    Returns:
        The determinants ``[D - 2 crop, ...]`` and the lengths in mm ``[D, H, W]``, both flat; the
        share of the volume that is turned inside out; the bending energy in 1/mm².
    """
    _, depth, height, width = vectors.shape
    determinants = np.empty((depth - 2 * crop, height - 2 * crop, width - 2 * crop), np.float32)
    lengths = np.empty((depth, height, width), np.float32)
    inverted, bent = np.zeros(width - 1), np.zeros(width - 2)
    for z in range(depth):
        for y in range(height):
            _lengths(vectors, z, y, spacing_mm, lengths[z, y])
            if crop <= z < depth - crop and crop <= y < height - crop:
                determinant_line(vectors, z, y, crop, determinants[z - crop, y - crop])
            if z < depth - 1 and y < height - 1:
                _inverted(vectors, z, y, inverted)
            if 1 <= z < depth - 1 and 1 <= y < height - 1:
                _bent(vectors, z, y, spacing_mm, bent)
    cubes = (depth - 1) * (height - 1) * (width - 1)
    inner = (depth - 2) * (height - 2) * (width - 2)
    return determinants.ravel(), lengths.ravel(), inverted.sum() / (12 * cubes), bent.sum() / inner


@njit(**KERNEL)
def _lengths(vectors, z, y, spacing_mm, line):
    u, v, w = vectors[0, z, y], vectors[1, z, y], vectors[2, z, y]
    for x in range(line.shape[0]):
        a, b, c = u[x] * spacing_mm[0], v[x] * spacing_mm[1], w[x] * spacing_mm[2]
        line[x] = np.sqrt(a * a + b * b + c * c)


@njit(**KERNEL)
def _determinant(a, b, c, d, e, f, g, h, i):
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


@njit(**KERNEL)
def _inverted(vectors, z, y, inverted):
    """Six times the volumes that the cubes of a row turn inside out, added to ``inverted``."""
    one = f4(1)
    for x in range(inverted.shape[0]):
        turned = f4(0)
        # the eight tetrahedra at the corners: one-sided differences along the cube's edges
        for k in range(8):
            dz, dy, dx = k >> 2, (k >> 1) & 1, k & 1
            sz, sy, sx = f4(1 - 2 * dz), f4(1 - 2 * dy), f4(1 - 2 * dx)
            here = vectors[:, z + dz, y + dy, x + dx]
            other = vectors[:, z + 1 - dz, y + dy, x + dx]
            a, b, c = (
                (other[0] - here[0]) * sz + one,
                (other[1] - here[1]) * sz,
                (other[2] - here[2]) * sz,
            )
            other = vectors[:, z + dz, y + 1 - dy, x + dx]
            d, e, f = (
                (other[0] - here[0]) * sy,
                (other[1] - here[1]) * sy + one,
                (other[2] - here[2]) * sy,
            )
            other = vectors[:, z + dz, y + dy, x + 1 - dx]
            g, h, i = (
                (other[0] - here[0]) * sx,
                (other[1] - here[1]) * sx,
                (other[2] - here[2]) * sx + one,
            )
            turned -= min(_determinant(a, b, c, d, e, f, g, h, i), f4(0))
        # the two in the middle, between every other corner
        for far in range(2):
            s = f4(1 - 2 * far)
            here = vectors[:, z + far, y + far, x + far]
            first = vectors[:, z + 1 - far, y + 1 - far, x + far]
            second = vectors[:, z + 1 - far, y + far, x + 1 - far]
            third = vectors[:, z + far, y + 1 - far, x + 1 - far]
            middle = _determinant(
                *((first[0] - here[0]) * s + one, (first[1] - here[1]) * s + one),
                (first[2] - here[2]) * s,
                *((second[0] - here[0]) * s + one, (second[1] - here[1]) * s),
                (second[2] - here[2]) * s + one,
                *((third[0] - here[0]) * s, (third[1] - here[1]) * s + one),
                (third[2] - here[2]) * s + one,
            )
            turned -= min(-middle, f4(0))
        inverted[x] += turned


@njit(**KERNEL)
def _bent(vectors, z, y, spacing_mm, bent):
    """Squared second derivatives of a row's inner voxels, added to ``bent``."""
    for component in range(3):
        u, scale = vectors[component], spacing_mm[component]
        for x in range(bent.shape[0]):
            zz = u[z - 1, y, x + 1] - f4(2) * u[z, y, x + 1] + u[z + 1, y, x + 1]
            yy = u[z, y - 1, x + 1] - f4(2) * u[z, y, x + 1] + u[z, y + 1, x + 1]
            xx = u[z, y, x] - f4(2) * u[z, y, x + 1] + u[z, y, x + 2]
            zy = u[z + 1, y + 1, x + 1] - u[z + 1, y - 1, x + 1]
            zy = (zy - u[z - 1, y + 1, x + 1] + u[z - 1, y - 1, x + 1]) * f4(0.25)
            zx = u[z + 1, y, x + 2] - u[z + 1, y, x]
            zx = (zx - u[z - 1, y, x + 2] + u[z - 1, y, x]) * f4(0.25)
            yx = u[z, y + 1, x + 2] - u[z, y + 1, x]
            yx = (yx - u[z, y - 1, x + 2] + u[z, y - 1, x]) * f4(0.25)
            zz *= scale / (spacing_mm[0] * spacing_mm[0])
            yy *= scale / (spacing_mm[1] * spacing_mm[1])
            xx *= scale / (spacing_mm[2] * spacing_mm[2])
            zy *= scale / (spacing_mm[0] * spacing_mm[1])
            zx *= scale / (spacing_mm[0] * spacing_mm[2])
            yx *= scale / (spacing_mm[1] * spacing_mm[2])
            mixed = zy * zy + zx * zx + yx * yx
            bent[x] += zz * zz + yy * yy + xx * xx + f4(2) * mixed
