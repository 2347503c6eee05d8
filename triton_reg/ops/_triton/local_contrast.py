"""Local contrast; the definition stands in ``ops/local_contrast.py``."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.box import box_means
from triton_reg.ops._triton.layout import FUSED, SIZES

_BLOCK = 256


@triton.jit(do_not_specialize=SIZES)
def contrast_kernel(volume, means, contrast, voxels, floor, BLOCK: tl.constexpr):
    """``(x - mean) / (sd + floor)`` of ``volume [N]`` from ``means [2, N]`` of ``x`` and ``x²``.

    Grid ``(cdiv(N, BLOCK),)``.
    """
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    value = tl.load(volume + voxel, mask=inside, other=0.0)
    mean = tl.load(means + voxel, mask=inside, other=0.0)
    square = tl.load(means + voxels + voxel, mask=inside, other=0.0)
    variance = tl.maximum(square - mean * mean, 0.0)
    found = (value - mean) / (tl.sqrt(variance) + floor)
    tl.store(contrast + voxel, found, mask=inside)


def local_contrast(volume: Tensor, widths: tuple[int, ...], floor: float) -> Tensor:
    """``[N, 1, D, H, W]`` float32 in, ``[N, len(widths), D, H, W]`` out, subject by subject."""
    count, _, depth, height, width = volume.shape
    flat = volume.reshape(count, -1).contiguous()
    voxels = flat.shape[1]
    contrast = flat.new_empty(count, len(widths), voxels)
    for subject in range(count):
        for channel, side in enumerate(widths):
            powers = torch.stack([flat[subject], flat[subject] ** 2])
            means, _ = box_means(
                powers, (depth, height, width), side // 2, torch.empty_like(powers)
            )
            contrast_kernel[(triton.cdiv(voxels, _BLOCK),)](
                flat[subject], means, contrast[subject, channel], voxels, float(floor),
                BLOCK=_BLOCK, **FUSED,
            )  # fmt: skip
    return contrast.view(count, len(widths), depth, height, width)
