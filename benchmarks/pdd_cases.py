"""What ``benchmarks/pdd_cpu.py`` measures, with the bytes and operations that it takes at least.

They are counted in :mod:`cohort.studies.bench.floors`, for ``n`` labels times points.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cohort.studies.bench import floors
from triton_reg.ops._cpu import dense_match as kernels
from triton_reg.ops._cpu.dense_cost import dense_cost
from triton_reg.ops._cpu.layout import scratch
from triton_reg.ops._cpu.match_summary import summarise_plane
from triton_reg.ops.dense_cost import dense_cost_reference
from triton_reg.ops.dense_match import (
    DenseMatch,
    dense_match,
    dense_match_reference,
    summary_reference,
)
from triton_reg.ops.grid_filter import grid_filter_reference
from triton_reg.ops.instance_fit import FitSettings, instance_fit, instance_fit_reference
from triton_reg.ops.lattice import Lattice
from triton_reg.ops.match_settings import MatchSettings
from triton_reg.ops.min_convolution import (
    exact_min_convolution_reference,
    pooled_min_convolution_reference,
)
from triton_reg.ops.resize import Shape, resize_reference

Call = Callable[[], Tensor]
FEATURES: Shape = (64, 53, 85)
HIPPOCAMPUS: Shape = (16, 21, 16)
WEIGHTS = torch.tensor([0.086, 1.05, -0.75, 1.13])


@dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        reference: the definition; None where it does not fit into memory.
        kernel: the compiled one.
        bytes, operations: what any implementation has to do.
        tolerance: largest difference of the two, as a share of the largest value.
        long: whether the definition takes minutes.
        alike: definition and kernel that are compared in place of the timed ones.
    """

    reference: Call | None
    kernel: Call
    bytes: float
    operations: float
    tolerance: float = 1e-4
    long: bool = False
    alike: tuple[Call, Call] | None = None


