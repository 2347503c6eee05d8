"""A symmetric filter over the control points of a cost volume, the border repeated."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4


@njit(**KERNEL)
def filter_plane(cost, taps, shape):
    """Filter the planes of ``cost [L, h w]`` along both axes, in place.

    Args:
        taps: ``[R + 1]``, centre tap first.
        shape: ``(h, w)``.
    """
    height, width = shape
    along = np.empty(height * width, np.float32)
    for label in range(cost.shape[0]):
        _along_rows(cost[label], taps, height, width, along)
        _along_columns(along, taps, height, width, cost[label])


@njit(**KERNEL)
def _along_rows(plane, taps, height, width, out):
    """Along the first axis of a plane."""
    for y in range(height):
        here, target = plane[y * width :], out[y * width :]
        for x in range(width):
            target[x] = taps[0] * here[x]
        for step in range(1, taps.shape[0]):
            low, high = (
                plane[max(y - step, 0) * width :],
                plane[min(y + step, height - 1) * width :],
            )
            for x in range(width):
                target[x] += taps[step] * (low[x] + high[x])


@njit(**KERNEL)
def _along_columns(plane, taps, height, width, out):
    """Along the last axis: as if the plane were one row, then the ends of the rows again."""
    radius, end = taps.shape[0] - 1, height * width
    for i in range(end):
        out[i] = taps[0] * plane[i]
    for step in range(1, radius + 1):
        low, high, target = plane, plane[2 * step :], out[step:]
        for i in range(end - 2 * step):
            target[i] += taps[step] * (low[i] + high[i])
    for y in range(height):
        row, target = plane[y * width : (y + 1) * width], out[y * width :]
        for near in range(min(radius, (width + 1) // 2)):
            target[near] = _clamped(row, taps, near)
            target[width - 1 - near] = _clamped(row, taps, width - 1 - near)


@njit(**KERNEL)
def _clamped(row, taps, at):
    total, last = taps[0] * row[at], row.shape[0] - 1
    for step in range(1, taps.shape[0]):
        total += taps[step] * (row[max(at - step, 0)] + row[min(at + step, last)])
    return total


@njit(**KERNEL)
def copy_plane(volume, plane, out):
    """Copy plane ``plane`` of ``volume [L, d, N]`` to ``out [L, N]``."""
    for label in range(out.shape[0]):
        source, target = volume[label, plane], out[label]
        for i in range(target.shape[0]):
            target[i] = source[i]


@njit(**KERNEL)
def filter_between_planes(ring, taps, depth, plane, cost, kept, spread, belief):
    """``belief = kept cost + spread filtered`` on one plane, filtered along the first axis.

    Args:
        ring: ``[2 R + 1, L, N]``, plane z of the volume at ``z % (2 R + 1)``; those within R
            planes of ``plane`` are there.
        taps: ``[R + 1]``, centre tap first.
        depth: how many planes there are.
        plane: which plane to do.
        cost: ``[L, d, N]``; not read if ``kept`` is 0.
        belief: ``[L, d, N]``, may be ``cost``.
    """
    size = ring.shape[0]
    filtered = np.empty(ring.shape[2], np.float32)
    for label in range(ring.shape[1]):
        here = ring[plane % size, label]
        for i in range(filtered.shape[0]):
            filtered[i] = taps[0] * here[i]
        for step in range(1, taps.shape[0]):
            low = ring[max(plane - step, 0) % size, label]
            high = ring[min(plane + step, depth - 1) % size, label]
            for i in range(filtered.shape[0]):
                filtered[i] += taps[step] * (low[i] + high[i])
        _combine(kept, cost[label, plane], spread, filtered, belief[label, plane])


@njit(**KERNEL)
def _combine(kept, cost, spread, message, belief):
    if kept == f4(0):
        for i in range(belief.shape[0]):
            belief[i] = spread * message[i]
    else:
        for i in range(belief.shape[0]):
            belief[i] = kept * cost[i] + spread * message[i]
