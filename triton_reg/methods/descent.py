"""Descent on one level: until features are as like as they get."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from triton_reg.ops.advance import Moments, StepSettings, advance
from triton_reg.ops.descend_squares import descend_squares, descends_on_gpu
from triton_reg.ops.feature_force import Force, ForceSettings, feature_force
from triton_reg.ops.sampling import positions_of, sampled_with_slopes

# on a GPU the host looks only so often whether every pair has stopped; a stopped pair costs nothing
_LOOK_EVERY = 16


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """When a pair has converged.

    Attributes:
        tolerance: an iteration counts as progress if it lowers the loss by this share of it.
        patience: iterations without progress, one after the other, after which a pair stops.
    """

    tolerance: float = 5e-4
    patience: int = 10


@dataclass(frozen=True, eq=False)
class Problem:
    """What vectors of one level should bring together.

    Attributes:
        fixed, moving: features ``[B, C, *n]`` and ``[B, C, *m]``.
        placement: where vectors lead, ``[B, 3, 7]``.
        force: how features are compared.
        weights: of the fixed voxels, ``[B, 1, *n]``; None for ones.
        forces: further forces on the vectors, given them and which pairs are active.
    """

    fixed: Tensor
    moving: Tensor
    placement: Tensor
    force: ForceSettings
    weights: Tensor | None = None
    forces: tuple[Callable[[Tensor, Tensor], Force], ...] = ()

    def evaluate(self, vectors: Tensor, active: Tensor) -> Force:
        """Loss ``[B]`` and gradient of all that there is; zeros for pairs that are not active."""
        loss, gradient = feature_force(
            self.fixed, self.moving, vectors, self.placement, self.force,
            weights=self.weights, active=active,
        )  # fmt: skip
        for force in self.forces:
            extra = force(vectors, active)
            loss, gradient = loss + extra.loss, gradient + extra.gradient
        return Force(loss, gradient)


class Parametrisation(Protocol):
    """How parameters ``[B, 3, ...]`` say what the vectors are."""

    def vectors(self, parameters: Tensor) -> Tensor:
        """Vectors ``[B, 3, *n]`` in voxels; differentiable."""
        ...


class Course(NamedTuple):
    """How the descent of each pair went.

    Attributes:
        parameters, moments: the last ones.
        iterations: evaluations of the loss, ``[B]`` int32.
        converged: ``[B]``; False where all iterations were used.
        loss: the last one, ``[B]``.
        gradient_ratio: length of the last gradient over that of the first, ``[B]``; NaN where the
            first was zero.
    """

    parameters: Tensor
    moments: Moments
    iterations: Tensor
    converged: Tensor
    loss: Tensor
    gradient_ratio: Tensor


def descend(
    problem: Problem,
    parametrisation: Parametrisation | None,
    parameters: Tensor,
    moments: Moments,
    step: StepSettings,
    iterations: int,
    rule: StopRule,
) -> Course:
    """Step until each pair has converged, or so many iterations.

    A pair stops before the step of the iteration that shows it, and each by itself, so that a batch
    gives what each pair alone does.

    Args:
        problem: see :class:`Problem`.
        parametrisation: of the vectors; None where the parameters are the vectors.
        parameters: to start from.
        moments: the optimiser's; changed in place.
        step, iterations, rule: how.
    """
    is_plain = parametrisation is None and not problem.forces
    if is_plain and descends_on_gpu(parameters, problem.force.loss):
        return _replayed(problem, parameters, moments, step, (iterations, rule))
    count = len(parameters)
    device = parameters.device
    active = torch.ones(count, dtype=torch.bool, device=device)
    done = torch.zeros(count, dtype=torch.int32, device=device)
    waited = torch.zeros_like(done)
    loss = parameters.new_full((count,), torch.inf)
    first, last = parameters.new_zeros(count), parameters.new_zeros(count)
    for iteration in range(iterations):
        force = _pulled(problem, parametrisation, parameters, active)
        length = _lengths(force.gradient)
        first = length if iteration == 0 else first
        last = torch.where(active, length, last)
        done += active
        progress = force.loss / loss - 1 <= -rule.tolerance
        waited = torch.where(progress, 0, waited + active)
        loss = torch.where(active, force.loss, loss)
        active = active & (waited < rule.patience)
        if (device.type == "cpu" or iteration % _LOOK_EVERY == 0) and not active.any():
            break
        parameters = advance(parameters, force.gradient, moments, step, active)
    return Course(parameters, moments, done, ~active, loss, last / first)


def _lengths(gradients: Tensor) -> Tensor:
    """``[B]``; pair by pair, as the order of a sum may depend on how many there are."""
    return torch.cat([one.flatten(1).norm(dim=1) for one in gradients.split(1)])


def _replayed(
    problem: Problem,
    vectors: Tensor,
    moments: Moments,
    step: StepSettings,
    stop: tuple[int, StopRule],
) -> Course:
    """The same on a GPU, where the iterations of a level are one operation."""
    iterations, rule = stop
    found = descend_squares(
        (problem.fixed, problem.moving, problem.placement, problem.weights),
        vectors,
        moments,
        step,
        is_symmetric=problem.force.derivative == "symmetric",
        stop=(iterations, rule.tolerance, rule.patience),
    )
    return Course(found[0], moments, *found[1:])


def _pulled(
    problem: Problem, parametrisation: Parametrisation | None, parameters: Tensor, active: Tensor
) -> Force:
    """Loss and gradient with respect to the parameters."""
    if parametrisation is None:
        return problem.evaluate(parameters, active)
    # runs register in inference mode, whose tensors take no gradient
    with torch.inference_mode(False), torch.enable_grad():
        leaf = parameters.clone().detach().requires_grad_()
        vectors = parametrisation.vectors(leaf)
        force = problem.evaluate(vectors.detach(), active)
        (gradient,) = torch.autograd.grad(vectors, leaf, force.gradient)
    return Force(force.loss, gradient)


def step_cosine(problem: Problem, vectors: Tensor, moving_volume: Tensor) -> Tensor:
    """How much of a step lies along the gradient of the moving volume's intensities, ``[B]``.

    The mean, weighted by the step's length, of the absolute cosine between the two. The squared
    difference of intensities gives 1: whatever is wanted, a voxel can but move along its intensity
    gradient. Directions at random give 1/2. Jena et al., Medical Image Analysis 2025, on features
    that are free of this bias.

    Args:
        problem: whose gradient, before any smoothing, is the step.
        vectors: where it is taken.
        moving_volume: ``[B, 1, *m]`` on the grid of the moving features.
    """
    active = torch.ones(len(vectors), dtype=torch.bool, device=vectors.device)
    gradient = problem.evaluate(vectors, active).gradient
    positions = positions_of(vectors, problem.placement)
    along = sampled_with_slopes(moving_volume, positions, problem.force.derivative).slopes[:, 0]
    along = torch.einsum("bia,bizyx->bazyx", problem.placement[..., 4:], along)
    length = gradient.norm(dim=1)
    aligned = (gradient * along).sum(1).abs() / along.norm(dim=1).clamp_min(1e-12)
    counted = along.norm(dim=1) > 0
    total = (length * counted).flatten(1).sum(1).clamp_min(torch.finfo(length.dtype).tiny)
    return (aligned * counted).flatten(1).sum(1) / total
