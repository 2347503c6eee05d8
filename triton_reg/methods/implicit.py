"""Gradients through an optimum, whatever found it and however long that took."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from triton_reg.methods.descent import Parametrisation
from triton_reg.ops.advance import (
    Moments,
    StepSettings,
    adam_direction,
    moved_by,
)
from triton_reg.ops.feature_force import ForceSettings, feature_force
from triton_reg.ops.gaussian import Sigmas, smoothed

# fixed and moving features -> vectors; fixed, moving, vectors -> vectors
Solve = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[Tensor, Tensor, Tensor], Tensor]
Residual = Callable[[Tensor, Tensor, Tensor], Tensor]


def jacobian_free(solve: Solve, step: Step, fixed: Tensor, moving: Tensor, steps: int) -> Tensor:
    """An optimum whose gradient is that of a few more steps from it.

    The optimum counts as constant; what is differentiated are ``steps`` phantom steps after it.
    Memory and time of the gradient do not depend on how the optimum was found. Fung et al., "JFB:
    Jacobian-free backpropagation for implicit networks", AAAI 2022; Geng et al., "On training
    implicit models", NeurIPS 2021.

    Args:
        solve: finds the optimum; may be any solver, is never differentiated.
        step: one step of descent, differentiable in the features and the vectors.
        fixed, moving: features, ``[B, C, ...]``.
        steps: phantom steps; with 0 there is no gradient.

    Returns:
        Vectors ``[B, 3, D, H, W]`` after the phantom steps.
    """
    if not steps:
        with torch.no_grad():
            return solve(fixed, moving)
    return _PhantomSteps.apply(solve, step, steps, fixed, moving)


class _PhantomSteps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, solve: Solve, step: Step, steps: int, fixed: Tensor, moving: Tensor
    ) -> Tensor:
        optimum = solve(fixed, moving)
        ctx.save_for_backward(fixed, moving, optimum)
        ctx.step, ctx.steps = step, steps
        return _stepped(step, steps, fixed, moving, optimum)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        fixed, moving, optimum = ctx.saved_tensors
        target, source = (one.detach().requires_grad_() for one in (fixed, moving))
        with torch.enable_grad():
            vectors = _stepped(ctx.step, ctx.steps, target, source, optimum)
            found = torch.autograd.grad(vectors, (target, source), gradients)
        return None, None, None, *found


def _stepped(step: Step, steps: int, fixed: Tensor, moving: Tensor, vectors: Tensor) -> Tensor:
    for _ in range(steps):
        vectors = step(fixed, moving, vectors)
    return vectors


def without_gradients(found: Tensor, *given: Tensor) -> Tensor:
    """What was found, as a constant that refuses to be differentiated.

    A constant alone would pass for one in a loss that other terms make differentiable.

    Args:
        found: what no gradient was kept for.
        given: what it was found from.
    """
    if not torch.is_grad_enabled() or not any(one.requires_grad for one in given):
        return found
    return _Refusal.apply(found, *given)


class _Refusal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, found: Tensor, *given: Tensor) -> Tensor:
        del ctx, given
        return found.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        del ctx, gradients
        raise RuntimeError(
            "DIO.register has no gradients with respect to features; jacobian_free and "
            "implicit_function of triton_reg.methods.implicit have"
        )


def implicit_function(
    solve: Solve,
    residual: Residual,
    fixed: Tensor,
    moving: Tensor,
    *,
    damping: float = 1e-4,
    is_relative: bool = False,
    sigmas: Sigmas = (0.0, 0.0, 0.0),
    block_sigmas: Sigmas = (0.0, 0.0, 0.0),
) -> Tensor:
    """An optimum whose gradient is that of the implicit function theorem.

    Where ``r(fixed, moving, w) = 0``, ``dw = -(dr/dw)^-1 dr``. For a loss that is a sum over
    voxels, ``dr/dw`` is one 3x3 block a voxel, which is inverted exactly; ``damping`` is added to
    its diagonal. Both features get their gradients from one backward pass.

    Args:
        solve: finds the optimum; never differentiated.
        residual: ``r``, ``[B, 3, D, H, W]``, each voxel's a function of its own vector;
            differentiable in all three.
        fixed, moving: features, ``[B, C, ...]``.
        damping: in the residual's unit per unit of the vectors. Blocks may be indefinite: with too
            little of it gradients explode.
        is_relative: whether damping is a share of the blocks' mean absolute diagonal, pair by pair.
        sigmas: of a smoothing of the incoming gradient, in voxels: that of the solver's own steps.
        block_sigmas: of a smoothing of the blocks. Vectors that a solver keeps smooth answer to
            what the features around them say together; alone, a voxel's block is nearly singular.

    Returns:
        The optimum, ``[B, 3, D, H, W]``.
    """
    return _ImplicitFunction.apply(
        solve, residual, (damping, is_relative), (sigmas, block_sigmas), fixed, moving
    )


class _ImplicitFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        solve: Solve,
        residual: Residual,
        damping: tuple[float, bool],
        sigmas: tuple[Sigmas, Sigmas],
        fixed: Tensor,
        moving: Tensor,
    ) -> Tensor:
        optimum = solve(fixed, moving)
        ctx.save_for_backward(fixed, moving, optimum)
        ctx.residual, ctx.damping, ctx.sigmas = residual, damping, sigmas
        return optimum.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        leaves = [one.detach().requires_grad_() for one in ctx.saved_tensors]
        with torch.enable_grad():
            residual = ctx.residual(*leaves)
        sigmas, block_sigmas = ctx.sigmas
        blocks = _blocks(residual, leaves[2], block_sigmas)
        added, is_relative = ctx.damping
        unit = torch.eye(3, device=blocks.device).to(blocks)
        scale = (blocks * unit).abs().flatten(1).sum(1) / (blocks[0].numel() / 3)
        scale = scale if is_relative else torch.ones_like(scale)
        diagonal = added * scale.view(-1, 1, 1, 1, 1, 1) * unit
        smooth = smoothed(gradients[0].contiguous(), sigmas)
        right = smooth.movedim(1, -1).unsqueeze(-1)
        solved = torch.linalg.solve(blocks.transpose(-1, -2) + diagonal, right)
        cotangent = -solved.squeeze(-1).movedim(-1, 1).contiguous()
        found = torch.autograd.grad(residual, leaves[:2], cotangent)
        return None, None, None, None, *found


def _blocks(residual: Tensor, vectors: Tensor, sigmas: Sigmas) -> Tensor:
    """``dr_a / dw_b`` of each voxel, ``[B, D, H, W, 3, 3]``."""
    rows = []
    for axis in range(3):
        one = torch.zeros_like(residual)
        one[:, axis] = 1
        (row,) = torch.autograd.grad(residual, vectors, one, retain_graph=True)
        rows.append(smoothed(row, sigmas).movedim(1, -1))
    return torch.stack(rows, dim=-2)


@dataclass(frozen=True, eq=False)
class DescentStep:
    """A step of descent on features as a differentiable map, for :func:`jacobian_free`.

    Attributes:
        placement: where vectors lead, ``[B, 3, 7]``.
        force: how features are compared.
        step: how vectors move. With Adam its moments count as constants, except that steps that
            compose feed the live gradient to the first one, as published.
        moments: of the descent that found the optimum; None for the gradient itself.
        parametrisation: of the vectors, if what moves are parameters that stand for them: those of
            an affine map, for example. It must be differentiable twice.
    """

    placement: Tensor
    force: ForceSettings
    step: StepSettings
    moments: Moments | None = None
    parametrisation: Parametrisation | None = None

    def residual(self, fixed: Tensor, moving: Tensor, vectors: Tensor) -> Tensor:
        """Gradient of the loss with respect to vectors, or parameters, in units of length."""
        if self.parametrisation is None:
            found = feature_force(fixed, moving, vectors, self.placement, self.force).gradient
        else:
            # not autograd.grad, which would want a graph where phantom steps record none
            reached, pulled, *_ = torch.func.vjp(self.parametrisation.vectors, vectors)
            force = feature_force(fixed, moving, reached, self.placement, self.force)
            (found,) = pulled(force.gradient)
        return found * found.new_tensor(self.step.unit).view(1, 3, 1, 1, 1)

    def __call__(self, fixed: Tensor, moving: Tensor, vectors: Tensor) -> Tensor:
        """The vectors, or parameters, after the step."""
        direction = smoothed(self.residual(fixed, moving, vectors), self.step.gradient_sigmas)
        if self.moments is not None:
            if self.step.update == "compose":
                decay = self.step.betas[0]
                direction = decay * self.moments.first + (1 - decay) * direction
            direction = adam_direction(direction, self.moments, self.step)
        return moved_by(vectors, direction, self.step)
