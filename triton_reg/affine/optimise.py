"""Move parameters downhill: Gauss-Newton steps whose length each subject learns from its last."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from triton_reg.affine.costs import COSTS, Cost
from triton_reg.affine.parameters import AffineParameters, Transform
from triton_reg.affine.sampling import FixedPoints, MovingVolumes

_SMALLEST_STEP = 0.01  # of the spacing: what is shorter ends the search
_LONGEST_STEP = 1.0
_REJECTIONS = 4
_LEAST_OVERLAP = 0.5
_DAMPING = 1e-6


@dataclass(frozen=True)
class Descent:
    """How one level is searched.

    cost: what is made small. transform: which parameters move. spacing_mm: of the level.
    iterations: at most.
    """

    cost: Cost
    transform: Transform
    spacing_mm: float
    iterations: int


@dataclass(frozen=True, eq=False)
class _Slope:
    """Cost ``[B]``, its gradient ``[B, n]`` and a model of its curvature ``[B, n, n]``."""

    cost: Tensor
    gradient: Tensor
    curvature: Tensor

    def where(self, chosen: Tensor, other: "_Slope") -> "_Slope":
        return _Slope(
            torch.where(chosen, self.cost, other.cost),
            torch.where(chosen[:, None], self.gradient, other.gradient),
            torch.where(chosen[:, None, None], self.curvature, other.curvature),
        )


def descend(
    fixed: FixedPoints, moving: MovingVolumes, start: AffineParameters, descent: Descent
) -> tuple[AffineParameters, Tensor]:
    """The best parameters found from ``start``, and how many steps each subject tried ``[B]``.

    A step solves ``m H s = -g`` with the Gauss-Newton curvature ``H`` of the values, free in gain
    and offset; the factor ``m`` follows the curvature that the last step met. Every decision is a
    subject's own.
    """
    parameters, slope = start, _slope_at(fixed, moving, start, descent)
    factor = torch.ones_like(slope.cost)
    rejections = torch.zeros_like(slope.cost, dtype=torch.int64)
    tried, done = torch.zeros_like(rejections), torch.zeros_like(rejections, dtype=torch.bool)
    spread = _spread(fixed)
    for _ in range(descent.iterations):
        step = -torch.linalg.solve(slope.curvature, slope.gradient) / factor[:, None]
        moved = _mean_shift(parameters, step, spread, descent.transform) / descent.spacing_mm
        step = step * (_LONGEST_STEP / moved).clamp(max=1)[:, None]
        trial = parameters.stepped(step, descent.transform)
        there = _slope_at(fixed, moving, trial, descent)
        better = (there.cost < slope.cost) & ~done
        tried, rejections = tried + ~done, torch.where(better, 0, rejections + 1)
        factor = torch.where(done, factor, _learned(factor, slope, there, step))
        parameters, slope = trial.where(better, parameters), there.where(better, slope)
        done = done | (moved < _SMALLEST_STEP) | (rejections >= _REJECTIONS)
        if done.all():
            break
    return parameters, tried


def costs_of(fixed: FixedPoints, moving: MovingVolumes, matrices: Tensor, cost: Cost) -> Tensor:
    """Cost ``[B, K]`` of ``K`` transforms ``[B, K, 4, 4]`` a pair; a bad overlap costs more."""
    values, inside = moving.values_at(fixed, matrices)
    count, tried, points = values.shape

    def each(part: Tensor) -> Tensor:
        return part[:, None].expand(count, tried, points).flatten(0, 1)

    weights = each(fixed.weights) * inside.flatten(0, 1)
    found = COSTS[cost](each(fixed.values), values.flatten(0, 1), weights, fixed.shape)
    return (found + _penalty(weights, each(fixed.weights))).view(count, tried).double()


def _slope_at(
    fixed: FixedPoints, moving: MovingVolumes, parameters: AffineParameters, descent: Descent
) -> _Slope:
    values, inside, slopes = moving.slopes_at(fixed, parameters)
    weights = fixed.weights * inside
    cost, by_value = _with_gradient(
        lambda warped: COSTS[descent.cost](fixed.values, warped, weights, fixed.shape), values
    )
    # value by the 9 entries of A and by t: slope_i offset_j, slope_i
    by_linear = slopes.transpose(1, 2)[..., None] * fixed.offsets_mm[:, :, None]
    by_entry = torch.cat([by_linear.flatten(2), slopes.transpose(1, 2)], dim=2)
    derivative = parameters.derivative(descent.transform)
    gradient = (by_value[:, None] @ by_entry)[:, 0].double()
    columns = torch.cat([by_entry, values[..., None], torch.ones_like(values)[..., None]], dim=2)
    products = (columns.transpose(1, 2) @ (columns * weights[..., None])).double()
    curvature = derivative.transpose(1, 2) @ _scaled(products, weights, descent) @ derivative
    gradient = (derivative.transpose(1, 2) @ gradient[..., None])[..., 0]
    diagonal = curvature.diagonal(dim1=1, dim2=2)
    damping = _DAMPING * (diagonal + diagonal.amax(dim=1, keepdim=True) * _DAMPING + 1e-12)
    cost = (cost + _penalty(weights, fixed.weights)).double()
    return _Slope(cost, gradient, curvature + torch.diag_embed(damping))


def _scaled(products: Tensor, weights: Tensor, descent: Descent) -> Tensor:
    """The curvature ``[B, 12, 12]`` from all weighted products of columns ``[B, 14, 14]``."""
    by_entry = products[:, :12, :12]
    if descent.cost == "mse":
        return 2 * by_entry / weights.sum(dim=1)[:, None, None].clamp(min=1).double()
    # what a gain and an offset of the moving values explain, those costs do not see
    mixed, seen = products[:, :12, 12:], products[:, 12:, 12:]
    seen = seen + _DAMPING * torch.diag_embed(seen.diagonal(dim1=1, dim2=2) + 1e-12)
    by_entry = by_entry - mixed @ torch.linalg.solve(seen, mixed.transpose(1, 2))
    spread = products[:, 12, 12] - products[:, 12, 13] ** 2 / products[:, 13, 13].clamp(min=1)
    return by_entry / spread.clamp(min=1e-6)[:, None, None]


def _with_gradient(function: Callable[[Tensor], Tensor], values: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        values = values.detach().requires_grad_()
        cost = function(values)
        (gradient,) = torch.autograd.grad(cost.sum(), values)
    return cost.detach(), gradient


def _penalty(weights: Tensor, possible: Tensor) -> Tensor:
    """What it costs ``[B]`` that less than half of the points arrive inside."""
    overlap = weights.sum(dim=1) / possible.sum(dim=1).clamp(min=1)
    return 10 * (_LEAST_OVERLAP - overlap).clamp(min=0)


def _learned(factor: Tensor, slope: _Slope, there: _Slope, step: Tensor) -> Tensor:
    """The factor ``[B]`` that would have foretold the cost after the step."""
    foretold = (slope.gradient * step).sum(dim=1)
    quadratic = (step[:, None] @ slope.curvature @ step[..., None])[:, 0, 0]
    met = 2 * (there.cost - slope.cost - foretold) / quadratic.clamp(min=1e-30)
    learned = torch.maximum(torch.minimum(met, factor * 8), factor / 4).clamp(1e-3, 1e6)
    return torch.where(there.cost < slope.cost, learned, learned.maximum(2 * factor))


def _spread(fixed: FixedPoints) -> Tensor:
    """Mean square ``[B, 3]`` of the points' offsets along each axis."""
    weights = fixed.weights[..., None]
    summed = (weights * fixed.offsets_mm**2).sum(dim=1)
    return (summed / weights.sum(dim=1).clamp(min=1)).double()


def _mean_shift(
    parameters: AffineParameters, step: Tensor, spread: Tensor, transform: Transform
) -> Tensor:
    """Root of the mean square distance ``[B]`` in mm by which a step moves the points."""
    change = (parameters.derivative(transform) @ step[..., None])[..., 0]
    linear = change[:, :9].unflatten(1, (3, 3))
    squared = (linear**2 * spread[:, None]).sum(dim=(1, 2)) + (change[:, 9:] ** 2).sum(dim=1)
    return squared.sqrt().clamp(min=1e-12)
