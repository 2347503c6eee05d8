"""Sums of the Jacobian determinant and its logarithms; defined in ``metrics/jacobian.py``.

One sweep over the displacement. Each block of voxels leaves its sums in float64 and they are added
in one order: the same bits each time.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import SIZES, coordinates

_BLOCK = 256
_LOWEST = tl.constexpr(1e-3)
_OFFSET, _LEAST, _MOST = tl.constexpr(3.0), tl.constexpr(1e-9), tl.constexpr(1e9)


@triton.jit
def determinant(a, b, c, d, e, f, g, h, i):
    """Of the matrix with the rows ``(a, b, c)``, ``(d, e, f)`` and ``(g, h, i)``."""
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


@triton.jit
def _slopes(component, stride, width, inside):
    """Central differences of a component along the three axes."""
    before = tl.load(component - stride, mask=inside, other=0.0)
    dz = 0.5 * (tl.load(component + stride, mask=inside, other=0.0) - before)
    before = tl.load(component - width, mask=inside, other=0.0)
    dy = 0.5 * (tl.load(component + width, mask=inside, other=0.0) - before)
    before = tl.load(component - 1, mask=inside, other=0.0)
    dx = 0.5 * (tl.load(component + 1, mask=inside, other=0.0) - before)
    return dz, dy, dx


@triton.jit(do_not_specialize=SIZES)
def jacobian_kernel(
    vectors,
    determinants,
    sums,
    depth,
    height,
    width,
    CROP: tl.constexpr,
    STORED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums over blocks of what ``det ∇(x + u)`` is for ``u = vectors [B, 3, N]`` float32.

    ``sums [B, 5, blocks]`` float64: voxels where it is not positive; ``l = ln max(det, 1e-3)`` and
    ``l²``; ``k = ln clip(det + 3, 1e-9, 1e9)`` and ``k²``; over the volume without ``CROP`` voxels
    on each side. ``determinants [B, n]`` of those voxels are written if ``STORED``.
    Grid ``(blocks, B)``.
    """
    pair, voxels = tl.program_id(1).to(tl.int64), depth * height * width
    inner_height, inner_width = height - 2 * CROP, width - 2 * CROP
    count = (depth - 2 * CROP) * inner_height * inner_width
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < count
    z, y, x = coordinates(lane, inner_height, inner_width)
    voxel = ((z + CROP) * height + y + CROP) * width + x + CROP
    first = vectors + pair * 3 * voxels + voxel
    stride = height * width
    uz, uy, ux = _slopes(first, stride, width, inside)
    vz, vy, vx = _slopes(first + voxels, stride, width, inside)
    wz, wy, wx = _slopes(first + 2 * voxels, stride, width, inside)
    det = determinant(uz + 1, uy, ux, vz, vy + 1, vx, wz, wy, wx + 1)
    if STORED:
        tl.store(determinants + pair * count + lane, det, mask=inside)
    # the difference is zero, or NaN where the determinant is not finite: maxima hide that
    hidden = det - det
    logarithm = (tl.log(tl.maximum(det, _LOWEST)) + hidden).to(tl.float64)
    clipped = tl.minimum(tl.maximum(det + _OFFSET, _LEAST), _MOST)
    learn2reg = (tl.log(clipped) + hidden).to(tl.float64)
    blocks = tl.num_programs(0)
    row = sums + pair * 5 * blocks + tl.program_id(0)
    tl.store(row, tl.sum((inside & (det <= 0)).to(tl.int32), axis=0).to(tl.float64))
    logarithm = tl.where(inside, logarithm, 0.0)
    tl.store(row + blocks, tl.sum(logarithm, axis=0))
    tl.store(row + 2 * blocks, tl.sum(logarithm * logarithm, axis=0))
    learn2reg = tl.where(inside, learn2reg, 0.0)
    tl.store(row + 3 * blocks, tl.sum(learn2reg, axis=0))
    tl.store(row + 4 * blocks, tl.sum(learn2reg * learn2reg, axis=0))


def jacobian_sums(
    vectors: Tensor, crop: int, determinants: Tensor | None = None
) -> tuple[Tensor, int]:
    """The five sums of :func:`jacobian_kernel` over the volume, ``[B, 5]`` float64, and over how
    many voxels.

    Args:
        vectors: ``[B, 3, D, H, W]`` float32 in voxels.
        crop: voxels left out on each side, at least 1.
        determinants: written if given, ``[B, n]`` float32 in the order of the volume.
    """
    vectors = vectors.contiguous()
    batch, _, *shape = vectors.shape
    depth, height, width = (size - 2 * crop for size in shape)
    count = depth * height * width
    blocks = triton.cdiv(count, _BLOCK)
    sums = torch.empty(batch, 5, blocks, dtype=torch.float64, device=vectors.device)
    jacobian_kernel[(blocks, batch)](
        vectors, vectors if determinants is None else determinants, sums, *shape,
        CROP=crop, STORED=determinants is not None, BLOCK=_BLOCK,
        # without fused multiply-adds what is folded is what the definition finds folded
        enable_fp_fusion=False,
    )  # fmt: skip
    return sums.sum(2), count
