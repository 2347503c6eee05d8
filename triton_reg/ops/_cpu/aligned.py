"""Buffers that begin where a cache line does: loads that straddle two lines take twice as long."""

import math

import numpy as np

from triton_reg.ops._cpu.layout import scratch

# floats of a cache line; rows of a multiple of it all begin at one
LINE = 16


def aligned(name: str, *shape: int) -> np.ndarray:
    """As :func:`triton_reg.ops._cpu.layout.scratch`, at a multiple of 64 bytes."""
    size = math.prod(shape)
    buffer = scratch(name, size + LINE)
    skipped = -buffer.ctypes.data % (4 * LINE) // 4
    return buffer[skipped : skipped + size].reshape(shape)
