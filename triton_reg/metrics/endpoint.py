"""Lengths of displacements, and their distance to a known true one."""

import torch
from torch import Tensor

from triton_reg.ops.operators import array, has_kernel


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
    if vectors.shape != truth.shape:
        raise ValueError(
            f"endpoint_error_mm: vectors and truth must lie on one grid, got "
            f"{list(vectors.shape)} and {list(truth.shape)}"
        )
    return mean_length_mm(vectors - truth, spacing_mm, mask)


def mean_length_mm(vectors: Tensor, spacing_mm: tuple[float, float, float], mask: Tensor) -> Tensor:
    """Mean length of the vectors at the voxels of a mask.

    Compiled for float32 on CPUs, plain torch otherwise.

    Args:
        vectors: ``[B, 3, D, H, W]`` in voxels.
        spacing_mm: of a voxel along each axis.
        mask: ``[B, 1, D, H, W]``; voxels above 0 count.

    Returns:
        ``[B]`` float64 in mm; NaN where the mask is empty.

    Raises:
        ValueError: if the shapes differ.
    """
    if len(vectors) != len(mask) or vectors.shape[2:] != mask.shape[2:]:
        raise ValueError(
            f"mean_length_mm: vectors and mask must lie on one grid, got "
            f"{list(vectors.shape)} and {list(mask.shape)}"
        )
    if not vectors.is_cpu or not has_kernel(vectors):
        return mean_length_mm_reference(vectors, spacing_mm, mask)
    from triton_reg.ops._cpu.endpoint import length_sums

    pairs = zip(array(vectors.flatten(2)), array(mask.flatten(1)), strict=True)
    sums = [length_sums(one, spacing_mm, inside) for one, inside in pairs]
    total, count = torch.tensor(sums, dtype=torch.float64).unbind(1)
    return total / count


def mean_length_mm_reference(
    vectors: Tensor, spacing_mm: tuple[float, float, float], mask: Tensor
) -> Tensor:
    """Plain torch definition of :func:`mean_length_mm`."""
    squares = torch.zeros_like(vectors[:, 0])
    for axis, step_mm in enumerate(spacing_mm):
        squares.addcmul_(vectors[:, axis], vectors[:, axis], value=step_mm**2)
    weight = (mask > 0).flatten(1).double()
    return (squares.sqrt_().flatten(1) * weight).sum(1) / weight.sum(1)
