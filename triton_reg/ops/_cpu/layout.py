"""Volumes with a zero border, flattened: a neighbour in any direction is a constant stride away.

A volume ``[D, H, W]`` with border ``b`` lies in ``P = (D + 2b)(H + 2b)(W + 2b)`` floats; voxel
``(z, y, x)`` is element ``((z + b)(H + 2b) + y + b)(W + 2b) + x + b``. A stencil over several rows
is then one long loop without conditions, which vectorises whatever the width of the volume; the
price is that it also runs over the borders between rows.
"""

import math
import threading

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL

Shape = tuple[int, int, int]


def padded_size(shape: Shape, border: int) -> int:
    """Elements of one bordered volume."""
    return math.prod(size + 2 * border for size in shape)


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.by_name: dict[str, np.ndarray] = {}


_buffers = _Buffers()


def scratch(name: str, *shape: int) -> np.ndarray:
    """This thread's float32 buffer of that name as an array of ``shape``; contents are undefined.

    Kept between calls, one a name and as large as the largest yet, because fresh memory costs more
    to fault in than a kernel takes to fill it.
    """
    size = math.prod(shape)
    buffer = _buffers.by_name.get(name)
    if buffer is None or buffer.size < size:
        _buffers.by_name.pop(name, None)
        buffer = _buffers.by_name[name] = np.empty(size, np.float32)
    return buffer[:size].reshape(shape)


def release_scratch() -> None:
    """Give this thread's buffers back to the system."""
    _buffers.by_name.clear()


@njit(**KERNEL)
def copy_row(source, target):
    """``target[:] = source``, which numba would copy element by element."""
    for i in range(target.shape[0]):
        target[i] = source[i]


@njit(**KERNEL)
def pad(volume, factor, border, out):
    """Copy ``volume [K, D, H, W]`` times ``factor`` into the bordered ``out [K, P]``."""
    channels, depth, height, width = volume.shape
    row = width + 2 * border
    plane = (height + 2 * border) * row
    zero_border(out, depth, height, width, border)
    for k in range(channels):
        for z in range(depth):
            for y in range(height):
                begin = (z + border) * plane + (y + border) * row + border
                source, target = volume[k, z, y], out[k, begin : begin + width]
                for x in range(width):
                    target[x] = source[x] * factor


@njit(**KERNEL)
def crop(volume, border, out):
    """Copy the inside of the bordered ``volume [K, P]`` to ``out [K, D, H, W]``."""
    channels, depth, height, width = out.shape
    row = width + 2 * border
    plane = (height + 2 * border) * row
    for k in range(channels):
        for z in range(depth):
            for y in range(height):
                begin = (z + border) * plane + (y + border) * row + border
                copy_row(volume[k, begin : begin + width], out[k, z, y])


@njit(**KERNEL)
def zero_border(volume, depth, height, width, border):
    """Set the borders of the bordered ``volume [K, P]`` to zero."""
    row = width + 2 * border
    plane = (height + 2 * border) * row
    for k in range(volume.shape[0]):
        volume[k, : border * plane] = 0
        volume[k, (depth + border) * plane :] = 0
        for z in range(border, depth + border):
            start = z * plane
            volume[k, start : start + border * row] = 0
            volume[k, start + (height + border) * row : start + plane] = 0
            for begin in range(start + border * row, start + (height + border) * row, row):
                volume[k, begin : begin + border] = 0
                volume[k, begin + border + width : begin + row] = 0


@njit(**KERNEL)
def zero_planes(volume, border, plane):
    """Set the first and last ``border`` planes of each bordered volume of ``[K, P]`` to zero."""
    for k in range(volume.shape[0]):
        volume[k, : border * plane] = 0
        volume[k, volume.shape[1] - border * plane :] = 0
