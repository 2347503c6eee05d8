"""DIO's solvers, and the gradients through them, against recorded runs of the published code."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from golden.vectors import Vectors
from torch import Tensor

from triton_reg.methods.descent import Course, StopRule
from triton_reg.methods.dio import DIO
from triton_reg.methods.dio_settings import DescentSettings
from triton_reg.methods.dio_solver import Sides, Solver
from triton_reg.methods.implicit import DescentStep, implicit_function, jacobian_free
from triton_reg.methods.level_grids import between, placement_on
from triton_reg.ops.advance import Moments
from triton_reg.ops.feature_force import feature_force
from triton_reg.ops.gaussian import smoothed_reference

FIXED, MOVING = (24, 32, 32), (28, 36, 40)
LEVELS = range(3)
DTYPES = [torch.float64, torch.float32]
NAMES = {torch.float64: "float64", torch.float32: "float32"}
TESTS = ["freeform_sgd_test", "freeform_adam_test", "diffeo_adam_test"]
PHANTOMS = ["freeform_sgd_jfb1", "freeform_sgd_jfb3", "freeform_adam_jfb1", "diffeo_adam_jfb1",
            "diffeo_sgd_jfb1"]  # fmt: skip


@pytest.fixture(scope="module")
def inputs() -> Iterator[Vectors]:
    vectors = Vectors("dio_input.npz")
    yield vectors
    for taps in ("gauss_grad_sigma1", "gauss_warp_sigma05"):
        vectors.take(taps)
    for level in LEVELS:
        vectors.take(f"cotangent_l{level}")
    vectors.close()


def sides(inputs: Vectors, dtype: torch.dtype) -> tuple[Sides, Sides]:
    fixed, moving = (
        [inputs.tensor(f"{side}_l{level}", dtype) for level in LEVELS]
        for side in ("fixed", "moving")
    )
    return Sides(fixed, [], FIXED), Sides(moving, [], MOVING)


def published(case: str, settings: dict[str, Any], levels: tuple[int, ...] = (4, 2, 1)) -> DIO:
    return DIO(
        transform="diffeomorphic" if case.startswith("diffeo") else "freeform",
        loss="mse",
        derivative="linear",
        levels=levels,
        iterations=tuple(settings["iterations"]),
        descent=DescentSettings(
            units="published",
            optimiser="adam" if "adam" in case else "sgd",
            rate=settings["learning_rate"],
            rule=StopRule(tolerance=settings["convergence_eps"], patience=4),
        ),
    )


def normalised(vectors: Tensor) -> Tensor:
    """``[1, 3, D, H, W]`` in voxels as the recorded ``[1, D, H, W, 3]``: x first, half extents."""
    size = vectors.new_tensor(vectors.shape[2:]).view(1, 3, 1, 1, 1)
    return (2 * vectors / size).flip(1).movedim(1, -1)


def in_voxels(recorded: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A gradient of the recorded vectors as one of vectors in voxels."""
    size = recorded.new_tensor(shape).view(1, 3, 1, 1, 1)
    return recorded.movedim(-1, 1).flip(1) * 2 / size


def check_warp(vectors: Vectors, level: int, found: Tensor) -> None:
    # channel-first, so that what was subsampled by voxels can be found
    key = f"warp_l{level}"
    recorded = torch.from_numpy(vectors.take(vectors.find(key)[0])).double()
    step = 2 if f"{key}_sub2" in vectors else 1
    error = (normalised(found)[0, ::step, ::step, ::step].double() - recorded).abs()
    assert error.quantile(0.99) <= 1e-5
    assert error.max() <= 1e-2


@pytest.mark.parametrize("dtype", DTYPES, ids=NAMES.values())
@pytest.mark.parametrize("case", TESTS)
def test_solvers_follow_the_published_ones(case: str, dtype: torch.dtype, inputs: Vectors) -> None:
    vectors = Vectors(f"dio_{case}.npz")
    method = published(case, json.loads(str(vectors.take("settings"))))
    solver = Solver(method, *sides(inputs, dtype), None)
    solver.solve()
    for level, course in enumerate(solver.courses):
        losses = vectors.take(f"losses_l{level}")
        assert abs(course.iterations.item() - len(losses)) <= 1
        assert course.loss.item() == pytest.approx(losses[-1], rel=1e-3)
        check_warp(vectors, level, course.parameters)
    vectors.close()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=NAMES.values())
