"""Gradients through an optimum: against finite differences, and whatever the solver."""

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg import DIO, DescentSettings, SoftVoxelOpt, StopRule
from triton_reg.methods.dio_solver import Sides, Solver
from triton_reg.methods.implicit import DescentStep, implicit_function, jacobian_free
from triton_reg.methods.level_grids import placement_on
from triton_reg.ops.advance import Moments
from triton_reg.ops.feature_force import ForceSettings, feature_force

SHAPE = (5, 6, 7)
STEP = 1e-5


def features(channels: int = 4) -> tuple[Tensor, Tensor]:
    """Two that match once one of them is shifted a little, float64."""
    both = [
        torch.cat([smooth_volume(SHAPE, seed + shift) for seed in range(channels)], dim=1).double()
        for shift in (0, 100)
    ]
    return both[0], (both[0] + 0.1 * both[1])


def placed(shift: float = 0.3) -> Tensor:
    """Samples start off the voxels, where nothing has a kink."""
    placement = torch.zeros(1, 3, 7, dtype=torch.float64)
    placement[:, :, :3] = placement[:, :, 4:] = torch.eye(3)
    placement[:, :, 3] = shift
    return placement


def numeric_gradient(loss, tensor: Tensor, indices: list[int]) -> Tensor:
    found = []
    for index in indices:
        sides = []
        for sign in (1, -1):
            moved = tensor.detach().clone()
            moved.view(-1)[index] += sign * STEP
            sides.append(loss(moved))
        found.append((sides[0] - sides[1]) / (2 * STEP))
    return torch.stack(found)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("update", ["add", "compose"])
def test_phantom_steps_have_the_gradient_of_the_steps(update: str, steps: int) -> None:
    fixed, moving = features()
    weights = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    optimum = 0.1 * weights.flip(-1)
    settings = DIO(transform="freeform" if update == "add" else "diffeomorphic").descent
    transform = "freeform" if update == "add" else "diffeomorphic"
    level = Solver(DIO(), Sides([fixed], [], SHAPE), Sides([moving], [], SHAPE), None).grids[-1]
    step = settings.step(transform, level, (1.0, 1.0, 1.0), "mse")
    moments = Moments(weights.abs() * 1e-3, torch.full_like(weights, 1e-4), torch.ones(1))
    last = DescentStep(placed(), ForceSettings(), step, moments)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return (weights * jacobian_free(lambda *_: optimum, last, a, b, steps)).sum()

    leaves = fixed.requires_grad_(), moving.requires_grad_()
    found = torch.autograd.grad(loss(*leaves), leaves)
    indices = [3, 101, 350, 611, 803]
    for row, gradient in enumerate(found):

        def one(tensor: Tensor, row: int = row) -> Tensor:
            given = [leaf.detach() for leaf in leaves]
            given[row] = tensor
            return loss(*given)

        expected = numeric_gradient(one, leaves[row], indices)
        assert torch.allclose(gradient.flatten()[indices], expected, rtol=1e-4, atol=1e-9)
        assert gradient.abs().max() > 1e-6


def newton(fixed: Tensor, moving: Tensor) -> Tensor:
    """Where the residual of every voxel is zero, as nearly as float64 has it."""
    vectors = torch.zeros(1, 3, *SHAPE, dtype=torch.float64)
    for _ in range(30):
        leaf = vectors.requires_grad_()
        with torch.enable_grad():
            value = residual(fixed.detach(), moving.detach(), leaf)
            rows = [
                torch.autograd.grad(value[:, axis].sum(), leaf, retain_graph=True)[0]
                for axis in range(3)
            ]
        blocks = torch.stack([row.movedim(1, -1) for row in rows], dim=-2)
        right = value.detach().movedim(1, -1).unsqueeze(-1)
        step = torch.linalg.solve(blocks + 1e-12 * torch.eye(3).double(), right)
        vectors = leaf.detach() - step.squeeze(-1).movedim(-1, 1).clamp(-0.1, 0.1)
    return vectors


def residual(fixed: Tensor, moving: Tensor, vectors: Tensor) -> Tensor:
    return feature_force(fixed, moving, vectors, placed(0.0), ForceSettings()).gradient


