"""Probabilities of displacement labels and what they say; see ``ops/dense_match.py``.

A program holds all labels of a control point in registers, which are read once.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED

_TILE = 32  # points and labels of a program that writes probabilities
_LABELS_A_WARP = 512


@triton.jit
def summary_kernel(
    message,
    weights,
    mean,
    entropy,
    covariance,
    scales,
    WIDTH: tl.constexpr,
    ROW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Of ``softmax_l(-sharpness message)``, ``message [B, P, ROW]``. Grid ``(P, B)``.

    ``mean [B, 3, P]``, ``entropy [B, P]``, ``covariance [B, 6, P]``; ``scales [B, 2, P]``: the
    highest logit and one over the sum of the exponentials of what others are below it.
    """
    pair, point, points = tl.program_id(1).to(tl.int64), tl.program_id(0), tl.num_programs(0)
    label = tl.arange(0, BLOCK)
    inside = label < WIDTH * WIDTH * WIDTH
    row = message + (pair * points + point) * ROW + label
    # what pads a row is read too, in whole words, and not used
    logit = -tl.load(weights + 3) * tl.load(row, mask=label < ROW, other=0.0)
    highest = tl.max(tl.where(inside, logit, float("-inf")), axis=0)
    power = tl.where(inside, logit - highest, 0.0)
    share = tl.where(inside, tl.exp(power), 0.0)
    mass = tl.sum(share, axis=0)
    share = share / mass
    tl.store(entropy + pair * points + point, tl.log(mass) - tl.sum(share * power, axis=0))
    scales += pair * 2 * points + point
    tl.store(scales, highest)
    tl.store(scales + points, 1 / mass)
    z = (label // (WIDTH * WIDTH) - WIDTH // 2).to(tl.float32)
    y = (label // WIDTH % WIDTH - WIDTH // 2).to(tl.float32)
    x = (label % WIDTH - WIDTH // 2).to(tl.float32)
    mean_z, mean_y, mean_x = tl.sum(share * z), tl.sum(share * y), tl.sum(share * x)
    mean += pair * 3 * points + point
    tl.store(mean, mean_z)
    tl.store(mean + points, mean_y)
    tl.store(mean + 2 * points, mean_x)
    z, y, x = z - mean_z, y - mean_y, x - mean_x
    covariance += pair * 6 * points + point
    tl.store(covariance, tl.sum(share * z * z))
    tl.store(covariance + points, tl.sum(share * y * y))
    tl.store(covariance + 2 * points, tl.sum(share * x * x))
    tl.store(covariance + 3 * points, tl.sum(share * z * y))
    tl.store(covariance + 4 * points, tl.sum(share * z * x))
    tl.store(covariance + 5 * points, tl.sum(share * y * x))


@triton.jit
def probabilities_kernel(
    message, weights, scales, probabilities, points, labels, ROW: tl.constexpr, TILE: tl.constexpr
):
    """``probabilities [B, L, P]`` of ``message [B, P, ROW]``: a transposition through the chip.

    Grid ``(cdiv(P, TILE), cdiv(L, TILE), B)``.
    """
    pair = tl.program_id(2).to(tl.int64)
    point = tl.program_id(0) * TILE + tl.arange(0, TILE)
    label = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = (point[:, None] < points) & (label[None, :] < labels)
    place = message + (pair * points + point[:, None]) * ROW + label[None, :]
    logit = -tl.load(weights + 3) * tl.load(place, mask=inside, other=0.0)
    scales += pair * 2 * points + point
    highest = tl.load(scales, mask=point < points, other=0.0)
    scale = tl.load(scales + points, mask=point < points, other=0.0)
    share = tl.trans(tl.exp(logit - highest[:, None]) * scale[:, None])
    out = probabilities + (pair * labels + label[:, None]) * points + point[None, :]
    tl.store(out, share, mask=(point[None, :] < points) & (label[:, None] < labels))


def summarise(
    message: Tensor,
    weights: Tensor,
    width: int,
    summary: tuple[Tensor, Tensor, Tensor],
    scales: Tensor,
) -> None:
    """Fill ``(mean [B, 3, P], entropy [B, P], covariance [B, 6, P])`` and ``scales [B, 2, P]``."""
    block = triton.next_power_of_2(width**3)
    summary_kernel[(message.shape[1], len(message))](
        message, weights, *summary, scales, WIDTH=width, ROW=message.shape[2], BLOCK=block,
        num_warps=min(8, max(1, block // _LABELS_A_WARP)), **FUSED,
    )  # fmt: skip


def write_probabilities(
    message: Tensor, weights: Tensor, scales: Tensor, probabilities: Tensor
) -> None:
    """Fill ``probabilities [B, L, P]`` from what :func:`summarise` left in ``scales``."""
    batch, labels, points = probabilities.shape
    grid = (triton.cdiv(points, _TILE), triton.cdiv(labels, _TILE), batch)
    probabilities_kernel[grid](
        message, weights, scales, probabilities, points, labels, ROW=message.shape[2], TILE=_TILE,
        **FUSED,
    )  # fmt: skip
