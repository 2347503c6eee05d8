"""Sample a volume through a displacement."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.checks import check_choice, check_displacement, check_volumes
from triton_reg.ops.operators import array, check_device, has_kernel, operator
from triton_reg.ops.resize import Shape, grid_shape, resize, resize_reference

Interpolation = Literal["linear", "nearest"]
Padding = Literal["zeros", "border"]


def warp(
    volume: Tensor,
    displacement: Tensor,
    *,
    fixed_shape: Shape | None = None,
    interpolation: Interpolation = "linear",
    padding: Padding = "zeros",
) -> Tensor:
    """Sample ``volume`` at the positions that a displacement gives to the fixed grid.

    Fixed voxel ``x`` reads ``volume`` at ``x * (m - 1) / (f - 1) + u(x)`` per axis, for sizes ``m``
    of the volume and ``f`` of the fixed grid; on one shared grid that is ``x + u(x)``. Along an
    axis of one voxel every sample stays on it.

    Args:
        volume: ``[B, C, D, H, W]``, the moving volume.
        displacement: ``u``, ``[B, 3, d, h, w]`` in voxels of ``volume``; channel i runs along axis
            i. Its corner points are the corner voxels of the fixed grid.
        fixed_shape: ``(D, H, W)`` of the output; the displacement's own grid if omitted.
        interpolation: ``"linear"``, or ``"nearest"`` (halves go to the even voxel) for labels.
        padding: what lies outside the volume: ``"zeros"``, or ``"border"`` for the edge voxel.

    Returns:
        The warped volume ``[B, C, *fixed_shape]``.

    Raises:
        ValueError: if the shapes do not fit together, or there is no such interpolation or padding.
    """
    check_volumes("warp", volume=volume)
    check_displacement("warp", displacement)
    check_choice("warp", "interpolation", interpolation, get_args(Interpolation))
    check_choice("warp", "padding", padding, get_args(Padding))
    if volume.shape[0] != displacement.shape[0]:
        raise ValueError(
            f"warp: volume and displacement must share one batch size, got {volume.shape[0]} "
            f"and {displacement.shape[0]}"
        )
    shape = grid_shape(displacement) if fixed_shape is None else fixed_shape
    check_device("warp", volume)
    return _warp(volume, displacement, shape, interpolation, padding)


def warp_reference(
    volume: Tensor,
    displacement: Tensor,
    fixed_shape: Shape,
    interpolation: Interpolation = "linear",
    padding: Padding = "zeros",
) -> Tensor:
    """Plain torch definition of :func:`warp`."""
    # half precision has no room for a position: near voxel 200 its steps are an eighth of a voxel
    values, vectors = (
        one.to(torch.promote_types(one.dtype, torch.float32)) for one in (volume, displacement)
    )
    vectors = resize_reference(vectors, fixed_shape)
    normalised = []
    for axis, (fixed_size, size) in enumerate(zip(fixed_shape, volume.shape[2:], strict=True)):
        voxel = torch.arange(fixed_size, dtype=vectors.dtype, device=vectors.device)
        voxel = voxel * ((size - 1) / max(fixed_size - 1, 1))
        position = vectors[:, axis] + voxel.view([-1 if a == axis else 1 for a in range(3)])
        normalised.append(position * (2 / max(size - 1, 1)) - 1)
    # grid_sample wants the last axis first
    grid = torch.stack(normalised[::-1], dim=-1).to(values.dtype)
    mode = "bilinear" if interpolation == "linear" else "nearest"
    sampled = F.grid_sample(values, grid, mode=mode, padding_mode=padding, align_corners=True)
    return sampled.to(volume.dtype)


@operator("triton_reg::warp")
def _warp(
    volume: Tensor,
    displacement: Tensor,
    fixed_shape: Sequence[int],
    interpolation: str,
    padding: str,
) -> Tensor:
    depth, height, width = fixed_shape
    shape = (depth, height, width)
    if not has_kernel(volume, displacement):
        return warp_reference(volume, displacement, shape, interpolation, padding)  # type: ignore[arg-type]
    from triton_reg.ops._cpu import warp as cpu

    vectors = array(resize(displacement, shape))
    warped = cpu.warp(array(volume), vectors, interpolation=interpolation, padding=padding)
    return torch.from_numpy(warped)


@_warp.register_kernel("cuda")
def _warp_cuda(
    volume: Tensor,
    displacement: Tensor,
    fixed_shape: Sequence[int],
    interpolation: str,
    padding: str,
) -> Tensor:
    depth, height, width = fixed_shape
    shape = (depth, height, width)
    if not has_kernel(volume, displacement):
        return warp_reference(volume, displacement, shape, interpolation, padding)  # type: ignore[arg-type]
    from triton_reg.ops._triton import warp as gpu

    vectors = displacement.contiguous()
    with torch.cuda.device_of(volume):
        if grid_shape(displacement) != shape:
            vectors = gpu.resize(vectors, shape)
        return gpu.warp(
            volume.contiguous(), vectors, shape, interpolation=interpolation, padding=padding
        )


@_warp.register_fake
def _(
    volume: Tensor,
    displacement: Tensor,
    fixed_shape: Sequence[int],
    interpolation: str,
    padding: str,
) -> Tensor:
    del displacement, interpolation, padding
    return volume.new_empty(*volume.shape[:2], *fixed_shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs[:2])
    ctx.values = inputs[2:]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    volume, displacement = ctx.saved_tensors
    (depth, height, width), interpolation, padding = ctx.values
    plain = interpolation == "linear" and padding == "zeros"
    same_grid = grid_shape(displacement) == (depth, height, width)
    kernel = volume.device.type == "cpu" and has_kernel(volume, displacement, gradient)
    if plain and same_grid and kernel:
        return *_warp_backward(volume, displacement, gradient), None, None, None

    def sample(volume: Tensor, displacement: Tensor) -> Tensor:
        shape = depth, height, width
        return warp_reference(volume, displacement, shape, interpolation, padding)

    return *torch.func.vjp(sample, volume, displacement)[1](gradient), None, None, None


@operator("triton_reg::warp_backward")
def _warp_backward(volume: Tensor, displacement: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Of linear samples, zero outside, with a displacement on the fixed grid."""
    from triton_reg.ops._cpu import warp_backward as cpu

    found = cpu.warp_backward(array(volume), array(displacement), array(gradient))
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


@_warp_backward.register_fake
def _(volume: Tensor, displacement: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    del gradient
    return volume.new_empty(volume.shape), displacement.new_empty(displacement.shape)


_warp.register_autograd(_backward, setup_context=_setup_context)
