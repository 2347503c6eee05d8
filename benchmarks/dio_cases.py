"""What ``benchmarks/dio_cpu.py`` measures, with the bytes and operations that it takes at least.

They are counted in :mod:`cohort.studies.bench.floors`.

Plain torch is what one writes with ``grid_sample``, a mean, ``backward``, three ``conv3d`` and
Adam's formulas. Its derivative is that of the linear interpolation, so results are compared with
that of the kernels; the timed ones take the symmetric one, which reads more voxels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.pdd_cases import smooth
from cohort.studies.bench import floors
from triton_reg.ops.advance import Moments, StepSettings, advance
from triton_reg.ops.feature_force import ForceSettings, feature_force, feature_force_reference
from triton_reg.ops.gaussian import gaussian_taps
from triton_reg.ops.resize import Shape

Call = Callable[[], Tensor]
BRAIN: Shape = (96, 112, 96)
HALF: Shape = (48, 56, 48)


@dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        plain, kernel: plain torch and the compiled kernels.
        alike: two calls whose results must agree.
        bytes, operations: what any implementation has to do.
        tolerance: their root mean square difference as a share of their root mean square; rounding
            decides the derivative of the few samples that lie on a voxel.
    """

    plain: Call
    kernel: Call
    alike: tuple[Call, Call]
    bytes: float
    operations: float
    tolerance: float = 1e-3


@dataclass(frozen=True)
class Inputs:
    """Features, vectors off the voxels, and Adam's moments as after a few steps."""

    fixed: Tensor
    moving: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, shape: Shape, channels: int) -> "Inputs":
        fixed, moving = (
            smooth(shape, channels, seed).to(memory_format=torch.channels_last_3d)
            for seed in (1, 2)
        )
        return cls(fixed, moving, 2 * smooth(shape, 3, 3) + 0.3)

    def placement(self) -> Tensor:
        return torch.cat([torch.eye(3), torch.zeros(3, 1), torch.eye(3)], dim=1)[None]

    def moments(self, scale: float) -> Moments:
        """Adam's of gradients of about that size."""
        second = torch.full_like(self.vectors, scale**2)
        return Moments(torch.zeros_like(second), second, torch.full((1,), 20, dtype=torch.int32))


def normalised(vectors: Tensor) -> Tensor:
    """``[B, 3, D, H, W]`` in voxels to what ``grid_sample`` takes."""
    shape = vectors.shape[2:]
    still = F.affine_grid(torch.eye(3, 4)[None], [1, 1, *shape], align_corners=False)
    size = torch.tensor(shape).view(1, 3, 1, 1, 1)
    return still + (2 * vectors / size).flip(1).movedim(1, -1)


def plain_loss(inputs: Inputs, vectors: Tensor, loss: str) -> Tensor:
    warped = F.grid_sample(inputs.moving, normalised(vectors), align_corners=False)
    if loss == "mse":
        return F.mse_loss(warped, inputs.fixed)
    one, other, count = inputs.fixed, warped, 125

    def total(product: Tensor) -> Tensor:
        return F.avg_pool3d(product, 5, 1, 2) * count

    cross = total(one * other) - total(one) * total(other) / count
    first = (total(one * one) - total(one) ** 2 / count).clamp_min(1e-5)
    second = (total(other * other) - total(other) ** 2 / count).clamp_min(1e-5)
    return 1 - ((cross**2 + 1e-5) / (first * second + 1e-5)).mean()


def plain_smoothed(vectors: Tensor, sigma: float) -> Tensor:
    taps = torch.tensor(gaussian_taps(sigma))
    flat = vectors.flatten(0, 1)[:, None]
    for axis in range(3):
        shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
        shape[2 + axis], padding[axis] = len(taps), len(taps) // 2
        flat = F.conv3d(flat, taps.view(shape), padding=padding)
    return flat.view_as(vectors)


