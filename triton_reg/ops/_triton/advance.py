"""One step of an optimiser on a vector field; defined in ``ops/advance.py``.

The gradient is smoothed, Adam's moments updated and the direction found in one launch; a composed
step needs the length of the longest direction and a launch of its own; the last one smooths. In
units of a field of vectors, 12 bytes a voxel: 9 are moved where steps are added, 12 where they are
composed. Nothing waits for the GPU, so that steps can be captured in a graph.
"""

# pyright: reportArgumentType=false, reportCallIssue=false
# (triton annotates its language for its own compiler, not for a type checker)

import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from triton_reg.ops._triton.gaussian import (
    is_narrow,
    planes_a_program,
    radii,
    smooth,
    smooth_axes,
    taps_on,
)
from triton_reg.ops._triton.layout import FUSED, Shape
from triton_reg.ops._triton.reduction import reduced
from triton_reg.ops._triton.step_kernels import (
    count_kernel,
    direct_kernel,
    follow_kernel,
    length_kernel,
)
from triton_reg.ops.advance import Moments, StepSettings

_BLOCK = 128
_LENGTHS = 1024  # voxels of a program that measures directions


@dataclass(frozen=True)
class StepMemory:
    """What a step writes besides moments and vectors.

    Attributes:
        direction, moved: ``[B, 3, D, H, W]``; ``moved`` may be the gradient's memory.
        bias: of the moments, ``[B, 2]``.
    """

    direction: Tensor
    moved: Tensor
    bias: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> "StepMemory":
        """Memory of its own."""
        shape, batch = vectors.shape, len(vectors)
        return cls(vectors.new_empty(shape), vectors.new_empty(shape), vectors.new_empty(batch, 2))


def advance(
    vectors: Tensor,
    gradient: Tensor,
    moments: Moments,
    settings: StepSettings,
    active: Tensor | None = None,
) -> Tensor:
    """See :func:`triton_reg.ops.advance.advance`."""
    vectors, gradient = vectors.contiguous(), gradient.contiguous()
    kept = Moments(moments.first.contiguous(), moments.second.contiguous(), moments.steps)
    mask = torch.ones_like(moments.steps) if active is None else active
    memory, found = StepMemory.of(vectors), torch.empty_like(vectors)
    mask = mask.to(torch.uint8)
    count_steps(moments.steps, mask, memory.bias, settings)
    step(vectors, gradient, kept, settings, mask, memory)
    smooth(moved_by_step(memory, settings), found, vectors, settings.vector_sigmas, mask)
    for moment, changed in zip(moments[:2], kept[:2], strict=True):
        if moment is not changed:
            moment.copy_(changed)
    return found


def count_steps(steps: Tensor, active: Tensor, bias: Tensor, settings: StepSettings) -> None:
    """Count one step more of pairs that are active ``[B]`` uint8, and write what corrects Adam."""
    first, second = logarithms(settings)
    count_kernel[(len(steps),)](steps, active, bias, LOG_FIRST=first, LOG_SECOND=second)


def logarithms(settings: StepSettings) -> tuple[float, float]:
    """Of Adam's decays."""
    first, second = (math.log(beta) if beta > 0 else -math.inf for beta in settings.betas)
    return first, second


def step(
    vectors: Tensor,
    gradient: Tensor,
    moments: Moments,
    settings: StepSettings,
    active: Tensor,
    memory: StepMemory,
) -> None:
    """Moments and moved vectors of active pairs; :func:`moved_by_step` says where they are.

    Steps are counted already. The gradient is lost where its memory is that of moved vectors.
    """
    batch, _, depth, height, width = vectors.shape
    shape: Shape = depth, height, width
    sigmas = settings.gradient_sigmas
    if not is_narrow(sigmas):
        gradient, sigmas = smooth_axes(gradient, sigmas), (0.0, 0.0, 0.0)
    planes = planes_a_program(shape, 3 * batch)
    grid = triton.cdiv(height * width, _BLOCK), triton.cdiv(depth, planes), 3 * batch
    radius_z, radius_y, radius_x = radii(sigmas)
    added = settings.update == "add"
    direct_kernel[grid](
        gradient, vectors, moments.first, moments.second, memory.direction,
        taps_on(sigmas, vectors.device), active, memory.bias, *map(float, settings.unit),
        float(settings.rate), *map(float, settings.betas), float(settings.eps), planes, *shape,
        ADAM=settings.optimiser == "adam", ADDED=added,
        RADIUS_Z=radius_z, RADIUS_Y=radius_y, RADIUS_X=radius_x, BLOCK=_BLOCK, **FUSED,
    )  # fmt: skip
    if not added:
        _follow(vectors, memory, settings, active)


def _follow(vectors: Tensor, memory: StepMemory, settings: StepSettings, active: Tensor) -> None:
    """Compose the step against the direction with the vectors."""
    batch, _, depth, height, width = vectors.shape
    voxels = depth * height * width
    longest = vectors.new_empty(batch, triton.cdiv(voxels, _LENGTHS))
    length_kernel[longest.shape[::-1]](
        memory.direction, longest, active, voxels, BLOCK=_LENGTHS, **FUSED
    )
    follow_kernel[(triton.cdiv(voxels, _BLOCK), batch)](
        memory.direction, vectors, memory.moved, reduced(longest, maximum=True), active,
        *map(float, settings.unit), float(settings.rate), float(settings.eps),
        depth, height, width, BLOCK=_BLOCK, **FUSED,
    )  # fmt: skip


def moved_by_step(memory: StepMemory, settings: StepSettings) -> Tensor:
    """Where :func:`step` leaves the moved vectors, before they are smoothed."""
    return memory.direction if settings.update == "add" else memory.moved
