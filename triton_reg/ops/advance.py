"""One step of an optimiser on a vector field: smooth, direct, move, smooth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from triton_reg.ops.checks import check_displacement, check_same_shape
from triton_reg.ops.compose import compose, compose_reference
from triton_reg.ops.gaussian import Sigmas, smoothed, smoothed_reference, taps_of
from triton_reg.ops.operators import array, check_device, has_kernel, operator

Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """How a step goes.

    Attributes:
        update: ``"add"`` subtracts the step; ``"compose"`` moves by the step first and then by
            what was, with a step that is nowhere longer than ``rate``.
        optimiser: ``"adam"``, or ``"sgd"`` for the gradient itself.
        rate: length of a step in units.
        betas: decay of Adam's moments.
        eps: what Adam adds to its root.
        unit: voxels of the grid in a unit of length, along each axis.
        gradient_sigmas: of the gradient's smoothing, in voxels along each axis; 0 is none.
        vector_sigmas: of the smoothing of the moved vectors.
    """

    update: Literal["add", "compose"] = "add"
    optimiser: Literal["adam", "sgd"] = "adam"
    rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    unit: Vector = (1.0, 1.0, 1.0)
    gradient_sigmas: Sigmas = (1.0, 1.0, 1.0)
    vector_sigmas: Sigmas = (0.5, 0.5, 0.5)

    def values(self) -> tuple[Any, ...]:
        """What the operator takes."""
        return tuple(getattr(self, field.name) for field in fields(self))

    @classmethod
    def from_values(cls, values: Sequence[Any]) -> "StepSettings":
        """What :meth:`values` told."""
        given: list[Any] = [tuple(one) if isinstance(one, list) else one for one in values]
        return cls(**dict(zip((field.name for field in fields(cls)), given, strict=True)))


class Moments(NamedTuple):
    """What Adam remembers: means ``[B, 3, D, H, W]`` and the number of steps ``[B]``."""

    first: Tensor
    second: Tensor
    steps: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> "Moments":
        """Those before the first step."""
        steps = torch.zeros(len(vectors), dtype=torch.int32, device=vectors.device)
        return cls(torch.zeros_like(vectors), torch.zeros_like(vectors), steps)


def advance(
    vectors: Tensor,
    gradient: Tensor,
    moments: Moments,
    settings: StepSettings,
    active: Tensor | None = None,
) -> Tensor:
    """Vectors after one step, and, in place, the optimiser's moments.

    The gradient is smoothed and taken per unit of length; its direction is Adam's or its own;
    vectors move against it and are smoothed. Jena et al., "Deep implicit optimization enables
    robust learnable features for deformable image registration", Medical Image Analysis 2025;
    composition as in "FireANTs", 2024.

    Args:
        vectors: ``[B, 3, D, H, W]`` in voxels of their grid.
        gradient: of the loss with respect to the vectors, of that shape.
        moments: changed in place.
        settings: see :class:`StepSettings`.
        active: ``[B]``, which pairs go on; the others stay as they are. All if omitted.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    check_displacement("advance", vectors)
    check_same_shape(
        "advance", vectors=vectors, gradient=gradient, first=moments.first, second=moments.second
    )
    if moments.steps.shape != vectors.shape[:1]:
        raise ValueError(
            f"advance: steps must be [{len(vectors)}], got {list(moments.steps.shape)}"
        )
    check_device("advance", vectors)
    return _advance(vectors, gradient, *moments, active, *settings.values())


def advance_reference(
    vectors: Tensor,
    gradient: Tensor,
    moments: Moments,
    settings: StepSettings,
    active: Tensor | None = None,
) -> Tensor:
    """Plain torch definition of :func:`advance`."""
    live = torch.ones_like(moments.steps) if active is None else active.to(moments.steps)
    moments.steps.add_(live)
    chosen = live.view(-1, 1, 1, 1, 1) > 0
    unit = vectors.new_tensor(settings.unit).view(1, 3, 1, 1, 1)
    direction = smoothed_reference(gradient, settings.gradient_sigmas) * unit
    if settings.optimiser == "adam":
        for moment, power, beta in zip(moments[:2], (1, 2), settings.betas, strict=True):
            updated = beta * moment + (1 - beta) * direction**power
            moment.copy_(torch.where(chosen, updated, moment))
        direction = adam_direction(moments.first, moments, settings)
    moved = _moved_by(vectors, direction, settings, compose_reference)
    return torch.where(chosen, smoothed_reference(moved, settings.vector_sigmas), vectors)


def adam_direction(first: Tensor, moments: Moments, settings: StepSettings) -> Tensor:
    """``m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)`` (Kingma and Ba, ICLR 2015)."""
    steps = moments.steps.view(-1, 1, 1, 1, 1).to(first.dtype)
    decay_first, decay_second = settings.betas
    root = moments.second.sqrt() / (1 - decay_second**steps).sqrt()
    return first / (1 - decay_first**steps) / (root + settings.eps)


def moved_by(vectors: Tensor, direction: Tensor, settings: StepSettings) -> Tensor:
    """Vectors after a step against a direction in units, smoothed; differentiable in both."""
    return smoothed(_moved_by(vectors, direction, settings, compose), settings.vector_sigmas)


def _moved_by(
    vectors: Tensor,
    direction: Tensor,
    settings: StepSettings,
    compose: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    unit = vectors.new_tensor(settings.unit).view(1, 3, 1, 1, 1)
    if settings.update == "add":
        return vectors - settings.rate * unit * direction
    longest = direction.norm(dim=1).flatten(1).amax(1) + settings.eps
    step = -settings.rate * unit * direction / longest.clamp_min(1).view(-1, 1, 1, 1, 1)
    return compose(step, vectors)


@operator(
    "triton_reg::advance",
    schema="(Tensor vectors, Tensor gradient, Tensor(a!) first, Tensor(b!) second,"
    " Tensor(c!) steps, Tensor? active, str update, str optimiser, float rate, float[] betas,"
    " float eps, float[] unit, float[] gradient_sigmas, float[] vector_sigmas) -> Tensor",
)
def _advance(
    vectors: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    steps: Tensor,
    active: Tensor | None,
    *values: Any,
) -> Tensor:
    settings, moments = StepSettings.from_values(values), Moments(first, second, steps)
    if not has_kernel(vectors, gradient, first, second):
        return advance_reference(vectors, gradient, moments, settings, active)
    from triton_reg.ops._cpu import advance as cpu

    arrays = array(first), array(second), array(steps)
    moved = cpu.advance(
        array(vectors), array(gradient), arrays, None if active is None else array(active),
        settings, (taps_of(settings.gradient_sigmas), taps_of(settings.vector_sigmas)),
    )  # fmt: skip
    for moment, changed in zip(moments, arrays, strict=True):
        if not moment.is_contiguous():
            moment.copy_(torch.from_numpy(changed))
    return torch.from_numpy(moved)


@_advance.register_kernel("cuda")
def _advance_cuda(
    vectors: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    steps: Tensor,
    active: Tensor | None,
    *values: Any,
) -> Tensor:
    settings, moments = StepSettings.from_values(values), Moments(first, second, steps)
    if not has_kernel(vectors, gradient, first, second):
        return advance_reference(vectors, gradient, moments, settings, active)
    from triton_reg.ops._triton import advance as gpu

    with torch.cuda.device_of(vectors):
        return gpu.advance(vectors, gradient, moments, settings, active)


@_advance.register_fake
def _(vectors: Tensor, *arguments: Any, **settings: Any) -> Tensor:
    del arguments, settings
    return vectors.new_empty(vectors.shape)
