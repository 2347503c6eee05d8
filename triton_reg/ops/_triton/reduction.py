"""Sums and maxima of rows in one order: the same bits each time, alone and in a batch."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED, SIZES

CHUNK = 4096  # values that a program takes


@triton.jit
def keep_nan(first, second):
    """The larger of two; NaN if either is."""
    return tl.maximum(first, second, propagate_nan=tl.PropagateNan.ALL)


@triton.jit(do_not_specialize=SIZES)
def reduce_kernel(source, target, size, scale, MAXIMUM: tl.constexpr, BLOCK: tl.constexpr):
    """``scale`` times sums, or maxima, of chunks of ``[K, size]`` float32 that is not negative
    where maxima are asked for. ``target [K, chunks]``. Grid ``(chunks, K)``.
    """
    row = tl.program_id(1).to(tl.int64)
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(source + row * size + lane, mask=lane < size, other=0.0)
    found = tl.reduce(value, 0, keep_nan) if MAXIMUM else tl.sum(value, axis=0)
    tl.store(target + row * tl.num_programs(0) + tl.program_id(0), scale * found)


def chunks(size: int) -> int:
    """How many programs take so many values."""
    return triton.cdiv(size, CHUNK)


def reduce_chunks(source: Tensor, target: Tensor, *, maximum: bool, scale: float = 1.0) -> None:
    """One launch: ``[K, n]`` to ``[K, chunks(n)]``, times ``scale``."""
    rows, size = source.shape
    reduce_kernel[(chunks(size), rows)](
        source, target, size, float(scale), MAXIMUM=maximum, BLOCK=CHUNK, **FUSED
    )


def reduced(source: Tensor, *, maximum: bool, scale: float = 1.0) -> Tensor:
    """``scale`` times the sum, or the maximum, of each row of ``[K, n]``: ``[K]``."""
    while True:
        target = source.new_empty(len(source), chunks(source.shape[1]))
        is_last = target.shape[1] == 1
        reduce_chunks(source, target, maximum=maximum, scale=scale if is_last else 1.0)
        if is_last:
            return target[:, 0]
        source = target