def plain_iteration(inputs: Inputs, moments: Moments, step: StepSettings, loss: str) -> Tensor:
    vectors = inputs.vectors.clone().requires_grad_()
    plain_loss(inputs, vectors, loss).backward()
    assert vectors.grad is not None
    with torch.no_grad():
        gradient = plain_smoothed(vectors.grad, 1.0)
        moments.steps.add_(1)
        steps = int(moments.steps)
        first, second = step.betas
        moments.first.mul_(first).add_(gradient, alpha=1 - first)
        moments.second.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = (moments.second / (1 - second**steps)).sqrt()
        direction = moments.first / (1 - first**steps) / (root + step.eps)
        if step.update == "add":
            return plain_smoothed(vectors - step.rate * direction, 0.5)
        longest = (direction.norm(dim=1).amax() + step.eps).clamp_min(1)
        move = -step.rate * direction / longest
        # one grid over the corner voxels: displacements are sampled as the kernels compose them
        place = normalised_corners(move)
        composed = move + F.grid_sample(vectors, place, align_corners=True)
        return plain_smoothed(composed, 0.5)


def normalised_corners(vectors: Tensor) -> Tensor:
    """As :func:`normalised`, with the corner voxels at -1 and 1."""
    shape = vectors.shape[2:]
    still = F.affine_grid(torch.eye(3, 4)[None], [1, 1, *shape], align_corners=True)
    size = torch.tensor(shape).view(1, 3, 1, 1, 1) - 1
    return still + (2 * vectors / size).flip(1).movedim(1, -1)


def iteration(shape: Shape, channels: int, step: StepSettings, force: ForceSettings) -> Case:
    """A force and a step of the optimiser."""
    inputs, voxels = Inputs.of(shape, channels), math.prod(shape)
    scale = 0.2 / voxels
    kept = inputs.moments(scale), inputs.moments(scale)

    @torch.no_grad()
    def kernel(force: ForceSettings, moments: Moments) -> Tensor:
        given = inputs.fixed, inputs.moving, inputs.vectors, inputs.placement(), force
        found = feature_force(*given)
        return advance(inputs.vectors, found.gradient, moments, step)

    linear = replace(force, derivative="linear")
    return Case(
        lambda: plain_iteration(inputs, kept[0], step, force.loss),
        lambda: kernel(force, kept[1]),
        (
            lambda: (
                plain_iteration(inputs, inputs.moments(scale), step, force.loss) - inputs.vectors
            ),
            lambda: kernel(linear, inputs.moments(scale)) - inputs.vectors,
        ),
        *floors.iteration(voxels, channels, force.loss, step.update),
    )


def training(shape: Shape, channels: int) -> Case:
    """A force and its gradient with respect to both features and the vectors."""
    inputs, voxels = Inputs.of(shape, channels), math.prod(shape)
    seed = smooth(shape, 3, 4)

    def gradients(call: Callable, settings: ForceSettings) -> Call:  # type: ignore[type-arg]
        def run() -> Tensor:
            given = [
                one.clone().requires_grad_()
                for one in (inputs.fixed, inputs.moving, inputs.vectors)
            ]
            found = call(*given, inputs.placement(), settings)
            turned = torch.autograd.grad(found.gradient, given, seed)
            return torch.cat([one.flatten() for one in turned])

        return run

    settings = ForceSettings()
    plain, kernel = gradients(feature_force_reference, settings), gradients(feature_force, settings)
    # features twice, their gradients, vectors and their gradients; the sample again, the splat, and
    # three sums of 20 products for each of two terms
    return Case(
        plain, kernel, (plain, kernel),
        (24 * channels + 60) * voxels, (2 * floors.SAMPLE + 20 * 4 + 20 * 12) * channels * voxels,
    )  # fmt: skip


def cases() -> dict[str, Callable[[], Case]]:
    added = StepSettings(rate=0.1, betas=(0.5, 0.99))
    composed = StepSettings(update="compose", rate=0.5, betas=(0.9, 0.99))
    squares, correlation = ForceSettings(), ForceSettings(loss="lncc")
    return {
        "free-form iteration 96x112x96x16": lambda: iteration(BRAIN, 16, added, squares),
        "diffeomorphic iteration 96x112x96x16": lambda: iteration(BRAIN, 16, composed, squares),
        "free-form iteration 96x112x96x12": lambda: iteration(BRAIN, 12, added, squares),
        "free-form iteration 96x112x96x1": lambda: iteration(BRAIN, 1, added, squares),
        "free-form iteration 96x112x96x1, lncc 5": lambda: iteration(BRAIN, 1, added, correlation),
        "force, forward and backward, 48x56x48x16": lambda: training(HALF, 16),
    }
