"""Put displacements one after the other, and integrate a velocity by doing so with itself."""

from typing import Any

import torch
from torch import Tensor

from triton_reg.ops.checks import check_displacement, check_same_shape
from triton_reg.ops.operators import array, check_device, has_kernel, operator
from triton_reg.ops.resize import grid_shape
from triton_reg.ops.warp import warp_reference


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Move a point by ``first``, then from where it arrives by ``second``.

    ``composed(x) = first(x) + second(x + first(x))``; outside its grid ``second`` is zero.

    Args:
        first, second: ``[B, 3, D, H, W]`` in voxels, on one grid.

    Raises:
        ValueError: if the shapes differ or are not those of displacements.
    """
    check_displacement("compose", first)
    check_same_shape("compose", first=first, second=second)
    check_device("compose", first)
    return _compose(first, second)


def compose_reference(first: Tensor, second: Tensor) -> Tensor:
    """Plain torch definition of :func:`compose`."""
    return first + warp_reference(second, first, grid_shape(first))


def integrate(velocity: Tensor, steps: int = 7) -> Tensor:
    """Integrate a stationary velocity field over unit time by scaling and squaring.

    Arsigny et al., "A log-Euclidean framework for statistics on diffeomorphisms", MICCAI 2006.
    Differentiable.

    Args:
        velocity: ``[B, 3, D, H, W]`` in voxels per unit time.
        steps: number of squarings; the field is first divided by ``2 ** steps``.

    Raises:
        ValueError: if the shape is not that of a velocity or ``steps`` is negative.
    """
    check_displacement("integrate", velocity)
    if steps < 0:
        raise ValueError(f"integrate: steps must be at least 0, got {steps}")
    check_device("integrate", velocity)
    return _integrate(velocity, steps)


def integrate_reference(velocity: Tensor, steps: int = 7) -> Tensor:
    """Plain torch definition of :func:`integrate`."""
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = compose_reference(displacement, displacement)
    return displacement


@operator("triton_reg::compose")
def _compose(first: Tensor, second: Tensor) -> Tensor:
    if not has_kernel(first, second):
        return compose_reference(first, second)
    from triton_reg.ops._cpu import compose as cpu

    return torch.from_numpy(cpu.compose(array(first), array(second)))


@_compose.register_kernel("cuda")
def _compose_cuda(first: Tensor, second: Tensor) -> Tensor:
    if not has_kernel(first, second):
        return compose_reference(first, second)
    from triton_reg.ops._triton import compose as gpu

    flat = first.flatten(2).contiguous(), second.flatten(2).contiguous()
    found = torch.empty_like(flat[0])
    with torch.cuda.device_of(first):
        gpu.compose(*flat, grid_shape(first), found)
    return found.view_as(first)


@_compose.register_fake
def _(first: Tensor, second: Tensor) -> Tensor:
    del second
    return torch.empty_like(first)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
    first, second = ctx.saved_tensors
    if has_kernel(first, second, gradient):
        return _compose_backward(first, second, gradient)
    of_first, of_second = torch.func.vjp(compose_reference, first, second)[1](gradient)
    return of_first, of_second


@operator("triton_reg::compose_backward")
def _compose_backward(first: Tensor, second: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    from triton_reg.ops._cpu import compose_backward as cpu

    found = cpu.compose_backward(array(first), array(second), array(gradient))
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


@_compose_backward.register_kernel("cuda")
def _compose_backward_cuda(
    first: Tensor, second: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    from triton_reg.ops._triton import compose_backward as gpu

    flat = [one.flatten(2).contiguous() for one in (first, second, gradient)]
    with torch.cuda.device_of(first):
        found = gpu.compose_backward(flat[0], flat[1], flat[2], grid_shape(first))
    return found[0].view(first.shape), found[1].view(second.shape)


@_compose_backward.register_fake
def _(first: Tensor, second: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    del gradient
    return first.new_empty(first.shape), second.new_empty(second.shape)


_compose.register_autograd(_backward, setup_context=_setup_context)


@operator("triton_reg::integrate")
def _integrate(velocity: Tensor, steps: int) -> Tensor:
    if not has_kernel(velocity):
        return integrate_reference(velocity, steps)
    from triton_reg.ops._cpu import compose as cpu

    return torch.from_numpy(cpu.integrate(array(velocity), steps))


@_integrate.register_kernel("cuda")
def _integrate_cuda(velocity: Tensor, steps: int) -> Tensor:
    if not has_kernel(velocity):
        return integrate_reference(velocity, steps)
    from triton_reg.ops._triton import compose as gpu

    # its kernels overwrite what they are given
    flat = velocity.flatten(2).clone(memory_format=torch.contiguous_format)
    with torch.cuda.device_of(velocity):
        found, _ = gpu.integrate(flat, grid_shape(velocity), steps, torch.empty_like(flat))
    return found.view_as(velocity)


@_integrate.register_fake
def _(velocity: Tensor, steps: int) -> Tensor:
    del steps
    return torch.empty_like(velocity)


def _setup_integration(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
    del output
    ctx.save_for_backward(inputs[0])
    ctx.steps = inputs[1]


def _integrate_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    """Through the squarings, which are made again: meanwhile the velocity alone is kept."""
    (velocity,) = ctx.saved_tensors
    with torch.enable_grad():
        leaf = velocity.detach().requires_grad_()
        displacement = leaf / 2**ctx.steps
        for _ in range(ctx.steps):
            displacement = _compose(displacement, displacement)
        (of_velocity,) = torch.autograd.grad(displacement, leaf, gradient)
    return of_velocity, None


_integrate.register_autograd(_integrate_backward, setup_context=_setup_integration)
