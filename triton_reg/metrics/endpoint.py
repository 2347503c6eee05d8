"""Distance of a displacement to a known true one."""

import torch
from torch import Tensor


def endpoint_error_mm(
    vectors: Tensor, truth: Tensor, spacing_mm: tuple[float, float, float], mask: Tensor
) -> Tensor:
    """Mean distance between where a displacement and the truth send the voxels of a mask.

    Args:
        vectors, truth: ``[B, 3, D, H, W]`` in voxels.
        spacing_mm: of the moving volume.
        mask: ``[B, 1, D, H, W]``; voxels above 0 count.

    Returns:
        ``[B]`` float64 in mm; NaN where the mask is empty.

    Raises:
        ValueError: if the shapes differ.
    """
    if vectors.shape != truth.shape or vectors.shape[2:] != mask.shape[2:]:
        raise ValueError(
            f"endpoint_error_mm: vectors, truth and mask must lie on one grid, got "
            f"{list(vectors.shape)}, {list(truth.shape)} and {list(mask.shape)}"
        )
    squares = torch.zeros_like(vectors[:, 0])
    for axis, step_mm in enumerate(spacing_mm):
        difference = vectors[:, axis] - truth[:, axis]
        squares.addcmul_(difference, difference, value=step_mm**2)
    weight = (mask > 0).flatten(1).double()
    return (squares.sqrt_().flatten(1) * weight).sum(1) / weight.sum(1)
