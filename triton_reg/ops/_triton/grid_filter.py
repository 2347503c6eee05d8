"""A symmetric filter over the control points of a cost volume; see ``ops/grid_filter.py``.

Two launches: axes 1 and 2 together, then axis 0 together with what makes the next round's costs of
the message. Each marches along an axis with a ring of values in registers.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED, SIZES, Shape

_POINTS, _LABELS = 16, 32  # of a program that filters within planes
_BLOCK = 512  # labels and points of a program that filters between planes


@triton.jit
def _clamped(index, last):
    return tl.minimum(tl.maximum(index, 0), last)


@triton.jit
def _weighted(ring, taps, RADIUS: tl.constexpr):
    """The symmetric sum over ``2 RADIUS + 1`` values."""
    total = tl.load(taps) * ring[RADIUS]
    for step in tl.static_range(1, RADIUS + 1):
        total += tl.load(taps + step) * (ring[RADIUS - step] + ring[RADIUS + step])
    return total


@triton.jit
def _shifted(ring, newest, COUNT: tl.constexpr):
    """A ring of ``COUNT`` values without the oldest and with the newest one."""
    moved = ()
    for index in tl.static_range(1, COUNT):
        moved += (ring[index],)
    moved += (newest,)
    return moved


@triton.jit
def _along_row(row, x, label, taps, width, ROW: tl.constexpr, RADIUS: tl.constexpr):
    """The filter along axis 2 for a row of control points: ``[POINTS, LABELS]``."""
    values = ()
    for step in tl.static_range(-RADIUS, RADIUS + 1):
        place = _clamped(x + step, width - 1)
        values += (tl.load(row + place[:, None] * ROW + label[None, :]),)
    return _weighted(values, taps, RADIUS)


@triton.jit(do_not_specialize=SIZES)
def within_planes_kernel(
    source,
    target,
    taps,
    height,
    width,
    ROW: tl.constexpr,
    RADIUS: tl.constexpr,
    POINTS: tl.constexpr,
    LABELS: tl.constexpr,
):
    """Axes 1 and 2 of ``[B, d, h, w, ROW]``. Grid ``(cdiv(w, POINTS) ROW / LABELS, d, B)``."""
    BLOCKS: tl.constexpr = ROW // LABELS
    plane = tl.program_id(2).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    x = tl.program_id(0) // BLOCKS * POINTS + tl.arange(0, POINTS)
    label = tl.program_id(0) % BLOCKS * LABELS + tl.arange(0, LABELS)
    inside = (x[:, None] < width) & (label[None, :] < ROW)
    source += plane * height * width * ROW
    target += plane * height * width * ROW
    ring = ()
    for step in tl.static_range(-RADIUS - 1, RADIUS):
        row = source + _clamped(step, height - 1) * width * ROW
        ring += (_along_row(row, x, label, taps, width, ROW, RADIUS),)
    for y in range(height):
        row = source + _clamped(y + RADIUS, height - 1) * width * ROW
        newest = _along_row(row, x, label, taps, width, ROW, RADIUS)
        ring = _shifted(ring, newest, 2 * RADIUS + 1)
        out = target + (y * width + x[:, None]) * ROW + label[None, :]
        tl.store(out, _weighted(ring, taps, RADIUS), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def between_planes_kernel(
    source,
    cost,
    target,
    taps,
    weights,
    depth,
    height,
    width,
    ROW: tl.constexpr,
    RADIUS: tl.constexpr,
    COMBINED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Axis 0 of ``[B, d, h, w, ROW]``, then ``kept cost + spread message`` if ``COMBINED``.

    Grid ``(cdiv(h w ROW, BLOCK), B)``.
    """
    plane = height * width * ROW
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < plane
    offset = tl.program_id(1).to(tl.int64) * depth * plane + index
    source += offset
    cost += offset
    target += offset
    kept, spread = tl.load(weights + 1), tl.load(weights + 2)
    ring = ()
    for step in tl.static_range(-RADIUS - 1, RADIUS):
        place = _clamped(step, depth - 1) * plane
        ring += (tl.load(source + place, mask=inside, other=0.0),)
    for z in range(depth):
        place = _clamped(z + RADIUS, depth - 1) * plane
        newest = tl.load(source + place, mask=inside, other=0.0)
        ring = _shifted(ring, newest, 2 * RADIUS + 1)
        message = _weighted(ring, taps, RADIUS)
        if COMBINED:
            own = tl.load(cost + z * plane, mask=inside, other=0.0)
            message = kept * own + spread * message
        tl.store(target + z * plane, message, mask=inside)


def filter_within_planes(
    source: Tensor, points: Shape, taps: Sequence[float], target: Tensor
) -> None:
    """Axes 1 and 2 of ``source [B, P, ROW]`` into ``target``, another piece of memory."""
    depth, height, width = points
    row = source.shape[2]
    blocks = triton.cdiv(width, _POINTS) * (row // _LABELS)
    within_planes_kernel[(blocks, depth, len(source))](
        source, target, _on_device(tuple(taps), source.device), height, width, ROW=row,
        RADIUS=len(taps) - 1, POINTS=_POINTS, LABELS=_LABELS, **FUSED,
    )  # fmt: skip


def filter_between_planes(
    source: Tensor,
    points: Shape,
    taps: Sequence[float],
    weights: Tensor,
    cost: Tensor | None,
    target: Tensor,
) -> None:
    """Axis 0 of ``source [B, P, ROW]``, and the next costs of it: into ``target``.

    Args:
        weights: ``[4]``: kept is the second, spread the third.
        cost: what is kept of; None leaves the message as it is.
    """
    row = source.shape[2]
    blocks = triton.cdiv(points[1] * points[2] * row, _BLOCK)
    between_planes_kernel[(blocks, len(source))](
        source, source if cost is None else cost, target,
        _on_device(tuple(taps), source.device), weights, *points, ROW=row,
        RADIUS=len(taps) - 1, COMBINED=cost is not None, BLOCK=_BLOCK, **FUSED,
    )  # fmt: skip


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _on_device(taps: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(taps, dtype=torch.float32, device=device)
