"""What ``benchmarks/dio_gpu.py`` times, with the bytes that it has to move.

An array that is read or written counts once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.dio_parity import features, fields, same_grid
from triton_reg.ops._triton.advance import advance
from triton_reg.ops._triton.descent_graph import Squares, Stop, descend_squares
from triton_reg.ops._triton.feature_force_backward import squares_force_backward
from triton_reg.ops._triton.force import feature_force
from triton_reg.ops._triton.gaussian import smoothed
from triton_reg.ops.advance import Moments, StepSettings
from triton_reg.ops.feature_force import ForceSettings
from triton_reg.ops.resize import Shape

# fields of vectors that a step moves: nine, and three more for the longest direction
_FIELDS = {"add": 9, "compose": 12}
_CORRELATION_VALUES = 42  # a channel and voxel


@dataclass(frozen=True)
class Run:
    """A registration that is timed: levels are coarsest first."""

    shape: Shape = (160, 192, 224)
    channels: int = 16
    factors: tuple[int, ...] = (4, 2, 1)
    iterations: tuple[int, ...] = (200, 100, 50)
    dtype: torch.dtype = torch.float32

    @property
    def levels(self) -> list[Shape]:
        depth, height, width = self.shape
        return [(depth // one, height // one, width // one) for one in self.factors]

    def bytes(self, shape: Shape) -> dict[str, int]:
        """Bytes a pair of each kernel, or few of them, on a level."""
        voxels, vectors = math.prod(shape), 12 * math.prod(shape)
        both = 2 * self.channels * voxels * self.dtype.itemsize
        # of float32; what is added to is read and written
        gradients = 3 * self.channels * voxels * 4
        return {
            "force, mse": both + 2 * vectors,
            "force, mse, linear": both + 2 * vectors,
            "force gradients, mse": both + gradients + 2 * vectors,
            "force gradients and turns, mse": both + gradients + 3 * vectors,
            "force, lncc": _CORRELATION_VALUES * 4 * self.channels * voxels,
            "smoothing": 2 * vectors,
            "step, add": _FIELDS["add"] * vectors,
            "step, compose": _FIELDS["compose"] * vectors,
        }

    def descent_bytes(self, update: str) -> int:
        """Bytes a pair of all iterations of all levels."""
        total = 0
        for shape, iterations in zip(self.levels, self.iterations, strict=True):
            once = self.bytes(shape)
            total += iterations * (once["force, mse"] + once[f"step, {update}"])
        return total


def launches(
    run: Run, shape: Shape, pairs: int, device: torch.device
) -> dict[str, Callable[[], object]]:
    """One call of each, on a level."""
    fixed, moving = (features(shape, run.channels, pairs, seed, device) for seed in (1, 2))
    fixed, moving = fixed.to(run.dtype), moving.to(run.dtype)
    vectors, gradient = (fields(shape, 3, pairs, seed, device) for seed in (3, 4))
    moments, placement = Moments.of(vectors), same_grid(pairs, device)

    def force(**settings: str) -> Callable[[], object]:
        wanted = ForceSettings(**settings)  # type: ignore[arg-type]
        given = fixed, moving, vectors, placement, wanted
        return partial(feature_force, *given, weights=None, active=None)

    def gradients(*wanted: bool) -> Callable[[], object]:
        seeds = vectors.new_ones(pairs), gradient
        given = fixed, moving, vectors, placement, seeds, wanted
        return partial(squares_force_backward, *given, symmetric=True)

    def step(update: str) -> Callable[[], object]:
        settings = StepSettings(update=update)  # type: ignore[arg-type]
        return partial(advance, vectors, gradient, moments, settings)

    return {
        "force, mse": force(),
        "force, mse, linear": force(derivative="linear"),
        "force gradients, mse": gradients(True, True, False),
        "force gradients and turns, mse": gradients(True, True, True),
        "force, lncc": force(loss="lncc"),
        "smoothing": partial(smoothed, vectors, (1.0, 1.0, 1.0)),
        "step, add": step("add"),
        "step, compose": step("compose"),
    }


def registration(
    run: Run, pairs: int, update: str, device: torch.device, *, graphs: bool
) -> Callable[[], Tensor]:
    """All levels with all their iterations: no pair stops earlier."""
    sides = [
        tuple(features(shape, run.channels, pairs, seed, device).to(run.dtype) for seed in (1, 2))
        for shape in run.levels
    ]
    placement = same_grid(pairs, device)
    settings = StepSettings(update=update, rate=0.5)  # type: ignore[arg-type]

    def register() -> Tensor:
        vectors = torch.zeros(pairs, 3, *run.levels[0], device=device)
        moments = Moments.of(vectors)
        for shape, (fixed, moving), iterations in zip(
            run.levels, sides, run.iterations, strict=True
        ):
            up = partial(F.interpolate, size=shape, mode="trilinear")
            vectors = 2 * up(vectors) if vectors.shape[2:] != shape else vectors
            moments = Moments(up(moments.first), up(moments.second), moments.steps)
            problem = Squares(fixed, moving, placement, None, True)
            stop = Stop(iterations, 0.0, iterations + 1)
            found = descend_squares(problem, vectors, moments, settings, stop, graphs=graphs)
            vectors = found.vectors
        return vectors

    return register
