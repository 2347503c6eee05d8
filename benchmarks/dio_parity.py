"""Whether DIO's kernels and their plain-torch definitions agree on the same device.

Kernels may be off from the definition in float64 by four times what the definition in float32 is
off by, and by a few roundings of the largest value.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from triton_reg.ops._triton.advance import advance
from triton_reg.ops._triton.descent_graph import Outcome, Squares, Stop, descend_squares
from triton_reg.ops._triton.feature_force_backward import squares_force_backward
from triton_reg.ops._triton.force import feature_force
from triton_reg.ops.advance import Moments, StepSettings, advance_reference
from triton_reg.ops.feature_force import ForceSettings, feature_force_reference
from triton_reg.ops.resize import Shape, resize_reference
from triton_reg.ops.sampling import Derivative

FORCES = {
    "mse, symmetric": ForceSettings(),
    "mse, linear": ForceSettings(derivative="linear"),
    "lncc": ForceSettings(loss="lncc"),
}
STEPS = {
    "added": StepSettings(),
    "composed": StepSettings(update="compose", rate=0.5),
    "wide": StepSettings(gradient_sigmas=(2.0, 1.0, 0.0), vector_sigmas=(0.0, 1.6, 0.5)),
}


def fields(shape: Shape, channels: int, pairs: int, seed: int, device: torch.device) -> Tensor:
    """Smooth random values ``[B, C, D, H, W]`` in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    knots = (max(2, size // 4) for size in shape)
    return resize_reference(
        torch.rand(pairs, channels, *knots, generator=generator).to(device), shape
    )


def features(shape: Shape, channels: int, pairs: int, seed: int, device: torch.device) -> Tensor:
    """The same, channels last."""
    found = fields(shape, channels, pairs, seed, device)
    return found.contiguous(memory_format=torch.channels_last_3d)


def same_grid(pairs: int, device: torch.device) -> Tensor:
    """The placement of vectors in voxels between volumes of one size."""
    columns = torch.eye(3), torch.zeros(3, 1), torch.eye(3)
    return torch.cat(columns, dim=1).expand(pairs, 3, 7).contiguous().to(device)


def check_force(name: str, shape: Shape, moving_shape: Shape, device: torch.device) -> str:
    """Raise ``AssertionError`` unless the force on two pairs is its definition."""
    given = _compared_pairs(shape, moving_shape, device)
    weights, settings = fields(shape, 1, 2, 4, device), FORCES[name]
    found = feature_force(
        given[0], given[1], given[2], given[3], settings, weights=weights, active=None
    )

    def definition(dtype: torch.dtype) -> tuple[Tensor, ...]:
        tensors = [one.to(dtype) for one in given]
        return feature_force_reference(*tensors, settings=settings, weights=weights.to(dtype))

    return f"force, {name}, {shape}: {_compared(found, definition)}"


def check_force_backward(
    derivative: Derivative, shape: Shape, moving_shape: Shape, device: torch.device
) -> str:
    """Raise ``AssertionError`` unless a force on two pairs has the gradients of its definition."""
    given = _compared_pairs(shape, moving_shape, device)
    seeds = torch.tensor([0.7, -1.3], device=device), fields(shape, 3, 2, 5, device)
    fixed, moving, vectors, where = given
    wanted, symmetric = (True, True, True), derivative == "symmetric"
    found = squares_force_backward(
        fixed, moving, vectors, where, seeds, wanted, symmetric=symmetric
    )

    def definition(dtype: torch.dtype) -> tuple[Tensor, ...]:
        *sides, placement = (one.to(dtype) for one in given)

        def force(*tensors: Tensor) -> tuple[Tensor, ...]:
            settings = ForceSettings(derivative=derivative)
            return tuple(feature_force_reference(*tensors, placement, settings))

        return torch.func.vjp(force, *sides)[1](tuple(one.to(dtype) for one in seeds))

    return f"force backward, {derivative}, {shape}: {_compared(found, definition)}"


def check_step(name: str, shape: Shape, device: torch.device) -> str:
    """Raise ``AssertionError`` unless two steps of a pair, and one of another, are theirs."""
    start, first, second = (2 * fields(shape, 3, 2, seed, device) - 1 for seed in (1, 2, 3))
    active = torch.tensor([True, False], device=device)

    def steps(step: Callable[..., Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
        moments = Moments.of(start.to(dtype))
        moved = step(start.to(dtype), first.to(dtype), moments, STEPS[name])
        moved = step(moved, second.to(dtype), moments, STEPS[name], active)
        return moved, moments.first, moments.second

    found = steps(advance, torch.float32)
    return f"step, {name}, {shape}: {_compared(found, lambda t: steps(advance_reference, t))}"


def check_descent(shape: Shape, device: torch.device, graphs: bool) -> str:
    """Raise ``AssertionError`` unless a pair has the same bits alone, in a batch and again."""
    fixed, moving = (features(shape, 4, 3, seed, device) for seed in (1, 2))
    settings, stop = StepSettings(update="compose", rate=0.5), Stop(25, 1e-3, 4)

    def descent(pairs: slice) -> Outcome:
        sides = fixed[pairs].clone(), moving[pairs].clone()
        start = torch.zeros(len(sides[0]), 3, *shape, device=device)
        problem = Squares(*sides, same_grid(len(start), device), None, True)
        return descend_squares(problem, start, Moments.of(start), settings, stop, graphs=graphs)

    together, again, alone = descent(slice(None)), descent(slice(None)), descent(slice(1, 2))
    for whole, repeated, one in zip(together, again, alone, strict=True):
        assert torch.equal(whole, repeated), "descent: another run has other bits"
        assert torch.equal(whole[1:2], one), "descent: a pair alone has other bits"
    return f"descent, {shape}, graphs {graphs}: the same bits alone, in a batch and again"


def _compared_pairs(shape: Shape, moving_shape: Shape, device: torch.device) -> list[Tensor]:
    """Features of two pairs, vectors, and a placement that is off the voxels."""
    return [
        features(shape, 12, 2, 1, device),
        features(moving_shape, 12, 2, 2, device),
        2 * fields(shape, 3, 2, 3, device) - 1,
        same_grid(2, device) + 0.01,
    ]


def _compared(
    found: tuple[Tensor, ...], definition: Callable[[torch.dtype], tuple[Tensor, ...]]
) -> str:
    rounded, truth = definition(torch.float32), definition(torch.float64)
    said = []
    for one, own, exact in zip(found, rounded, truth, strict=True):
        error, own_error = ((a.double() - exact).abs().max().item() for a in (one, own))
        epsilon = torch.finfo(torch.float32).eps * exact.abs().max().item()
        assert error <= 4 * own_error + 32 * epsilon, f"{error} > {own_error}"
        said.append(f"{error:.1e} ({own_error:.1e})")
    return ", ".join(said)
