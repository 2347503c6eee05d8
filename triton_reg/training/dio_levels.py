"""One level of DIO while it is trained: solved without gradients, differentiated at its end."""

from typing import NamedTuple

import torch
from torch import Tensor

from triton_reg.methods.dio import DIO
from triton_reg.methods.dio_refinement import refined
from triton_reg.methods.dio_settings import LINEAR
from triton_reg.methods.dio_solver import Solver
from triton_reg.methods.implicit import DescentStep, implicit_function, jacobian_free
from triton_reg.methods.level_grids import placement_on
from triton_reg.methods.parametrisations import Linear
from triton_reg.ops.advance import Moments
from triton_reg.training.dio_settings import DIOTrainingSettings

_TRAINED_THROUGH = ("freeform", "diffeomorphic", *LINEAR)


def check_trainable(method: DIO, settings: DIOTrainingSettings) -> None:
    """Refuse a descent that no gradient can pass.

    Raises:
        ValueError: if the transform is another, or there is no such gradient of it.
    """
    if method.transform not in _TRAINED_THROUGH:
        raise ValueError(
            f"DIOTraining: transform must be one of {', '.join(_TRAINED_THROUGH)}, got "
            f"{method.transform!r}; features learned through one of them serve the others too"
        )
    if method.transform in LINEAR and settings.gradient != "phantom":
        raise ValueError(
            f"DIOTraining: gradients pass {method.transform} maps by gradient='phantom' alone, "
            f"got {settings.gradient!r}"
        )


class Solved(NamedTuple):
    """Where a level ended.

    Attributes:
        parameters: vectors ``[1, 3, *n]``, or those of a linear map.
        vectors: what they stand for, ``[1, 3, *n]`` in the level's voxels.
        moments: the optimiser's.
    """

    parameters: Tensor
    vectors: Tensor
    moments: Moments


def solved_level(
    solver: Solver, level: int, before: Solved | None, settings: DIOTrainingSettings
) -> Solved:
    """A level's optimum, with gradients for its features.

    Args:
        solver: with the features, whose transform must be one that :func:`check_trainable` lets
            pass.
        level: its number, 0 is the coarsest.
        before: where the next coarser level ended, to start from; a constant. None for nowhere.
        settings: how gradients pass the optimum.
    """
    own, grid, linear = solver.settings, solver.grids[level], _linear(solver, level)
    start, moments = _start(solver, level, before)

    def solve(fixed: Tensor, moving: Tensor) -> Tensor:
        del fixed, moving  # the solver holds the same
        with torch.no_grad():
            return solver.descend(level, own.transform, linear, start, moments).parameters

    features = solver.fixed.levels[level], solver.moving.levels[level]
    placement = placement_on(solver.matrix, grid)
    step = own.descent.step(own.transform, grid, own.voxel, own.force.loss)
    if settings.gradient == "phantom":
        last = DescentStep(placement, own.force, step, moments, linear)
        found = jacobian_free(solve, last, *features, settings.phantom_steps)
    else:
        reach = settings.reach, settings.reach, settings.reach
        plain = DescentStep(placement, own.force, step)
        found = implicit_function(
            solve,
            plain.residual,
            *features,
            damping=settings.damping,
            is_relative=True,
            sigmas=reach,
            block_sigmas=reach,
        )
    return Solved(found, found if linear is None else linear.vectors(found), moments)


def _start(solver: Solver, level: int, before: Solved | None) -> tuple[Tensor, Moments]:
    """Parameters and moments to start from; vectors are counted in the level's own voxels."""
    linear, grid = _linear(solver, level), solver.grids[level]
    if before is None:
        shape = grid.shape if linear is None else (linear.columns, 1, 1)
        parameters = solver.fixed.levels[level].new_zeros(1, 3, *shape)
        return parameters, Moments.of(parameters)
    parameters, moments = before.parameters.detach(), before.moments
    if linear is not None:
        return parameters, moments
    units = solver.settings.descent.units
    return refined(parameters, moments, solver.grids[level - 1], grid, units)


def _linear(solver: Solver, level: int) -> Linear | None:
    """The map whose parameters are sought; None where it is the vectors themselves."""
    own = solver.settings
    if own.transform not in LINEAR:
        return None
    return Linear(solver.grids[level], solver.fixed.shape, own.transform, own.voxel)