@pytest.mark.parametrize("case", PHANTOMS)
def test_phantom_steps_give_the_published_gradients(
    case: str, dtype: torch.dtype, inputs: Vectors
) -> None:
    vectors = Vectors(f"dio_{case}.npz")
    settings = json.loads(str(vectors.take("settings")))
    found = through_levels(published(case, settings), settings, inputs, dtype)
    for level, (displacement, fixed, moving) in enumerate(found):
        vectors.take(f"losses_l{level}")
        check_warp(vectors, level, displacement)
        for name, gradient in (("fixed", fixed), ("moving", moving)):
            assert gradient is not None
            error = vectors.error(f"grad_{name}_l{level}", gradient)
            assert error.quantile(0.99) <= 1e-4 * gradient.abs().max()
    vectors.close()


def through_levels(
    method: DIO, settings: dict[str, Any], inputs: Vectors, dtype: torch.dtype
) -> list[tuple[Tensor, Tensor | None, Tensor | None]]:
    """Vectors of each level and the gradients of its features; levels hand on but constants."""
    fixed, moving = sides(inputs, dtype)
    solver = Solver(method, fixed, moving, None)
    transform = method.transform
    vectors = torch.zeros(1, 3, *solver.grids[0].shape, dtype=dtype)
    moments = Moments.of(vectors)
    found = []
    for level, grid in enumerate(solver.grids):
        if level:
            coarse = solver.grids[level - 1]
            vectors = 2 * between(vectors, coarse, grid)
            moments = Moments(*(between(one, coarse, grid) for one in moments[:2]), moments.steps)
        step = method.descent.step(transform, grid, method.voxel, "mse")
        courses: list[Course] = []

        def solve(
            a: Tensor, b: Tensor, start=vectors, level=level, courses=courses, own=moments
        ) -> Tensor:
            course = solver.descend(level, transform, None, start, own)
            courses.append(course)
            return course.parameters

        own = fixed.levels[level].requires_grad_(), moving.levels[level].requires_grad_()
        keeps = settings["phantom_step"] == "adam"
        differentiable = DescentStep(
            placement_on(solver.matrix, grid), method.force, step, moments if keeps else None
        )
        steps = settings["n_phantom_steps"]
        vectors = jacobian_free(solve, differentiable, *own, steps)
        if keeps and transform == "diffeomorphic":  # the published step leaves its mark
            moments = marked(moments, differentiable, courses[-1].parameters, *own)
        cotangent = inputs.tensor(f"cotangent_l{level}", dtype)
        vectors.backward(in_voxels(cotangent, grid.shape))
        vectors = vectors.detach()
        found.append((vectors, own[0].grad, own[1].grad))
    return found


def marked(
    moments: Moments, step: DescentStep, vectors: Tensor, fixed: Tensor, moving: Tensor
) -> Moments:
    """Moments whose first has seen the gradient of one more step."""
    with torch.no_grad():
        gradient = smoothed_reference(
            step.residual(fixed, moving, vectors), step.step.gradient_sigmas
        )
    decay = step.step.betas[0]
    return moments._replace(first=decay * moments.first + (1 - decay) * gradient)