def smooth(shape: Shape, channels: int, seed: int) -> Tensor:
    """Smooth random fields ``[1, C, *shape]``."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, channels, *(max(2, size // 4) for size in shape), generator=generator)
    return resize_reference(coarse, shape).contiguous()


def pair(lattice: Lattice, shape: Shape, channels: int) -> tuple[Tensor, Tensor]:
    """Features at the control points, and those to search; they differ a little.

    So large that a match tells some labels from others, as trained features do.
    """
    moving = 4 * smooth(shape, channels, 1)
    fixed = resize_reference(moving + smooth(shape, channels, 2), lattice.points)
    return fixed.contiguous(), moving


def stages() -> dict[str, Case]:
    """Cost, one round of messages and summary of the first published search."""
    lattice = Lattice.corner_aligned(FEATURES, (29, 29, 29), 11, (0.25, 0.25, 0.25))
    fixed, moving = pair(lattice, FEATURES, 24)
    settings, n = MatchSettings(iterations=1), lattice.labels * math.prod(lattice.points)
    exact = MatchSettings(smoothing="exact_min_convolution")
    cost = 0.1 * dense_cost_reference(fixed, moving, lattice)
    volume = cost.numpy().reshape(lattice.labels, 29, -1)
    one, nothing = np.float32(1), np.float32(0)

    def correlate() -> Tensor:
        out = scratch("cost", lattice.labels, *lattice.points)
        dense_cost(fixed[0].numpy(), moving[0].numpy(), lattice, 1.0, out)
        return torch.from_numpy(out)[None]

    def spread(how: MatchSettings) -> Tensor:
        out = scratch("cost", *volume.shape)
        kernels.spread_once(volume, volume, nothing, one, lattice, how, out)
        return torch.from_numpy(out).view_as(cost)

    def summarise() -> Tensor:
        found = [np.empty(shape, np.float32) for shape in ((3, 29, 841), (29, 841), (6, 29, 841))]
        for plane in range(29):
            summarise_plane(volume, plane, lattice.width, one, False, *found)
        return torch.from_numpy(np.concatenate([found[0], found[1][None], found[2]]))

    def summarised() -> Tensor:
        found = summary_reference(-cost, lattice, keep_probabilities=False)
        return torch.cat([found.mean[0], found.entropy, found.covariance[0]]).flatten(2)

    def spread_reference() -> Tensor:
        return grid_filter_reference(pooled_min_convolution_reference(cost, 11), settings.taps)

    def exact_reference() -> Tensor:
        lowest = exact_min_convolution_reference(cost, 11, exact.curvature)
        return grid_filter_reference(lowest, exact.taps)

    return {
        "correlation 29³ x 11³ x 24": Case(
            lambda: dense_cost_reference(fixed, moving, lattice),
            correlate,
            *floors.dense_cost(n, 24),
        ),
        "round of messages 29³ x 11³": Case(
            spread_reference, lambda: spread(settings), *floors.message_round(n)
        ),
        "round of exact messages 29³ x 11³": Case(
            exact_reference, lambda: spread(exact), *floors.message_round(n, exact_width=11)
        ),
        "summary 29³ x 11³": Case(summarised, summarise, *floors.summary(n)),
    }


def whole(points: int, width: int, channels: int, reach: float) -> dict[str, Case]:
    grid, span = (points, points, points), (reach, reach, reach)
    lattice = Lattice.corner_aligned(FEATURES, grid, width, span)
    fixed, moving = pair(lattice, FEATURES, channels)
    n, settings = lattice.labels * points**3, MatchSettings()

    def run(call: Callable[..., DenseMatch]) -> Call:
        return lambda: torch.cat(call(fixed, moving, WEIGHTS, lattice, settings)[:1])

    name = f"dense match {points}³ x {width}³ x {channels}"
    floor = floors.dense_match(n, channels)
    return {name: Case(run(dense_match_reference), run(dense_match), *floor, long=True)}


def fit() -> dict[str, Case]:
    lattice = Lattice.corner_aligned(FEATURES, (29, 29, 29), 11, (0.25, 0.25, 0.25))
    fixed, moving = pair(lattice, FEATURES, 24)
    found = dense_match(fixed, moving, WEIGHTS, lattice, MatchSettings(), keep_probabilities=True)
    step, points = (0.05, 0.05, 0.05), 29**3
    given = found.probabilities, found.mean, step

    def run(call: Callable[..., Tensor], steps: int) -> Call:
        return lambda: call(*given, FitSettings(iterations=steps))

    # a step: four box means and Adam of three components, eight labels read, six differences
    operations = 50 * points * (12 * 7 + 3 * 12 + 8 * 12 + 3 * 24)
    return {
        "fit, 50 steps, 29³ x 11³": Case(
            run(instance_fit_reference, 50),
            run(instance_fit, 50),
            50 * points * 8 * 4,
            operations,
            # steps as long as Adam's first amplify rounding from the tenth or so on
            alike=(run(instance_fit_reference, 5), run(instance_fit, 5)),
        )
    }


def training(
    name: str, lattice: Lattice, shape: Shape, channels: int, fits: bool
) -> dict[str, Case]:
    """Forward, and forward with the gradient of all four tensors' sums."""
    fixed, moving = pair(lattice, shape, channels)
    n = lattice.labels * math.prod(lattice.points)
    seeds = [smooth(lattice.points, count, 3 + count) for count in (3, 6)]

    def gradients(call: Callable[..., DenseMatch]) -> Call:
        def run() -> Tensor:
            given = [one.clone().requires_grad_() for one in (fixed, moving, WEIGHTS)]
            found = call(*given, lattice, MatchSettings())
            outputs = [found.mean, found.covariance]
            return torch.cat([one.flatten() for one in torch.autograd.grad(outputs, given, seeds)])

        return run

    forward = floors.dense_match(n, channels)
    # the match again, three sweeps of the summary, each round's transpose, differences and three
    # gradients of every sample
    backward = (3 * floors.SUMMARY + 4 * floors.ROUND + 14 * channels) * n
    operations = 2 * forward.operations + backward
    return {
        f"forward, {name}": Case(
            (lambda: dense_match_reference(fixed, moving, WEIGHTS, lattice, MatchSettings()).mean)
            if fits else None,
            lambda: dense_match(fixed, moving, WEIGHTS, lattice, MatchSettings()).mean,
            *forward,
        ),
        f"forward and backward, {name}": Case(
            gradients(dense_match_reference) if fits else None, gradients(dense_match),
            (24 + 64) * n, operations, tolerance=1e-3,
        ),
    }  # fmt: skip


GROUPS: dict[str, Callable[[], dict[str, Case]]] = {
    "stages": stages,
    "29": lambda: whole(29, 11, 24, 0.25),
    "39": lambda: whole(39, 11, 24, 0.15),
    "32": lambda: whole(32, 15, 16, 0.4),
    "fit": fit,
    "hippocampus": lambda: training(
        "12 x 16 x 12, 7³, 16 channels",
        Lattice.corner_aligned(HIPPOCAMPUS, (12, 16, 12), 7, (0.4, 0.4, 0.4)),
        HIPPOCAMPUS, 16, fits=True,
    ),
    "training": lambda: training(
        "29³ x 11³ x 24",
        Lattice.corner_aligned(FEATURES, (29, 29, 29), 11, (0.25, 0.25, 0.25)),
        FEATURES, 24, fits=False,
    ),
}  # fmt: skip
