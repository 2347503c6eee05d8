"""Put displacements one after the other; integrate a velocity by scaling and squaring."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4
from triton_reg.ops._cpu.layout import crop, pad, padded_size, scratch, zero_border
from triton_reg.ops._cpu.warp import warp_linear

# voxels within which neighbours are enough; the filter's rounding may leave a one slightly above 1,
# where the weights extrapolate by as little
NEAR = 1 + 2e-6


def compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``first(x) + second(x + first(x))``, zero outside; ``[B, 3, D, H, W]`` in voxels."""
    composed = np.empty_like(first)
    for pair in range(len(first)):
        _compose_pair(first[pair], second[pair], composed[pair])
    return composed


def integrate(velocity: np.ndarray, steps: int = 7) -> np.ndarray:
    """Scaling and squaring of ``[B, 3, D, H, W]`` in voxels per unit time."""
    displacement = np.empty_like(velocity)
    for pair in range(len(velocity)):
        _integrate_pair(velocity[pair], steps, displacement[pair])
    return displacement


def _compose_pair(first, second, out):
    geometry = (*first.shape[1:], 1)
    bordered = scratch("compose first", 3, padded_size(first.shape[1:], 1))
    if longest_component(first) <= NEAR:
        pad(first, f4(1), 1, bordered)
        compose_bordered(bordered, second, geometry, out)
    else:
        compose_far(first, second, out)


def _integrate_pair(velocity, steps, out):
    bordered = scratch("compose first", 3, padded_size(velocity.shape[1:], 1))
    pad(velocity, f4(1), 1, bordered)
    now, left = integrate_bordered(bordered, steps, (*velocity.shape[1:], 1))
    crop(now, 1, out)
    square_far(out, left)


def integrate_bordered(velocity, steps, geometry):
    """Scale and square a bordered ``velocity [3, P]``, destroyed, while neighbours are near enough.

    A squaring at most doubles the longest component: the bound needs no look at the field.

    Returns:
        The displacement ``[3, P]`` in one of two scratch buffers, and the number of squarings that
        :func:`square_far` has still to do.
    """
    now, after = velocity, scratch("compose second", *velocity.shape)
    longest = longest_component(velocity) * 0.5**steps
    now *= f4(0.5**steps)
    left = steps
    while left > 0 and longest <= NEAR:
        compose_near(now, now, after, geometry)
        now, after = after, now
        longest *= 2
        left -= 1
    return now, left


def compose_bordered(first, second, geometry, out):
    """``first(x) + second(x + first(x))`` for a bordered ``first [3, P]`` within one voxel.

    ``second`` and ``out`` are ``[3, D, H, W]``.
    """
    border = geometry[3]
    bordered = scratch("compose third", *first.shape)
    composed = scratch("compose fourth", *first.shape)
    pad(second, f4(1), border, bordered)
    compose_near(first, bordered, composed, geometry)
    crop(composed, border, out)


def compose_far(first, second, out):
    """``first(x) + second(x + first(x))`` of ``[3, D, H, W]`` however long the vectors are."""
    warp_linear(second, first, False, out, 0)
    out += first


def square_far(displacement, times):
    """Compose ``displacement [3, D, H, W]`` with itself in place, ``times`` times."""
    for _ in range(times):
        compose_far(displacement.copy(), displacement.copy(), displacement)


def longest_component(field: np.ndarray) -> float:
    """Largest component by magnitude; NaN if there is one."""
    return float(max(field.max(), -field.min()))


@njit(**KERNEL)
def compose_near(first, second, out, geometry):
    """``out = first + second(x + first)`` where no component of ``first`` exceeds one voxel.

    Fast because every sample then lies among the 27 neighbours: the weights of a trilinear sample
    are hats, ``max(0, 1 - |t - o|)`` for ``o = -1, 0, 1``, and a sum over all 27 needs no index.

    Args:
        first, second, out: bordered ``[3, P]``.
        geometry: ``(D, H, W, border)``.
    """
    depth, height, width, border = geometry
    row = width + 2 * border
    plane = (height + 2 * border) * row
    count = (height - 1) * row + width
    reach = first
    if min(depth, height, width) == 1:
        reach = first.copy()
        for axis in range(3):
            if geometry[axis] == 1:  # no sample leaves its only voxel
                reach[axis, :] = f4(0)
    for z in range(depth):
        begin = (z + border) * plane + border * row + border
        for axis in range(3):
            own = first[axis, begin : begin + count]
            _near_plane(reach, second[axis], own, out[axis], row, plane, begin)
    zero_border(out, depth, height, width, border)


@njit(**KERNEL)
def _near_plane(reach, second, own, out, row, plane, begin):
    """One component of one plane; the nine rows around a voxel start one element to its left."""
    count = own.shape[0]
    t_z, t_y = reach[0, begin : begin + count], reach[1, begin : begin + count]
    t_x, target = reach[2, begin : begin + count], out[begin : begin + count]
    at, n = begin - 1, count + 2
    row_00 = second[at - plane - row : at - plane - row + n]
    row_01 = second[at - plane : at - plane + n]
    row_02 = second[at - plane + row : at - plane + row + n]
    row_10 = second[at - row : at - row + n]
    row_11 = second[at : at + n]
    row_12 = second[at + row : at + row + n]
    row_20 = second[at + plane - row : at + plane - row + n]
    row_21 = second[at + plane : at + plane + n]
    row_22 = second[at + plane + row : at + plane + row + n]
    for i in range(count):
        x = _hat(t_x[i])
        y0, y1, y2 = _hat(t_y[i])
        z0, z1, z2 = _hat(t_z[i])
        below = y0 * _three(row_00, i, x) + y1 * _three(row_01, i, x) + y2 * _three(row_02, i, x)
        here = y0 * _three(row_10, i, x) + y1 * _three(row_11, i, x) + y2 * _three(row_12, i, x)
        above = y0 * _three(row_20, i, x) + y1 * _three(row_21, i, x) + y2 * _three(row_22, i, x)
        target[i] = own[i] + (z0 * below + z1 * here + z2 * above)


@njit(**KERNEL)
def _hat(t):
    """Weights of the neighbours at -1, 0 and 1 for a sample at ``t`` in [-1, 1]."""
    low, high = max(-t, f4(0)), max(t, f4(0))
    return low, f4(1) - low - high, high


@njit(**KERNEL)
def _three(values, i, weights):
    return weights[0] * values[i] + weights[1] * values[i + 1] + weights[2] * values[i + 2]
