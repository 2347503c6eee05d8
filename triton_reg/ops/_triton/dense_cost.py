"""Costs of displacement labels; the definition stands in ``ops/dense_cost.py``.

Sampled positions are a product of three axes. A program owns one position along axis 0 and a block
of positions along axis 2, and marches through the moving rows along axis 1: it keeps two rows,
interpolated along the other axes, in registers, and all positions between them read nothing else of
the moving features. A label costs a load of the fixed feature and four operations a channel.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED, SIZES, Shape
from triton_reg.ops.lattice import Lattice

_BLOCK = 64
_MOST_CHANNELS = 24  # two rows of so many channels stay in registers
_SEGMENTS = 4  # programs that share the rows along axis 1
_ROW_MULTIPLE = 32  # labels of a control point start on whole lines of the cache


class LatticeSamples(NamedTuple):
    """Where labels read, on a device.

    Attributes:
        below: lower voxel of each position along axes 0 and 2, ``[(d + w) width]`` int32.
        fraction: weight of the voxel above, along axes 0 and 2, then along axis 1 in the order of
            ``entries``, ``[(d + h + w) width]``.
        entries: positions along axis 1, ``point width + label``, the lowest first, int32.
        first: for each cell of axis 1 from ``bottom`` on, its first entry; and their number.
        bottom: the lowest cell that is read.
        cells: how many cells are read from there.
    """

    below: Tensor
    fraction: Tensor
    entries: Tensor
    first: Tensor
    bottom: int
    cells: int


@lru_cache(maxsize=64)
# tensors made in inference mode would be of no use outside of it
@torch.inference_mode(False)
def lattice_samples(shape: Shape, lattice: Lattice, device: torch.device) -> LatticeSamples:
    """The tables of features of a shape, in float64 until they are stored."""
    labels = np.arange(lattice.width) - lattice.width // 2
    lower, fraction = [], []
    for axis, size in enumerate(shape):
        controls = lattice.start[axis] + lattice.step[axis] * np.arange(lattice.points[axis])
        positions = controls[:, None] + lattice.label_step[axis] * labels
        positions = np.clip(positions, 0, size - 1).ravel()
        lower.append(np.clip(np.floor(positions), 0, max(size - 2, 0)).astype(np.int32))
        fraction.append(positions - lower[-1])
    entries = np.argsort(lower[1], kind="stable")
    cells = lower[1][entries]
    first = np.searchsorted(cells, np.arange(cells[0], cells[-1] + 2))
    weights = np.concatenate([fraction[0], fraction[2], fraction[1][entries]])
    tables = np.concatenate([lower[0], lower[2]]), weights.astype(np.float32), entries, first
    dtypes = torch.int32, torch.float32, torch.int32, torch.int32
    below, share, order, starts = (
        torch.from_numpy(table).to(device, dtype)
        for table, dtype in zip(tables, dtypes, strict=True)
    )
    return LatticeSamples(below, share, order, starts, int(cells[0]), len(first) - 1)


def padded_labels(labels: int) -> int:
    """Floats from the labels of one control point to those of the next."""
    return triton.cdiv(labels, _ROW_MULTIPLE) * _ROW_MULTIPLE


@triton.jit
def _row(moving, place, up, along, share_z, share_x, voxels, inside, CHANNELS: tl.constexpr):
    """A row of each channel, interpolated along axes 0 and 2: a tuple of ``[BLOCK]``."""
    values, at = (), moving + place
    for _ in tl.static_range(CHANNELS):
        low = tl.load(at, mask=inside, other=0.0) * (1 - share_x)
        low += tl.load(at + along, mask=inside, other=0.0) * share_x
        high = tl.load(at + up, mask=inside, other=0.0) * (1 - share_x)
        high += tl.load(at + up + along, mask=inside, other=0.0) * share_x
        values += (low * (1 - share_z) + high * share_z,)
        at += voxels
    return values


@triton.jit
def _distance(low, high, share, fixed, point, points, inside, CHANNELS: tl.constexpr):
    """Squared difference of a position between two rows and the fixed features of a point."""
    total, at = tl.zeros_like(low[0]), fixed + point
    for channel in tl.static_range(CHANNELS):
        wanted = tl.load(at, mask=inside, other=0.0)
        at += points
        error = low[channel] + share * (high[channel] - low[channel]) - wanted
        total += error * error
    return total


@triton.jit
def _from_anchor(anchors, points, z, y, x, inside):
    """Weighted squared distance ``[BLOCK]`` of a label from the anchor of its control point."""
    away = z - tl.load(anchors, mask=inside, other=0.0)
    total = away * away
    away = y - tl.load(anchors + points, mask=inside, other=0.0)
    total += away * away
    away = x - tl.load(anchors + 2 * points, mask=inside, other=0.0)
    total += away * away
    return tl.load(anchors + 3 * points, mask=inside, other=0.0) * total


@triton.jit(
    do_not_specialize=(
        *SIZES,
        "begin",
        "bottom",
        "cells",
        "moving_depth",
        "moving_height",
        "moving_width",
    ),
    # nothing is read in more than single floats
    do_not_specialize_on_alignment=("fixed", "moving", "anchors"),
)
def dense_cost_kernel(
    fixed,
    moving,
    weights,
    anchors,
    cost,
    below,
    fraction,
    entries,
    first,
    bottom,
    cells,
    channels,
    begin,
    depth,
    height,
    width,
    moving_depth,
    moving_height,
    moving_width,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROW: tl.constexpr,
    SEGMENTS: tl.constexpr,
    ANCHORED: tl.constexpr,
    MORE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``scale`` times the cost of ``CHANNELS`` channels from ``begin`` on: ``cost [B, P, ROW]``.

    Added to what is there if ``MORE``; the anchors' part is added if ``ANCHORED``.
    Grid ``(d WIDTH SEGMENTS, cdiv(w WIDTH, BLOCK), B)``.
    """
    pair, points = tl.program_id(2).to(tl.int64), depth * height * width
    plane = moving_height * moving_width
    voxels = moving_depth * plane
    position, segment = tl.program_id(0) // SEGMENTS, tl.program_id(0) % SEGMENTS
    lane = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < width * WIDTH
    z, x = position // WIDTH, lane // WIDTH
    # an axis of a single voxel has no voxel above its only cell
    up, along = tl.where(moving_depth > 1, plane, 0), tl.where(moving_width > 1, 1, 0)
    share_z = tl.load(fraction + position)
    share_x = tl.load(fraction + depth * WIDTH + lane, mask=inside, other=0.0)
    column = tl.load(below + depth * WIDTH + lane, mask=inside, other=0)
    moving += (pair * channels + begin) * voxels
    place = tl.load(below + position) * plane + column
    fixed += (pair * channels + begin) * points
    anchors += pair * 4 * points
    cost += pair * points * ROW + (position % WIDTH) * (WIDTH * WIDTH) + lane % WIDTH
    scale = tl.load(weights)
    share_y = fraction + (depth + width) * WIDTH
    each = tl.cdiv(cells, SEGMENTS)
    lowest, end = segment * each, tl.minimum((segment + 1) * each, cells)
    start = tl.minimum(bottom + lowest, moving_height - 1) * moving_width
    high = _row(moving, place + start, up, along, share_z, share_x, voxels, inside, CHANNELS)
    for cell in range(lowest, end):
        low = high
        row = tl.minimum(bottom + cell + 1, moving_height - 1) * moving_width
        high = _row(moving, place + row, up, along, share_z, share_x, voxels, inside, CHANNELS)
        for index in range(tl.load(first + cell), tl.load(first + cell + 1)):
            entry, share = tl.load(entries + index), tl.load(share_y + index)
            point = (z * height + entry // WIDTH) * width + x
            total = _distance(low, high, share, fixed, point, points, inside, CHANNELS)
            total *= scale
            label_y = entry % WIDTH
            if ANCHORED:
                total += _from_anchor(
                    anchors + point,
                    points,
                    position % WIDTH - WIDTH // 2,
                    label_y - WIDTH // 2,
                    lane % WIDTH - WIDTH // 2,
                    inside,
                )
            out = cost + point * ROW + label_y * WIDTH
            if MORE:
                total += tl.load(out, mask=inside, other=0.0)
            tl.store(out, total, mask=inside)


def dense_cost(
    fixed: Tensor,
    moving: Tensor,
    weights: Tensor,
    anchors: Tensor | None,
    lattice: Lattice,
    cost: Tensor,
) -> None:
    """Fill the labels of ``cost [B, P, ROW]`` with the scaled cost and what anchors add.

    Args:
        fixed: ``[B, C, *lattice.points]``.
        moving: ``[B, C, D, H, W]``.
        weights: ``[4]``, the first of which is the scale.
        anchors: ``[B, 4, *lattice.points]`` or None.
    """
    batch, channels, *shape = moving.shape
    samples = lattice_samples(tuple(shape), lattice, moving.device)
    launches = triton.cdiv(channels, _MOST_CHANNELS)
    each = triton.cdiv(channels, launches)
    depth, _, width = lattice.points
    blocks = triton.cdiv(width * lattice.width, _BLOCK)
    for begin in range(0, channels, each):
        dense_cost_kernel[(depth * lattice.width * _SEGMENTS, blocks, batch)](
            fixed, moving, weights, cost if anchors is None else anchors, cost, *samples, channels,
            begin,
            *lattice.points, *shape, CHANNELS=min(each, channels - begin), WIDTH=lattice.width,
            ROW=cost.shape[2], SEGMENTS=_SEGMENTS, ANCHORED=anchors is not None and begin == 0,
            MORE=begin > 0, BLOCK=_BLOCK, num_warps=_BLOCK // 32, **FUSED,
        )  # fmt: skip
