"""The sums that a correlation of two volumes needs."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL

_RUN = 1024  # accumulators a sum: additions side by side vectorise in one order


@njit(**KERNEL)
def correlation_sums(first, second, mask):
    """Over the voxels with ``mask > 0``: their number, sums, sums of squares, sum of products, and
    sum of squared differences.

    Sums are float64 and of differences to the first voxel inside, so that nothing is lost where
    values vary little about a large mean, and constants give zeros exactly.

    Args:
        first, second, mask: flat ``[N]``.
    """
    sums = np.zeros((7, _RUN))
    begin = 0
    while begin < mask.shape[0] and not mask[begin] > 0:
        begin += 1
    for start in range(begin, mask.shape[0], _RUN):
        stop = min(start + _RUN, mask.shape[0])
        a, b, m = first[start:stop], second[start:stop], mask[start:stop]
        origin_a, origin_b = np.float64(first[begin]), np.float64(second[begin])
        for x in range(stop - start):
            inside = m[x] > 0
            p = np.float64(a[x]) - origin_a if inside else 0.0
            q = np.float64(b[x]) - origin_b if inside else 0.0
            sums[0, x] += 1.0 if inside else 0.0
            sums[1, x] += p
            sums[2, x] += q
            sums[3, x] += p * p
            sums[4, x] += q * q
            sums[5, x] += p * q
            apart = np.float64(a[x]) - np.float64(b[x]) if inside else 0.0
            sums[6, x] += apart * apart
    total = np.empty(7)
    for kind in range(7):
        total[kind] = sums[kind].sum()
    return total
