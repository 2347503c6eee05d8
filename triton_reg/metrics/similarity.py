"""Similarity of intensities."""

import torch
from torch import Tensor

from triton_reg.ops.operators import array, has_kernel


def ncc(fixed: Tensor, warped: Tensor, mask: Tensor) -> Tensor:
    """Normalised cross-correlation over the voxels of a mask.

    Compiled for float32 on CPUs, plain torch otherwise.

    Args:
        fixed, warped: ``[B, 1, D, H, W]``.
        mask: of the same shape; voxels above 0 count.

    Returns:
        ``[B]`` float64 in [-1, 1]; 0 where either volume is constant inside the mask.

    Raises:
        ValueError: if the shapes differ.
    """
    if not fixed.shape == warped.shape == mask.shape:
        raise ValueError(
            f"ncc: fixed, warped and mask must share one shape, got {list(fixed.shape)}, "
            f"{list(warped.shape)} and {list(mask.shape)}"
        )
    if not fixed.is_cpu or not has_kernel(fixed, warped):
        return ncc_reference(fixed, warped, mask)
    from triton_reg.ops._cpu.similarity import correlation_sums

    arrays = [array(volume.flatten(1)) for volume in (fixed, warped, mask)]
    sums = [correlation_sums(*pair) for pair in zip(*arrays, strict=True)]
    columns = torch.tensor(sums, dtype=torch.float64).unbind(1)
    count, first, second, first_squares, second_squares, products = columns
    count = count.clamp_min(1)
    first_energy = first_squares - first**2 / count
    second_energy = second_squares - second**2 / count
    tiny = torch.finfo(torch.float64).tiny
    energy = (first_energy * second_energy).clamp_min(tiny)
    return (products - first * second / count) / energy.sqrt()


def ncc_reference(fixed: Tensor, warped: Tensor, mask: Tensor) -> Tensor:
    """Plain torch definition of :func:`ncc`."""
    weight = (mask > 0).flatten(1).double()
    count = weight.sum(1, keepdim=True).clamp_min(1)
    first, second = fixed.flatten(1).double(), warped.flatten(1).double()
    first = (first - (first * weight).sum(1, keepdim=True) / count) * weight
    second = (second - (second * weight).sum(1, keepdim=True) / count) * weight
    energy = (first**2).sum(1) * (second**2).sum(1)
    tiny = torch.finfo(torch.float64).tiny
    return (first * second).sum(1) / energy.clamp_min(tiny).sqrt()
