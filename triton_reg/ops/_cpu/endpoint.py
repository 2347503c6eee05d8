"""The sum of the lengths of vectors over a mask."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4

_RUN = 1024  # accumulators a sum: additions side by side vectorise in one order


@njit(**KERNEL)
def length_sums(vectors, spacing, mask):
    """Sum of the lengths over the voxels with ``mask > 0``, and the number of those voxels.

    Args:
        vectors: ``[3, N]`` in voxels.
        spacing: three lengths, of a voxel along each axis.
        mask: ``[N]``.
    """
    total, number = np.zeros(_RUN), np.zeros(_RUN)
    step_0, step_1, step_2 = f4(spacing[0]), f4(spacing[1]), f4(spacing[2])
    for start in range(0, mask.shape[0], _RUN):
        stop = min(start + _RUN, mask.shape[0])
        u, v, w = vectors[0, start:stop], vectors[1, start:stop], vectors[2, start:stop]
        m = mask[start:stop]
        for x in range(stop - start):
            a, b, c = u[x] * step_0, v[x] * step_1, w[x] * step_2
            inside = m[x] > 0
            total[x] += np.float64(np.sqrt(a * a + b * b + c * c)) if inside else 0.0
            number[x] += 1.0 if inside else 0.0
    return total.sum(), number.sum()
