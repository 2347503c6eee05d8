"""Cost volume and entropy; the definitions stand in ``ops/cost_volume.py`` and ``ops/entropy.py``.

Roofline row "cost_entropy". At radius 1 the 27 costs of a voxel stay in registers, so that entropy,
centring and rounding to fp16 cost no memory traffic: the features are read (27 times, but from the
cache) and 14 words a voxel are written. Radius 2 and 3 go through memory.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import (
    FUSED,
    SIZES,
    Lines,
    coordinates,
    pack,
    subject_lines,
    voxels_a_program,
)
from triton_reg.ops._triton.masked_cost import restrict

_LOG_FLOOR = tl.constexpr(math.log(1e-6))
_SHARPNESS = tl.constexpr(10.0)  # one over the temperature of the entropy
_ENTROPY_BLOCK = 128


@triton.jit
def _mean_difference(features, position, inside, reference, channels, C: tl.constexpr):
    """Mean absolute difference ``[BLOCK]`` of the features at ``position`` to ``reference``."""
    lines = features + position[:, None] * channels.shape[1] + channels
    shifted = tl.load(lines, mask=inside[:, None], other=0.0).to(tl.float32)
    return tl.sum(tl.abs(shifted - reference), axis=1) * (1.0 / C)


@triton.jit
def _entropy_of(costs, lowest, LABELS: tl.constexpr):
    """Entropy in nats of the softmax over a tuple of costs, see ``entropy_reference``."""
    total = tl.zeros_like(lowest)
    for label in tl.static_range(LABELS):
        total += tl.exp((lowest - costs[label]) * _SHARPNESS)
    log_total = tl.log(total)
    mass, weighted = tl.zeros_like(lowest), tl.zeros_like(lowest)
    for label in tl.static_range(LABELS):
        log_probability = (lowest - costs[label]) * _SHARPNESS - log_total
        log_probability = tl.maximum(log_probability, _LOG_FLOOR)
        probability = tl.exp(log_probability)
        mass += probability
        weighted += probability * log_probability
    return tl.log(mass) - weighted / mass


@triton.jit
def _store_extremes(entropy, inside, extremes, pair, block, blocks):
    """Lowest and highest entropy of a block into ``extremes [B, 2, blocks]``."""
    row = extremes + pair * 2 * blocks + block
    tl.store(row, tl.min(tl.where(inside, entropy, float("inf")), axis=0))
    tl.store(row + blocks, tl.max(tl.where(inside, entropy, float("-inf")), axis=0))


@triton.jit(do_not_specialize=SIZES)
def cost_entropy_kernel(
    fixed,
    moving,
    cost,
    entropy,
    extremes,
    depth,
    height,
    width,
    C: tl.constexpr,
    CP: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    FORM: tl.constexpr,
):
    """Radius 1: cost volume, entropy and the block's entropy range, from one read of the features.

    ``fixed, moving``: addresses ``[B]`` of ``[N, CP]``; ``cost``: ``[B, 14, N]`` int32 if ``FORM``
    is ``"packed"``, ``[B, 27, N]`` float32 if ``"plain"``, not written if ``"none"``;
    ``entropy [B, N]``. Grid ``(cdiv(N, BLOCK), B)``.
    """
    block, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    voxels = depth * height * width
    voxel = block * BLOCK + tl.arange(0, BLOCK)
    channels = tl.arange(0, CP)[None, :]
    inside = voxel < voxels
    z, y, x = coordinates(voxel, height, width)
    moving = subject_lines(moving, pair, HALF)
    lines = subject_lines(fixed, pair, HALF) + voxel[:, None] * CP + channels
    reference = tl.load(lines, mask=inside[:, None], other=0.0).to(tl.float32)
    costs = ()
    for label in tl.static_range(27):
        dz, dy, dx = label // 9 - 1, label // 3 % 3 - 1, label % 3 - 1
        valid = inside & (z + dz >= 0) & (z + dz < depth) & (y + dy >= 0) & (y + dy < height)
        valid = valid & (x + dx >= 0) & (x + dx < width)
        position = voxel + (dz * height + dy) * width + dx
        costs += (_mean_difference(moving, position, valid, reference, channels, C),)
    lowest = costs[0]
    for label in tl.static_range(1, 27):
        lowest = tl.minimum(lowest, costs[label])
    if FORM == "packed":
        cost += pair * 14 * voxels + voxel
        for word in tl.static_range(13):
            # centring is free (the argmin and the filter do not see it) and keeps fp16 exact
            both = pack(costs[2 * word] - lowest, costs[2 * word + 1] - lowest)
            tl.store(cost + word * voxels, both, mask=inside)
        tl.store(cost + 13 * voxels, pack(costs[26] - lowest, lowest * 0), mask=inside)
    elif FORM == "plain":
        cost += pair * 27 * voxels + voxel
        for label in tl.static_range(27):
            tl.store(cost + label * voxels, costs[label], mask=inside)
    found = _entropy_of(costs, lowest, 27)
    tl.store(entropy + pair * voxels + voxel, found, mask=inside)
    _store_extremes(found, inside, extremes, pair, block, tl.num_programs(0))


@triton.jit(do_not_specialize=SIZES)
def cost_kernel(
    fixed,
    moving,
    cost,
    depth,
    height,
    width,
    C: tl.constexpr,
    CP: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    RADIUS: tl.constexpr,
):
    """Any radius: cost ``[B, L, N]`` float32, label by label. Grid ``(cdiv(N, BLOCK), B)``.

    Features as above.
    """
    pair = tl.program_id(1).to(tl.int64)
    voxels = depth * height * width
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channels = tl.arange(0, CP)[None, :]
    inside = voxel < voxels
    z, y, x = coordinates(voxel, height, width)
    lines = subject_lines(fixed, pair, HALF) + voxel[:, None] * CP + channels
    reference = tl.load(lines, mask=inside[:, None], other=0.0).to(tl.float32)
    moving = subject_lines(moving, pair, HALF)
    SIDE: tl.constexpr = 2 * RADIUS + 1
    column = cost + pair * SIDE * SIDE * SIDE * voxels + voxel
    for label in range(SIDE * SIDE * SIDE):
        nz = z + (label // (SIDE * SIDE) - RADIUS)
        ny = y + (label // SIDE % SIDE - RADIUS)
        nx = x + (label % SIDE - RADIUS)
        valid = inside & (nz >= 0) & (nz < depth) & (ny >= 0) & (ny < height)
        valid = valid & (nx >= 0) & (nx < width)
        position = (nz * height + ny) * width + nx
        found = _mean_difference(moving, position, valid, reference, channels, C)
        tl.store(column, found, mask=inside)
        column += voxels


@triton.jit(do_not_specialize=SIZES)
def entropy_kernel(cost, entropy, extremes, voxels, side, BLOCK: tl.constexpr):
    """Entropy ``[B, N]`` of a float32 ``cost [B, L, N]``. Grid ``(cdiv(N, BLOCK), B)``.

    ``side`` is ``2 radius + 1``, not a constant so that the loops stay loops. Sums are taken plane
    by plane of labels: hundreds of equal terms added to one number would all round the same way.
    """
    block, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    voxel = block * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    first = cost + pair * side * side * side * voxels + voxel
    lowest, column = tl.load(first, mask=inside, other=0.0), first
    for _ in range(1, side * side * side):
        column += voxels
        lowest = tl.minimum(lowest, tl.load(column, mask=inside, other=0.0))
    total, column = tl.zeros_like(lowest), first
    for _ in range(side):
        part = tl.zeros_like(lowest)
        for _ in range(side * side):
            part += tl.exp((lowest - tl.load(column, mask=inside, other=0.0)) * _SHARPNESS)
            column += voxels
        total += part
    log_total, column = tl.log(total), first
    mass, weighted = tl.zeros_like(lowest), tl.zeros_like(lowest)
    for _ in range(side):
        part, weighted_part = tl.zeros_like(lowest), tl.zeros_like(lowest)
        for _ in range(side * side):
            here = tl.load(column, mask=inside, other=0.0)
            log_probability = tl.maximum((lowest - here) * _SHARPNESS - log_total, _LOG_FLOOR)
            probability = tl.exp(log_probability)
            part += probability
            weighted_part += probability * log_probability
            column += voxels
        mass += part
        weighted += weighted_part
    found = tl.log(mass) - weighted / mass
    tl.store(entropy + pair * voxels + voxel, found, mask=inside)
    _store_extremes(found, inside, extremes, pair, block, tl.num_programs(0))


@dataclass(frozen=True)
class Entropy:
    """Where a kernel writes the entropy ``[B, N]`` and its range by block ``[B, 2, blocks]``."""

    values: Tensor
    extremes: Tensor


def entropy_blocks(voxels: int, padded: int, fused: bool) -> int:
    """Into how many blocks the fused kernel, or those that go through memory, cut a volume."""
    return triton.cdiv(voxels, voxels_a_program(padded) if fused else _ENTROPY_BLOCK)


def cost_entropy(fixed: Lines, moving: Lines, cost: Tensor | None, entropy: Entropy) -> None:
    """Launch the radius 1 kernel.

    ``cost`` is written: ``[B, 14, N]`` int32 (packed) or ``[B, 27, N]`` float32; nothing if None.
    """
    form = "none" if cost is None else "packed" if cost.dtype == torch.int32 else "plain"
    block = voxels_a_program(fixed.padded)
    target = entropy.values if cost is None else cost
    cost_entropy_kernel[(triton.cdiv(fixed.voxels, block), len(fixed.addresses))](
        fixed.addresses, moving.addresses, target, entropy.values, entropy.extremes, *fixed.shape,
        C=fixed.channels, CP=fixed.padded, HALF=fixed.dtype == torch.float16, BLOCK=block,
        FORM=form, **FUSED,
    )  # fmt: skip


def cost_entropy_wide(
    fixed: Lines, moving: Lines, cost: Tensor, entropy: Entropy, masked: bool
) -> None:
    """As above for any radius, whose labels ``cost [B, L, N]`` float32 has, and for masks."""
    batch, labels, voxels = cost.shape
    side, block = round(labels ** (1 / 3)), voxels_a_program(fixed.padded)
    cost_kernel[(triton.cdiv(voxels, block), batch)](
        fixed.addresses, moving.addresses, cost, *fixed.shape,
        C=fixed.channels - masked, CP=fixed.padded, HALF=fixed.dtype == torch.float16, BLOCK=block,
        RADIUS=side // 2, **FUSED,
    )  # fmt: skip
    if masked:
        restrict(fixed, moving, cost)
    entropy_kernel[(triton.cdiv(voxels, _ENTROPY_BLOCK), batch)](
        cost, entropy.values, entropy.extremes, voxels, side, BLOCK=_ENTROPY_BLOCK, **FUSED
    )