@pytest.mark.slow
def test_the_implicit_function_has_the_gradient_of_the_optimum() -> None:
    fixed, moving = features()
    optimum = newton(fixed, moving)
    left = residual(fixed, moving, optimum).abs()[0].amax(0)
    solved = (left < 1e-14) & (optimum.abs()[0].amax(0) > 0.02)
    assert solved.sum() >= 10  # the others have no optimum nearby
    weights = solved * torch.ones(1, 3, *SHAPE, dtype=torch.float64)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return (weights * implicit_function(newton, residual, a, b, damping=0.0)).sum()

    leaves = fixed.requires_grad_(), moving.requires_grad_()
    found = torch.autograd.grad(loss(*leaves), leaves)
    voxels = solved.flatten().nonzero().flatten()[:4].tolist()
    for row, gradient in enumerate(found):

        def one(tensor: Tensor, row: int = row) -> Tensor:
            given = [leaf.detach() for leaf in leaves]
            given[row] = tensor
            return (weights * newton(*given)).sum()

        expected = numeric_gradient(one, leaves[row], voxels)
        assert torch.allclose(gradient.flatten()[voxels], expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind", ["phantom", "implicit"])
def test_memory_does_not_grow_with_the_iterations(kind: str) -> None:
    sizes = []
    for iterations in (2, 60):
        fixed, moving = (one.float().requires_grad_() for one in features())
        method = DIO(
            loss="mse",
            levels=(1,),
            iterations=(iterations,),
            transform="freeform",
            descent=DescentSettings(rule=StopRule(tolerance=-1.0, patience=100)),
        )
        solver = Solver(method, Sides([fixed], [], SHAPE), Sides([moving], [], SHAPE), None)
        step = method.descent.step("freeform", solver.grids[0], method.voxel, "mse")
        start = torch.zeros(1, 3, *SHAPE)
        last = DescentStep(placement_on(solver.matrix, solver.grids[0]), method.force, step)

        def solve(a: Tensor, b: Tensor, solver=solver, start=start) -> Tensor:
            return solver.descend(0, "freeform", None, start, Moments.of(start)).parameters

        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, kept=kept: kept.append(tensor.nbytes) or tensor, lambda tensor: tensor
        ):
            if kind == "phantom":
                vectors = jacobian_free(solve, last, fixed, moving, steps=1)
            else:
                vectors = implicit_function(solve, last.residual, fixed, moving, damping=1.0)
        vectors.square().sum().backward()
        assert solver.courses[0].iterations.item() == iterations
        assert fixed.grad is not None
        assert fixed.grad.abs().max() > 0
        sizes.append(sum(kept))
    assert sizes[0] == sizes[1]


def test_any_solver_will_do() -> None:
    """VoxelOpt finds the vectors; the gradient is that of a step of descent from them."""
    shape = (16, 18, 20)
    fixed, moving = (smooth_volume(shape, seed).requires_grad_() for seed in (1, 2))
    method = SoftVoxelOpt()
    solver = Solver(DIO(loss="mse"), Sides([fixed], [], shape), Sides([moving], [], shape), None)
    step = DIO().descent.step("freeform", solver.grids[-1], (1.0, 1.0, 1.0), "mse")
    last = DescentStep(placement_on(solver.matrix, solver.grids[-1]), ForceSettings(), step)

    def solve(a: Tensor, b: Tensor) -> Tensor:
        sides = [method.prepare(one.detach(), torch.ones_like(one)) for one in (a, b)]
        pair = torch.zeros(1, 2, dtype=torch.int32)
        return method.register(*sides, pair).displacement.full()

    vectors = jacobian_free(solve, last, fixed, moving, steps=1)
    vectors.square().mean().backward()
    for one in (fixed, moving):
        assert one.grad is not None
        assert one.grad.isfinite().all()
        assert one.grad.abs().max() > 0


def test_without_phantom_steps_there_is_no_gradient() -> None:
    fixed, moving = (one.requires_grad_() for one in features())
    step = DIO().descent.step("freeform", Solver(
        DIO(), Sides([fixed], [], SHAPE), Sides([moving], [], SHAPE), None
    ).grids[-1], (1.0, 1.0, 1.0), "mse")  # fmt: skip
    last = DescentStep(placed(), ForceSettings(), step)
    vectors = jacobian_free(lambda a, _: a[:, :3].clone(), last, fixed, moving, steps=0)
    assert not vectors.requires_grad
