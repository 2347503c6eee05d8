"""Similarity of intensities."""

import torch
from torch import Tensor


def ncc(fixed: Tensor, warped: Tensor, mask: Tensor) -> Tensor:
    """Normalised cross-correlation over the voxels of a mask.

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
    weight = (mask > 0).flatten(1).double()
    count = weight.sum(1, keepdim=True).clamp_min(1)
    first, second = fixed.flatten(1).double(), warped.flatten(1).double()
    first = (first - (first * weight).sum(1, keepdim=True) / count) * weight
    second = (second - (second * weight).sum(1, keepdim=True) / count) * weight
    energy = (first**2).sum(1) * (second**2).sum(1)
    tiny = torch.finfo(torch.float64).tiny
    return (first * second).sum(1) / energy.clamp_min(tiny).sqrt()
