"""Linear maps in DIO: gradients through them, training, and registration as runs call it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg import DIO, Regularisers, register_pair
from triton_reg.features.architecture import Architecture
from triton_reg.methods.implicit import DescentStep, jacobian_free
from triton_reg.methods.level_grids import LevelGrid, placement_on
from triton_reg.methods.parametrisations import Linear
from triton_reg.ops.advance import Moments, StepSettings
from triton_reg.ops.feature_force import ForceSettings
from triton_reg.training.dio import DIOTraining
from triton_reg.training.dio_settings import DIOTrainingSettings
from triton_reg.training.scans import Scans

SHAPE = (5, 6, 7)
NETWORK = Architecture(kind="unet", levels=(4, 2), channels=4, width=4)
STEP = 1e-5


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", ["affine", "rigid"])
def test_phantom_steps_of_a_map_have_the_gradient_of_the_steps(kind: str, steps: int) -> None:
    fixed, moving = (
        torch.cat([smooth_volume(SHAPE, seed + 9 * side) for seed in range(2)], dim=1).double()
        for side in (0, 1)
    )
    level = LevelGrid(SHAPE, 1)
    linear = Linear(level, SHAPE, kind)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(1, 3, linear.columns, 1, 1, generator=generator).double()
    optimum = 0.3 * weights.flip(2) + 0.2  # off the voxels, where nothing has a kink
    placement = placement_on(torch.eye(3, 4, dtype=torch.float64)[None], level)
    none = (0.0, 0.0, 0.0)
    step = StepSettings(gradient_sigmas=none, vector_sigmas=none)
    moments = Moments(weights.abs() * 1e-3, torch.full_like(weights, 1e-4), torch.ones(1))
    last = DescentStep(placement, ForceSettings(), step, moments, linear)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return (weights * jacobian_free(lambda *_: optimum, last, a, b, steps)).sum()

    leaves = fixed.requires_grad_(), moving.requires_grad_()
    found = torch.autograd.grad(loss(*leaves), leaves)
    for row, gradient in enumerate(found):
        for index in (3, 101, 350):
            sides = []
            for sign in (1, -1):
                given = [leaf.detach().clone() for leaf in leaves]
                given[row].view(-1)[index] += sign * STEP
                sides.append(loss(*given))
            expected = (sides[0] - sides[1]) / (2 * STEP)
            assert torch.allclose(gradient.flatten()[index], expected, rtol=1e-4, atol=1e-9)
        assert gradient.abs().max() > 1e-6


def training(transform: str, **settings: Any) -> DIOTraining:
    volumes = torch.cat([smooth_volume((20, 16, 16), seed) for seed in range(2)])
    labels = (volumes > volumes.median()).int()
    method = DIO(transform=transform, levels=(4, 2), iterations=(4, 4))  # type: ignore[arg-type]
    chosen = DIOTrainingSettings(steps=3, curriculum=(0.0, 0.0), **settings)
    return DIOTraining(Scans.of(volumes, labels), chosen, method, NETWORK)


@pytest.mark.parametrize("transform", ["affine", "rigid"])
def test_features_are_trained_through_a_map(transform: str) -> None:
    learner = training(transform)
    before = learner.model()
    losses = [learner.step() for _ in range(2)]
    assert all(0 < loss < 2 for loss in losses)
    changed = {name for name, one in learner.model().items() if not torch.equal(one, before[name])}
    # the heads of both levels, and what lies below
    assert {"final_convs.2.1.conv.weight", "final_convs.3.1.conv.weight"} <= changed


@pytest.mark.parametrize("transform", ["svf", "bspline"])
def test_other_transforms_are_refused(transform: str) -> None:
    with pytest.raises(ValueError, match=f"one of freeform, .*, rigid, got '{transform}'"):
        training(transform)


def test_the_implicit_function_theorem_is_for_vectors() -> None:
    with pytest.raises(ValueError, match="affine maps by gradient='phantom' alone"):
        training("affine", gradient="implicit")


@pytest.mark.parametrize(
    "changes",
    [{"transform": one} for one in ("affine", "rigid", "svf", "bspline")]
    + [{"regularisers": Regularisers(diffusion=0.1)}],
    ids=lambda one: str(next(iter(one.values()))),
)
def test_inference_mode_changes_nothing(changes: dict[str, Any]) -> None:
    fixed, moving = (smooth_volume((9, 10, 11), seed)[0, 0] for seed in (0, 1))
    method = replace(DIO(levels=(2, 1), iterations=(3, 3)), **changes)
    expected = register_pair(method, fixed, moving).displacement.vectors
    with torch.inference_mode():
        found = register_pair(method, fixed, moving).displacement.vectors
    assert torch.equal(found, expected)
    assert found.abs().max() > 0.01
