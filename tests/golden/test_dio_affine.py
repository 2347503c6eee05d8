"""DIO's affine solver, unrolled, against a recorded run of the published code."""

import pytest
import torch
from golden.vectors import Vectors
from torch import Tensor

from triton_reg.methods.dio_solver import Sides, start_matrix
from triton_reg.methods.implicit import DescentStep
from triton_reg.methods.level_grids import LevelGrid, placement_on
from triton_reg.methods.parametrisations import Linear
from triton_reg.ops.advance import StepSettings
from triton_reg.ops.feature_force import ForceSettings, feature_force
from triton_reg.ops.resize import grid_shape

RATE, STEPS = 0.1, 15
FORCE = ForceSettings(loss="mse", derivative="linear")


def half_extents(fixed: Tensor) -> Tensor:
    """From the centre to the corner voxels: the published unit of length, ``[3, 1]``."""
    return (fixed.new_tensor(fixed.shape[2:])[:, None] - 1) / 2


def step_on(fixed: Tensor, moving: Tensor) -> tuple[DescentStep, Linear]:
    """The published step, in half extents, of parameters in voxels."""
    shape = grid_shape(fixed)
    level = LevelGrid(shape, 1)
    sides = Sides([fixed], [], shape), Sides([moving], [], grid_shape(moving))
    map_of = Linear(level, shape, "affine")
    depth, height, width = half_extents(fixed).flatten().tolist()
    settings = StepSettings(
        optimiser="sgd",
        rate=RATE,
        unit=(depth, height, width),
        gradient_sigmas=(0, 0, 0),
        vector_sigmas=(0, 0, 0),
    )
    placement = placement_on(start_matrix(*sides, "voxel"), level)
    return DescentStep(placement, FORCE, settings, parametrisation=map_of), map_of


def matrix_of(parameters: Tensor, fixed: Tensor) -> Tensor:
    """The recorded ``[3, 4]``, x first, corner voxels at -1 and 1."""
    change = parameters[0].flatten(1) / half_extents(fixed)
    linear, shift = change[:, :3].flip(0, 1), change[:, 3:].flip(0)
    return torch.cat([torch.eye(3).to(linear) + linear, shift], dim=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_the_unrolled_affine_descent_is_the_published_one(dtype: torch.dtype) -> None:
    vectors, inputs = Vectors("dio_affine.npz"), Vectors("dio_input.npz")
    sides = ("fixed", "moving")
    features = {
        f"{side}_l{level}": inputs.tensor(f"{side}_l{level}", dtype).requires_grad_()
        for level in (0, 1)
        for side in sides
    }
    lengths, matrix = torch.zeros(1, 3, 4, 1, 1, dtype=dtype), None  # in half extents
    for level in (0, 1):
        fixed, moving = (features[f"{side}_l{level}"] for side in sides)
        half = half_extents(fixed).view(1, 3, 1, 1, 1)
        step, map_of = step_on(fixed, moving)
        parameters, losses = lengths * half, []
        for _ in range(STEPS):
            reached = map_of.vectors(parameters)
            losses.append(feature_force(fixed, moving, reached, step.placement, FORCE).loss.item())
            parameters = step(fixed, moving, parameters)
        parameters = step(fixed, moving, parameters)  # the phantom one
        assert losses == pytest.approx(vectors.take(f"losses_l{level}").tolist(), rel=1e-5)
        lengths, matrix = parameters / half, matrix_of(parameters, fixed)
        assert vectors.error(f"affine_l{level}", matrix[None]).max() <= 1e-5
    # through the steps of both levels; only the last matrix was asked for a gradient
    assert matrix is not None
    matrix.backward(torch.from_numpy(vectors.take("cotangent")).to(dtype))
    for name, feature in features.items():
        assert feature.grad is not None
        error = vectors.error(f"grad_{name}", feature.grad)
        assert error.quantile(0.99) <= 1e-4 * feature.grad.abs().max()
    vectors.close()
