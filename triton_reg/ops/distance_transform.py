"""Distances to the nearest voxel of a set."""

from collections.abc import Sequence

import torch
from torch import Tensor

from triton_reg.ops.checks import check_spacing
from triton_reg.ops.operators import array, check_device, operator
from triton_reg.ops.resize import Spacing


def distance_transform(mask: Tensor, spacing: Spacing = (1.0, 1.0, 1.0)) -> Tensor:
    """Squared Euclidean distance of each voxel to the nearest true voxel, exact.

    Separable: along an axis with voxels ``s`` apart, ``d(x) = min_i f(i) + s² (x - i)²`` of what
    the axes before have found. Felzenszwalb and Huttenlocher, "Distance transforms of sampled
    functions", Theory of Computing 8, 2012.

    Args:
        mask: ``[B, 1, D, H, W]``, bool.
        spacing: of the voxels along each axis; the result is in its square.

    Returns:
        ``[B, 1, D, H, W]`` float32; infinite where a mask has no true voxel.

    Raises:
        TypeError: if the mask is not bool.
        ValueError: if it is not ``[B, 1, D, H, W]``, or a spacing is not above 0.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"distance_transform: mask must be bool, got {mask.dtype}")
    if mask.dim() != 5 or mask.shape[1] != 1:
        raise ValueError(
            f"distance_transform: mask must be [B, 1, D, H, W], got {list(mask.shape)}"
        )
    check_spacing("distance_transform", spacing)
    check_device("distance_transform", mask)
    return _distance_transform(mask, spacing)


def distance_transform_reference(
    mask: Tensor, spacing: Spacing = (1.0, 1.0, 1.0), dtype: torch.dtype = torch.float32
) -> Tensor:
    """Plain torch definition of :func:`distance_transform`, also in float64."""
    squares = torch.full(mask.shape, torch.inf, dtype=dtype, device=mask.device)
    squares.masked_fill_(mask, 0)
    for axis, step in enumerate(spacing, start=2):
        size = mask.shape[axis]
        shape = [size if other == axis else 1 for other in range(5)]
        place = torch.arange(size, dtype=dtype, device=mask.device).view(shape)
        least = torch.full_like(squares, torch.inf)
        for i in range(size):
            torch.minimum(least, squares.narrow(axis, i, 1) + ((place - i) * step) ** 2, out=least)
        squares = least
    return squares


@operator("triton_reg::distance_transform")
def _distance_transform(mask: Tensor, spacing: Sequence[float]) -> Tensor:
    from triton_reg.ops._cpu import distance_transform as cpu

    first, second, third = spacing
    squares = cpu.distance_transform(array(mask[:, 0]), (first, second, third))
    return torch.from_numpy(squares)[:, None]


@_distance_transform.register_kernel("cuda")
def _distance_transform_cuda(mask: Tensor, spacing: Sequence[float]) -> Tensor:
    from triton_reg.ops._triton import distance_transform as gpu

    first, second, third = spacing
    with torch.cuda.device_of(mask):
        return gpu.distance_transform(mask, (first, second, third))


@_distance_transform.register_fake
def _(mask: Tensor, spacing: Sequence[float]) -> Tensor:
    del spacing
    return mask.new_empty(mask.shape, dtype=torch.float32)