@pytest.mark.parametrize("dtype", DTYPES, ids=NAMES.values())
def test_the_implicit_function_gives_the_published_gradients(
    dtype: torch.dtype, inputs: Vectors
) -> None:
    vectors = Vectors("dio_freeform_ift.npz")
    settings = json.loads(str(vectors.take("settings")))
    method = published("freeform_sgd", settings)
    fixed, moving = sides(inputs, dtype)
    solver = Solver(method, fixed, moving, None)
    start = torch.zeros(1, 3, *solver.grids[0].shape, dtype=dtype)
    for level, grid in enumerate(solver.grids):
        if level:
            start = 2 * between(start, solver.grids[level - 1], grid)
        unit = torch.tensor(grid.shape, dtype=dtype).view(1, 3, 1, 1, 1) / 2
        # in half extents, the unit in which the published code adds its damping
        placement = placement_on(solver.matrix, grid)
        placement = torch.cat([placement[..., :4], placement[..., 4:] * unit.view(1, 1, 3)], dim=2)

        def solve(a: Tensor, b: Tensor, start=start, level=level, unit=unit) -> Tensor:
            course = solver.descend(level, "freeform", None, start, Moments.of(start))
            return course.parameters / unit

        def residual(a: Tensor, b: Tensor, w: Tensor, placement=placement) -> Tensor:
            return feature_force(a, b, w, placement, method.force).gradient

        own = fixed.levels[level].requires_grad_(), moving.levels[level].requires_grad_()
        found = implicit_function(solve, residual, *own, sigmas=(1.0, 1.0, 1.0))
        cotangent = inputs.tensor(f"cotangent_l{level}", dtype).movedim(-1, 1).flip(1)
        found.backward(cotangent)
        start = found.detach() * unit
        vectors.take(f"losses_l{level}")
        check_ill_conditioned(vectors, level, start, own)
    vectors.close()


def check_ill_conditioned(
    vectors: Vectors, level: int, found: Tensor, features: tuple[Tensor, Tensor]
) -> None:
    """Medians alone: blocks that are nearly singular amplify rounding without bounds."""
    key = vectors.find(f"warp_l{level}")[0]
    recorded = torch.from_numpy(vectors.take(key)).double()
    step = 2 if key.endswith("_sub2") else 1
    error = normalised(found)[0, ::step, ::step, ::step].double() - recorded
    assert error.abs().median() <= 1e-5
    for name, feature in zip(("fixed", "moving"), features, strict=True):
        assert feature.grad is not None
        gradient_error = vectors.error(f"grad_{name}_l{level}", feature.grad)
        assert gradient_error.median() <= 1e-5 * feature.grad.abs().max()


@pytest.mark.parametrize("case", ["freeform_sgd", "freeform_adam", "diffeo_adam"])
@pytest.mark.parametrize("steps", [1, 5, 10, 20])
def test_a_level_alone_step_by_step(case: str, steps: int, inputs: Vectors) -> None:
    vectors, rates = one_level("dio_steps.npz")
    moving = inputs.tensor("moving_l1", torch.float32)
    found = on_level_1(case, steps, rates, inputs, moving)
    recorded = torch.from_numpy(vectors.take(f"{case}_k{steps}")).double()
    error = (normalised(found.parameters)[0].double() - recorded).abs()
    assert error.quantile(0.99) <= 1e-5
    assert error.max() <= 1e-2


@pytest.mark.parametrize("case", ["freeform_sgd", "freeform_adam", "diffeo_adam"])
def test_on_one_grid_the_loss_follows_the_published_one(case: str, inputs: Vectors) -> None:
    # every sample starts on a voxel, where rounding picks the side of the published derivative
    vectors, rates = one_level("dio_samesize.npz")
    moving = vectors.tensor("moving", torch.float32)
    for steps in (1, 10):
        found = on_level_1(case, steps, rates, inputs, moving)
        losses = vectors.take(f"{case}_k{steps}_losses")
        assert found.loss.item() == pytest.approx(losses[-1], rel=0.02)
        recorded = torch.from_numpy(vectors.take(f"{case}_k{steps}")).double()
        error = (normalised(found.parameters)[0].double() - recorded).abs()
        assert error.median() <= 2e-3


def one_level(name: str) -> tuple[Vectors, dict[str, Any]]:
    vectors = Vectors(name)
    return vectors, json.loads(str(vectors.take("settings")))


def on_level_1(
    case: str, steps: int, rates: dict[str, Any], inputs: Vectors, moving: Tensor
) -> Course:
    kind, _, optimiser = case.partition("_")
    rate = rates["diffeo_lr" if kind == "diffeo" else f"{optimiser}_lr"]
    settings = {
        "iterations": [steps],
        "learning_rate": rate,
        "convergence_eps": rates["convergence_eps"],
    }
    method = published(case, settings, levels=(1,))
    shape = (12, 16, 16)
    fixed = Sides([inputs.tensor("fixed_l1", torch.float32)], [], shape)
    solver = Solver(method, fixed, Sides([moving], [], tuple(moving.shape[2:])), None)
    solver.solve()
    return solver.courses[0]
