"""Separable smoothing of a volume, plane by plane, zeros outside.

A plane of ``H x W`` lies bordered in ``(H + 2 r_y)(W + 2 r_x)`` floats for the reaches ``r`` of its
taps, so that each axis is one long loop; smoothed planes wait in a ring until the last that the
first axis needs has come.
"""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL
from triton_reg.ops._cpu.layout import copy_row, scratch

_RUN = 2048  # elements whose sums stay in the first-level cache while tap after tap is added


def smoothed(vectors, taps):
    """``[B, C, D, H, W]`` filtered with three float32 taps of odd length, one for each axis."""
    found = np.empty_like(vectors)
    planes = plane_buffers("smoothed planes", vectors.shape[2:], taps)
    for pair in range(len(vectors)):
        for channel in range(vectors.shape[1]):
            smooth_volume(vectors[pair, channel], taps, planes, found[pair, channel])
    return found


def plane_buffers(name, shape, taps):
    """What :func:`smooth_volume` works in: a ring of planes and three more."""
    height, width = (size + len(tap) - 1 for size, tap in zip(shape[1:], taps[1:], strict=True))
    return scratch(name, 3 + len(taps[0]), height * width)


@njit(**KERNEL)
def smooth_volume(volume, taps, planes, out):
    """Smooth ``volume [D, H, W]`` into ``out``.

    Args:
        taps: three arrays.
        planes: see :func:`plane_buffers`.
    """
    plane, reach = planes[0], taps[0].shape[0] // 2
    plane[:] = 0
    for z in range(volume.shape[0] + reach):
        if z < volume.shape[0]:
            fill_plane(volume[z], taps, plane)
            enter_plane(z, taps, planes, volume.shape)
        if z >= reach:
            leave_plane(z - reach, taps, planes, volume.shape)
            for y in range(volume.shape[1]):
                copy_row(plane_row(planes[2], y, taps, volume.shape[2]), out[z - reach, y])


@njit(**KERNEL)
def plane_row(plane, y, taps, width):
    """Row ``y`` of a bordered plane."""
    reach_y, reach_x = taps[1].shape[0] // 2, taps[2].shape[0] // 2
    begin = (y + reach_y) * (width + 2 * reach_x) + reach_x
    return plane[begin : begin + width]


@njit(**KERNEL)
def fill_plane(source, taps, plane):
    """Copy ``source [H, W]`` inside the bordered ``plane``."""
    for y in range(source.shape[0]):
        copy_row(source[y], plane_row(plane, y, taps, source.shape[1]))


@njit(**KERNEL)
def enter_plane(z, taps, planes, shape):
    """Smooth the first of ``planes`` along the last two axes, into the ring as plane ``z``."""
    source, half, target = planes[0], planes[1], planes[3 + z % taps[0].shape[0]]
    reach_y, reach_x = taps[1].shape[0] // 2, taps[2].shape[0] // 2
    row = shape[2] + 2 * reach_x
    begin, end = reach_y * row, (reach_y + shape[1]) * row
    _filter(source, row, taps[1], begin, end, half)
    _filter(half, 1, taps[2], begin + reach_x, end - reach_x, target)


@njit(**KERNEL)
def leave_plane(z, taps, planes, shape):
    """Smooth the ring along the first axis at plane ``z``, into the third of ``planes``."""
    count = taps[0].shape[0]
    reach, target = count // 2, planes[2]
    row = shape[2] + taps[2].shape[0] - 1
    begin, end = taps[1].shape[0] // 2 * row, (taps[1].shape[0] // 2 + shape[1]) * row
    for start in range(begin, end, _RUN):
        stop = min(start + _RUN, end)
        sums = target[start:stop]
        sums[:] = 0
        for k in range(max(-reach, -z), min(reach, shape[0] - 1 - z) + 1):
            beside, share = planes[3 + (z + k) % count, start:stop], taps[0][reach + k]
            for i in range(sums.shape[0]):
                sums[i] += share * beside[i]


@njit(**KERNEL)
def _filter(source, step, taps, begin, end, out):
    """``out[i] = Σ_k taps[k] source[i + k step]`` of symmetric taps, from ``begin`` to ``end``."""
    reach = taps.shape[0] // 2
    for start in range(begin, end, _RUN):
        stop = min(start + _RUN, end)
        sums, here, share = out[start:stop], source[start:stop], taps[reach]
        for i in range(sums.shape[0]):
            sums[i] = share * here[i]
        for k in range(1, reach + 1):
            below, above = source[start - k * step : stop - k * step], source[start + k * step :]
            share = taps[reach + k]
            for i in range(sums.shape[0]):
                sums[i] += share * (below[i] + above[i])
