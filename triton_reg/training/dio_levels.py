"""One level of DIO while it is trained: solved without gradients, differentiated at its end."""

import torch
from torch import Tensor

from triton_reg.methods.dio_solver import Solver
from triton_reg.methods.implicit import DescentStep, implicit_function, jacobian_free
from triton_reg.methods.level_grids import placement_on
from triton_reg.ops.advance import Moments
from triton_reg.training.dio_settings import DIOTrainingSettings


def solved_level(
    solver: Solver, level: int, start: Tensor, moments: Moments, settings: DIOTrainingSettings
) -> Tensor:
    """Vectors of a level, with gradients for its features.

    Args:
        solver: with the features, whose transform must be free-form or diffeomorphic.
        level: its number, 0 is the coarsest.
        start: vectors ``[1, 3, *n]`` to start from.
        moments: the optimiser's, changed in place.
        settings: how gradients pass the optimum.
    """
    own, grid = solver.settings, solver.grids[level]

    def solve(fixed: Tensor, moving: Tensor) -> Tensor:
        del fixed, moving  # the solver holds the same
        with torch.no_grad():
            return solver.descend(level, own.transform, None, start, moments).parameters

    features = solver.fixed.levels[level], solver.moving.levels[level]
    placement = placement_on(solver.matrix, grid)
    step = own.descent.step(own.transform, grid, own.voxel, own.force.loss)
    if settings.gradient == "phantom":
        last = DescentStep(placement, own.force, step, moments)
        return jacobian_free(solve, last, *features, settings.phantom_steps)
    plain = DescentStep(placement, own.force, step)
    return implicit_function(
        solve,
        plain.residual,
        *features,
        damping=settings.damping,
        is_relative=True,
        sigmas=step.gradient_sigmas,
    )
