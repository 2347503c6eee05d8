"""Weights of the adaptive filter from the entropy; the definitions stand in ``ops/entropy.py``.

Roofline row "weights". A filter with taps ``w_0`` in the centre and ``w_j`` at distance ``j`` is
kept as its side weights ``a_j = w_j / (w_0 + 2 Σ w_j)`` alone: the centre is ``1 - 2 Σ a_j``.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED, SIZES
from triton_reg.ops.level_settings import LevelSettings

_TINY = tl.constexpr(torch.finfo(torch.float32).tiny)
_BLOCK = 256


@triton.jit(do_not_specialize=SIZES)
def entropy_range_kernel(extremes, found, blocks, BLOCK: tl.constexpr):
    """Each pair's lowest and highest, ``found [B, 2]``, from ``extremes [B, 2, blocks]``.

    Grid ``(B,)``.
    A second small launch instead of atomics: nothing to initialise, and one order of summation.
    """
    pair = tl.program_id(0).to(tl.int64)
    row = extremes + pair * 2 * blocks
    lane = tl.arange(0, BLOCK)
    low = tl.full([BLOCK], float("inf"), tl.float32)
    high = tl.full([BLOCK], float("-inf"), tl.float32)
    for start in range(0, blocks, BLOCK):
        inside = start + lane < blocks
        low = tl.minimum(low, tl.load(row + start + lane, mask=inside, other=float("inf")))
        above = tl.load(row + blocks + start + lane, mask=inside, other=float("-inf"))
        high = tl.maximum(high, above)
    tl.store(found + pair * 2, tl.min(low, axis=0))
    tl.store(found + pair * 2 + 1, tl.max(high, axis=0))


@triton.jit(do_not_specialize=SIZES)
def weights_kernel(
    entropy,
    entropy_range,
    sides,
    voxels,
    base,
    gain,
    FROM_ZERO: tl.constexpr,
    RADIUS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Side weights ``[B, RADIUS, N]`` of Gaussians with ``sigma = base + gain log2(1 + E')``.

    ``E'`` is the entropy ``[B, N]`` brought to [0, 1] by its lowest (0 if ``FROM_ZERO``) and its
    highest value. Grid ``(cdiv(N, BLOCK), B)``.
    """
    pair = tl.program_id(1).to(tl.int64)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    origin = tl.load(entropy_range + pair * 2)
    if FROM_ZERO:
        origin = origin * 0
    span = tl.maximum(tl.load(entropy_range + pair * 2 + 1) - origin, _TINY)
    value = tl.load(entropy + pair * voxels + voxel, mask=inside, other=0.0)
    relative = tl.where(inside, (value - origin) / span, 0.0)
    sigma = tl.maximum(base + gain * tl.log2(1 + relative), 1e-3)
    precision = -0.5 / (sigma * sigma)
    total = tl.full([BLOCK], 1.0, tl.float32)
    for step in tl.static_range(1, RADIUS + 1):
        total += 2 * tl.exp(precision * (step * step))
    row = sides + pair * RADIUS * voxels + voxel
    for step in tl.static_range(1, RADIUS + 1):
        side = tl.exp(precision * (step * step)) / total
        tl.store(row + (step - 1) * voxels, side.to(sides.dtype.element_ty), mask=inside)


def entropy_range(extremes: Tensor, found: Tensor) -> None:
    """Each pair's lowest and highest, ``found [B, 2]``, from those of blocks ``[B, 2, blocks]``."""
    entropy_range_kernel[(len(extremes),)](extremes, found, extremes.shape[2], BLOCK=1024, **FUSED)


def entropy_weights(
    entropy: Tensor, entropy_range: Tensor, settings: LevelSettings, sides: Tensor
) -> None:
    """Side weights ``[B, tap_radius, N]`` that a level's settings give to ``entropy [B, N]``.

    Args:
        entropy_range: ``[B, 2]``, lowest and highest entropy of each pair.
        settings: those of an adaptive filter.
        sides: written; fp16 is enough for a packed cost volume.
    """
    batch, voxels = entropy.shape
    if settings.smoothing == "adaptive":
        base, highest = settings.sigma_range
        gain = highest - base
    else:
        base, gain = 0.0, settings.alpha * math.log(2)
    weights_kernel[(triton.cdiv(voxels, _BLOCK), batch)](
        entropy, entropy_range, sides, voxels, float(base), float(gain),
        FROM_ZERO=settings.smoothing != "adaptive", RADIUS=settings.tap_radius, BLOCK=_BLOCK,
        **FUSED,
    )  # fmt: skip
