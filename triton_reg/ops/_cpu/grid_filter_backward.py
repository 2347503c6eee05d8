"""The transpose of the filter over control points: what reaches beyond an end is added to it."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL


@njit(**KERNEL)
def filter_plane_backward(gradient, taps, shape):
    """Transpose of :func:`triton_reg.ops._cpu.grid_filter.filter_plane`, in place."""
    height, width = shape
    along = np.empty(height * width, np.float32)
    for label in range(gradient.shape[0]):
        _along_columns(gradient[label], taps, height, width, along)
        _along_rows(along, taps, height, width, gradient[label])


@njit(**KERNEL)
def _shifted(plane, taps, stride, out):
    """As if the plane were one row whose points lie ``stride`` apart, zeros outside."""
    end = plane.shape[0]
    for i in range(end):
        out[i] = taps[0] * plane[i]
    for step in range(1, taps.shape[0]):
        away = min(step * stride, end)
        _add(plane, taps[step], out[away:])
        _add(plane[away:], taps[step], out[: end - away])


@njit(**KERNEL)
def _add(source, tap, target):
    for i in range(target.shape[0]):
        target[i] += tap * source[i]


@njit(**KERNEL)
def _along_rows(plane, taps, height, width, out):
    """Along the first axis of a plane."""
    _shifted(plane, taps, width, out)
    first, last = out[:width], out[(height - 1) * width :]
    for step in range(1, taps.shape[0]):
        for near in range(min(step, height)):
            _add(plane[near * width :], taps[step], first)
            _add(plane[(height - 1 - near) * width :], taps[step], last)


@njit(**KERNEL)
def _along_columns(plane, taps, height, width, out):
    """Along the last axis; then the ends of the rows again."""
    _shifted(plane, taps, 1, out)
    radius = taps.shape[0] - 1
    for y in range(height):
        row, target = plane[y * width : (y + 1) * width], out[y * width :]
        for near in range(min(radius, (width + 1) // 2)):
            target[near] = _inside(row, taps, near)
            target[width - 1 - near] = _inside(row, taps, width - 1 - near)
        for step in range(1, radius + 1):
            for near in range(min(step, width)):
                target[0] += taps[step] * row[near]
                target[width - 1] += taps[step] * row[width - 1 - near]


@njit(**KERNEL)
def _inside(row, taps, at):
    total = taps[0] * row[at]
    for step in range(1, taps.shape[0]):
        if at - step >= 0:
            total += taps[step] * row[at - step]
        if at + step < row.shape[0]:
            total += taps[step] * row[at + step]
    return total


@njit(**KERNEL)
def filter_between_planes_backward(ring, taps, depth, plane, out):
    """Transpose of the filter along the first axis, for one plane.

    Args:
        ring: gradients ``[2 R + 1, L, N]``, plane z at ``z % (2 R + 1)``; those within R planes of
            ``plane`` are there.
        taps: ``[R + 1]``, centre tap first.
        depth: how many planes there are.
        plane: which plane to do.
        out: ``[L, N]``, overwritten.
    """
    size = ring.shape[0]
    for label in range(out.shape[0]):
        target = out[label]
        target[:] = 0
        for step in range(taps.shape[0]):
            if plane - step >= 0:
                _add(ring[(plane - step) % size, label], taps[step], target)
            if step > 0 and plane + step < depth:
                _add(ring[(plane + step) % size, label], taps[step], target)
            if plane == 0:
                for near in range(min(step, depth)):
                    _add(ring[near % size, label], taps[step], target)
            if plane == depth - 1:
                for near in range(max(depth - step, 0), depth):
                    _add(ring[near % size, label], taps[step], target)
