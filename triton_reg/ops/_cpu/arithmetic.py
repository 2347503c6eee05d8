"""Float32 exponential and logarithm that vectorise, and the options all kernels compile with.

numba calls the scalar libm for ``math.exp``, which keeps LLVM from vectorising the loop around it;
a polynomial on a reduced argument does not.
"""

from typing import Any

import numpy as np
from numba import njit

f4 = np.float32

# sums may contract to fused multiply-adds; NaN and infinity keep their meaning, and sums their
# order, so that the argument reduction below stays exact
KERNEL: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "arcp", "nsz"},
    # a kernel's helpers become part of it; else a process that has compiled one for itself calls
    # that copy, one that has loaded the kernel the kernel's own, and these may round otherwise
    "forceinline": True,
}
# where sums may take any order, so that they vectorise
REORDERED: dict[str, Any] = {**KERNEL, "fastmath": {*KERNEL["fastmath"], "reassoc"}}
# for comparisons that must see the same rounding as plain torch
EXACT: dict[str, Any] = {**KERNEL, "fastmath": False}

_LOG2_E = f4(1.44269504)
_LN2_HIGH, _LN2_LOW = f4(0.693359375), f4(-2.12194440e-4)  # the first has few bits: exact products
_LN2 = f4(0.69314718)
_SQRT_HALF_BITS = np.int32(0x3F3504F3)
_LOWEST = f4(-87.0)


@njit(**KERNEL)
def exp(x):
    """``e^x`` for ``x <= 88`` within 2e-7 of its value; below -87 it stays at ``e^-87 = 1.6e-38``.

    Cody and Waite's reduction to ``2^n e^r``, ``|r| <= ln 2 / 2``, and the Cephes polynomial.
    """
    x = _LOWEST if x < _LOWEST else x
    n = np.floor(x * _LOG2_E + f4(0.5))
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = f4(1.9875691500e-4)
    p = p * r + f4(1.3981999507e-3)
    p = p * r + f4(8.3334519073e-3)
    p = p * r + f4(4.1665795894e-2)
    p = p * r + f4(1.6666665459e-1)
    p = p * r + f4(5.0000001201e-1)
    power_of_two = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return (p * (r * r) + r + f4(1)) * power_of_two


@njit(**KERNEL)
def log(x):
    """``ln x`` of a positive normal number, within 3e-7 of ``max(1, |ln x|)``.

    ``x = 2^e m`` with ``m`` in ``[sqrt(1/2), sqrt(2))``, and ``ln m = 2 artanh((m - 1)/(m + 1))``.
    """
    bits = f4(x).view(np.int32)
    e = np.int32((bits - _SQRT_HALF_BITS) >> np.int32(23))
    m = np.int32(bits - np.int32(e << np.int32(23))).view(np.float32)
    s = (m - f4(1)) / (m + f4(1))
    t = s * s
    series = f4(1 / 7) + t * f4(1 / 9)
    series = f4(1) + t * (f4(1 / 3) + t * (f4(1 / 5) + t * series))
    return f4(2) * s * series + f4(e) * _LN2
