"""Resample a field to another grid over the same extent, corner voxel onto corner voxel."""

import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.checks import check_volumes

Shape = tuple[int, int, int]


def grid_shape(field: Tensor) -> Shape:
    """``(D, H, W)`` of a field ``[B, C, D, H, W]``."""
    depth, height, width = field.shape[2:]
    return depth, height, width


def resize(field: Tensor, shape: Shape) -> Tensor:
    """Resample linearly to ``shape``; corner voxels stay corner voxels, values are not rescaled.

    Output voxel ``x`` reads ``x * (n_in - 1) / (n_out - 1)`` on each axis.

    Args:
        field: ``[B, C, D, H, W]``.
        shape: the new ``(D, H, W)``, each at least 1.

    Raises:
        ValueError: if ``field`` is not five-dimensional or ``shape`` is not positive.
    """
    check_volumes("resize", field=field)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"resize: shape must be three positive sizes, got {shape}")
    return resize_reference(field, shape)


def resize_reference(field: Tensor, shape: Shape) -> Tensor:
    """Plain torch definition of :func:`resize`."""
    if grid_shape(field) == tuple(shape):
        return field
    return F.interpolate(field, size=tuple(shape), mode="trilinear", align_corners=True)


def resize_nearest(labels: Tensor, shape: Shape) -> Tensor:
    """Resample labels ``[B, C, D, H, W]`` of any dtype: output voxel ``x`` takes
    ``floor(x * n_in / n_out)`` on each axis, as the published half-resolution protocol does."""
    for axis, size in enumerate(shape, start=2):
        source = labels.shape[axis]
        index = [(x * source) // size for x in range(size)]
        labels = labels.index_select(axis, labels.new_tensor(index).long())
    return labels
