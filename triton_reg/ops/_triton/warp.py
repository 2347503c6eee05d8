"""Warping; the definitions stand in ``ops/warp.py`` and ``ops/resize.py``.

Roofline row "up_warp": the displacement of the level above is brought to this level's grid, stored,
and applied to the features in one launch. A line of channels is one wide load at each of the eight
corners, whose positions and weights serve all channels.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED, SIZES, Lines, Shape, coordinates, subject_lines
from triton_reg.ops._triton.sampling import cell, corner, nearest, sample_vectors

_BLOCK = 128


@triton.jit(do_not_specialize=SIZES)
def warp_features_kernel(
    features,
    coarse,
    displacement,
    warped,
    coarse_depth,
    coarse_height,
    coarse_width,
    step0,
    step1,
    step2,
    factor,
    depth,
    height,
    width,
    CP: tl.constexpr,
    HALF: tl.constexpr,
    RESIZED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Warp channels-last features by a displacement, zero outside.

    ``features``: addresses ``[B]`` of ``[N, CP]``; ``warped [B, N, CP]`` of the same dtype. With
    ``RESIZED`` the displacement is ``factor`` times the linear resampling of
    ``coarse [B, 3, n]``, whose voxels are reached in ``step`` a voxel, and is written to
    ``displacement [B, 3, N]``; without, that is what is read. Grid ``(cdiv(N, BLOCK), B)``.
    """
    pair, voxels = tl.program_id(1).to(tl.int64), depth * height * width
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    z, y, x = coordinates(voxel, height, width)
    row = displacement + pair * 3 * voxels + voxel
    if RESIZED:
        cz, gz = cell(z * step0)
        cy, gy = cell(y * step1)
        cx, gx = cell(x * step2)
        coarse += pair * 3 * coarse_depth * coarse_height * coarse_width
        size = (coarse_depth, coarse_height, coarse_width)
        d0, d1, d2 = sample_vectors(
            coarse, cz, cy, cx, gz, gy, gx, size[0], size[1], size[2], inside
        )
        d0, d1, d2 = factor * d0, factor * d1, factor * d2
        tl.store(row, d0, mask=inside)
        tl.store(row + voxels, d1, mask=inside)
        tl.store(row + 2 * voxels, d2, mask=inside)
    else:
        d0 = tl.load(row, mask=inside, other=0.0)
        d1 = tl.load(row + voxels, mask=inside, other=0.0)
        d2 = tl.load(row + 2 * voxels, mask=inside, other=0.0)
    z, fz = cell(z + d0)
    y, fy = cell(y + d1)
    x, fx = cell(x + d2)
    channels = tl.arange(0, CP)[None, :]
    features = subject_lines(features, pair, HALF)
    found = tl.zeros([BLOCK, CP], tl.float32)
    for index in tl.static_range(8):
        place, weight, valid = corner(z, y, x, fz, fy, fx, depth, height, width, index)
        line = features + place[:, None] * CP + channels
        value = tl.load(line, mask=(valid & inside)[:, None], other=0.0)
        found += weight[:, None] * value.to(tl.float32)
    out = warped + pair * voxels * CP + voxel[:, None] * CP + channels
    tl.store(out, found.to(warped.dtype.element_ty), mask=inside[:, None])


