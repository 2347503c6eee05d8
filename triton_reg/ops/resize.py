"""Resample a field to another grid over the same extent, corner voxel onto corner voxel."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.checks import check_volumes
from triton_reg.ops.operators import array, check_device, has_kernel, operator

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]


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
    check_device("resize", field)
    if grid_shape(field) == tuple(shape):
        return field
    return _resize(field, shape)


def resize_reference(field: Tensor, shape: Shape) -> Tensor:
    """Plain torch definition of :func:`resize`."""
    if grid_shape(field) == tuple(shape):
        return field
    return F.interpolate(field, size=tuple(shape), mode="trilinear", align_corners=True)


@operator("triton_reg::resize")
def _resize(field: Tensor, shape: Sequence[int]) -> Tensor:
    depth, height, width = shape
    if not has_kernel(field):
        return resize_reference(field, (depth, height, width))
    from triton_reg.ops._cpu import resize as cpu

    return torch.from_numpy(cpu.resize(array(field), (depth, height, width)))


@_resize.register_kernel("cuda")
def _resize_cuda(field: Tensor, shape: Sequence[int]) -> Tensor:
    depth, height, width = shape
    if not has_kernel(field):
        return resize_reference(field, (depth, height, width))
    from triton_reg.ops._triton import warp as gpu

    with torch.cuda.device_of(field):
        return gpu.resize(field.contiguous(), (depth, height, width))


@_resize.register_fake
def _(field: Tensor, shape: Sequence[int]) -> Tensor:
    return field.new_empty(*field.shape[:2], *shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Sequence[int]], output: Tensor) -> None:
    del output
    ctx.shape_in, ctx.shape_out = inputs[0].shape, list(inputs[1])


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    backward = torch.ops.aten.upsample_trilinear3d_backward
    return backward(gradient, ctx.shape_out, list(ctx.shape_in), True, None, None, None), None


_resize.register_autograd(_backward, setup_context=_setup_context)


def resize_nearest(labels: Tensor, shape: Shape) -> Tensor:
    """Resample labels ``[B, C, D, H, W]`` of any dtype: output voxel ``x`` takes
    ``floor(x * n_in / n_out)`` on each axis, as the published half-resolution protocol does."""
    for axis, size in enumerate(shape, start=2):
        source = labels.shape[axis]
        index = [(x * source) // size for x in range(size)]
        labels = labels.index_select(axis, labels.new_tensor(index).long())
    return labels