@triton.jit(do_not_specialize=SIZES)
def warp_kernel(
    volume,
    displacement,
    warped,
    channels,
    depth,
    height,
    width,
    step0,
    step1,
    step2,
    fixed_depth,
    fixed_height,
    fixed_width,
    DISPLACED: tl.constexpr,
    NEAREST: tl.constexpr,
    BORDER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sample ``volume [B, C, M]`` at ``x step + u(x)`` for the voxels of another grid of ``N``.

    ``displacement [B, 3, N]`` float32 is ``u``, zero unless ``DISPLACED``.
    Grid ``(cdiv(N, BLOCK), B)``; the channels share the positions.
    """
    pair = tl.program_id(1).to(tl.int64)
    voxels, size = fixed_depth * fixed_height * fixed_width, depth * height * width
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    z, y, x = coordinates(voxel, fixed_height, fixed_width)
    pz, py, px = z * step0, y * step1, x * step2
    if DISPLACED:
        row = displacement + pair * 3 * voxels + voxel
        pz += tl.load(row, mask=inside, other=0.0)
        py += tl.load(row + voxels, mask=inside, other=0.0)
        px += tl.load(row + 2 * voxels, mask=inside, other=0.0)
    # along an axis of one voxel there is nowhere to go, whatever the displacement says
    pz = tl.where(z * 0 + depth > 1, pz, 0.0)
    py = tl.where(y * 0 + height > 1, py, 0.0)
    px = tl.where(x * 0 + width > 1, px, 0.0)
    if BORDER:
        pz = tl.minimum(tl.maximum(pz, 0.0), depth - 1.0)
        py = tl.minimum(tl.maximum(py, 0.0), height - 1.0)
        px = tl.minimum(tl.maximum(px, 0.0), width - 1.0)
    if NEAREST:
        pz, py, px = nearest(pz), nearest(py), nearest(px)
    z, fz = cell(pz)
    y, fy = cell(py)
    x, fx = cell(px)
    volume += pair * channels * size
    out = warped + pair * channels * voxels + voxel
    for _ in range(channels):
        found = tl.zeros([BLOCK], tl.float32)
        for index in tl.static_range(1 if NEAREST else 8):
            place, weight, valid = corner(z, y, x, fz, fy, fx, depth, height, width, index)
            value = tl.load(volume + place, mask=valid & inside, other=0.0)
            found += weight * value.to(tl.float32)
        tl.store(out, found.to(warped.dtype.element_ty), mask=inside)
        volume += size
        out += voxels


def warp_features(features: Lines, displacement: Tensor, warped: Tensor) -> None:
    """Warp features by ``displacement [B, 3, N]`` in voxels into ``warped [B, N, CP]``."""
    shape = features.shape
    warp_features_kernel[(triton.cdiv(features.voxels, _BLOCK), len(features.addresses))](
        features.addresses, displacement, displacement, warped, *shape, 1.0, 1.0, 1.0, 1.0, *shape,
        CP=features.padded, HALF=features.dtype == torch.float16, RESIZED=False, BLOCK=_BLOCK,
        **FUSED,
    )  # fmt: skip


def upsample_and_warp(
    features: Lines, coarse: Tensor, displacement: Tensor, warped: Tensor, factor: float = 2.0
) -> None:
    """Bring a coarser level's displacement to this grid and warp the features by it.

    Args:
        coarse: ``[B, 3, d, h, w]`` in voxels of its own grid.
        displacement: written, ``[B, 3, N]`` in voxels of this level.
        warped: written, the features ``[B, N, CP]``.
        factor: by which the vectors grow.
    """
    shape, sizes = features.shape, coarse.shape[2:]
    warp_features_kernel[(triton.cdiv(features.voxels, _BLOCK), len(features.addresses))](
        features.addresses, coarse, displacement, warped, *sizes, *_steps(sizes, shape),
        float(factor), *shape,
        CP=features.padded, HALF=features.dtype == torch.float16, RESIZED=True, BLOCK=_BLOCK,
        **FUSED,
    )  # fmt: skip


def warp(
    volume: Tensor,
    displacement: Tensor | None,
    fixed_shape: Shape,
    *,
    interpolation: str = "linear",
    padding: str = "zeros",
) -> Tensor:
    """``volume [B, C, D, H, W]`` on the grid of ``fixed_shape``, as ``ops/warp.py`` defines it.

    Args:
        displacement: ``[B, 3, *fixed_shape]`` float32 in voxels of the volume; None for no
            displacement, which with ``padding="border"`` is a linear resampling.
        interpolation: ``"linear"``, or ``"nearest"`` (halves go to the even voxel).
        padding: ``"zeros"`` or ``"border"``.
    """
    batch, channels = volume.shape[:2]
    volume, sizes = volume.contiguous(), volume.shape[2:]
    warped = volume.new_empty(batch, channels, *fixed_shape)
    vectors = volume if displacement is None else displacement.contiguous()
    voxels = fixed_shape[0] * fixed_shape[1] * fixed_shape[2]
    warp_kernel[(triton.cdiv(voxels, _BLOCK), batch)](
        volume, vectors, warped, channels, *sizes, *_steps(sizes, fixed_shape), *fixed_shape,
        DISPLACED=displacement is not None, NEAREST=interpolation == "nearest",
        BORDER=padding == "border", BLOCK=_BLOCK,
        # without fused multiply-adds a label halfway between voxels goes where it does on CPUs
        enable_fp_fusion=False,
    )  # fmt: skip
    return warped


def resize(field: Tensor, shape: Shape) -> Tensor:
    """Linear resampling of ``[B, C, D, H, W]`` to ``shape``, corner voxel onto corner voxel."""
    return warp(field, None, shape, padding="border")


def _steps(sizes, shape):
    """Voxels of a grid of ``sizes`` for each voxel of a grid of ``shape`` over the same extent."""
    pairs = zip(sizes, shape, strict=True)
    return tuple(float((size - 1) / max(other - 1, 1)) for size, other in pairs)
