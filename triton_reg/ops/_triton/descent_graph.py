"""A descent on the mean squared difference whose iterations are replayed as one CUDA graph.

Force, stopping rule and step are captured once for given shapes and settings, a few iterations to a
graph; features are found by address, and pairs stop on the GPU, where a stopped pair costs nothing.
The host looks whether any pair goes on, and never at the iterations that are running.
"""

# pyright: reportArgumentType=false
# (triton annotates its language for its own compiler, not for a type checker)

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from triton_reg.ops._triton.advance import StepMemory, logarithms, moved_by_step, step
from triton_reg.ops._triton.feature_force import launch_squares_force
from triton_reg.ops._triton.feature_lines import FeatureLines, LineForm
from triton_reg.ops._triton.gaussian import smooth
from triton_reg.ops._triton.graphs import Captured
from triton_reg.ops._triton.layout import FUSED, Shape
from triton_reg.ops._triton.reduction import chunks, reduce_chunks
from triton_reg.ops._triton.stop_kernel import stop_kernel
from triton_reg.ops.advance import Moments, StepSettings
from triton_reg.ops.work_memory import kept_work

_ITERATIONS = 10  # to a graph


class Squares(NamedTuple):
    """What a descent brings together.

    Attributes:
        fixed, moving: features ``[B, C, *n]`` and ``[B, C, *m]``, best channels last.
        placement: ``[B, 3, 7]``.
        weights: ``[B, 1, *n]``, or None.
        symmetric: which derivative of the samples.
    """

    fixed: Tensor
    moving: Tensor
    placement: Tensor
    weights: Tensor | None
    symmetric: bool


class Stop(NamedTuple):
    """When a pair stops: after so many iterations, or ``patience`` without progress."""

    iterations: int
    tolerance: float
    patience: int


class Outcome(NamedTuple):
    """Vectors ``[B, 3, D, H, W]``, and of each pair: iterations int32, whether it converged, the
    last loss, and the length of the last gradient over that of the first."""

    vectors: Tensor
    iterations: Tensor
    converged: Tensor
    loss: Tensor
    gradient_ratio: Tensor


@torch.no_grad()
def descend_squares(
    problem: Squares,
    vectors: Tensor,
    moments: Moments,
    settings: StepSettings,
    stop: Stop,
    *,
    graphs: bool | None = None,
) -> Outcome:
    """Step until each pair has stopped; moments are changed in place.

    Args:
        problem: see :class:`Squares`.
        vectors: ``[B, 3, D, H, W]`` float32 to start from.
        moments: the optimiser's.
        settings: of each step.
        stop: see :class:`Stop`.
        graphs: whether launches are captured and replayed; on a GPU if None.
    """
    lines = FeatureLines.of(problem.fixed, "fixed"), FeatureLines.of(problem.moving, "moving")
    form = lines[0].form.beside(lines[1].form)
    plan = DescentPlan(
        len(vectors), lines[0].shape, lines[1].shape, form, problem.weights is not None,
        problem.symmetric, settings, stop.tolerance, stop.patience,
    )  # fmt: skip
    device = vectors.device
    # memory made in inference mode could not be written outside of it later
    with _LOCK:
        with torch.inference_mode(False):
            chain = _chain(plan, device, device.type == "cuda" if graphs is None else graphs)
        chain.fixed.addresses.copy_(lines[0].addresses)
        chain.moving.addresses.copy_(lines[1].addresses)
        chain.placement.copy_(problem.placement)
        if chain.weights is not None and problem.weights is not None:
            chain.weights.copy_(problem.weights)
        chain.begin(vectors, moments, stop.iterations)
        chain.run(stop.iterations)
        return chain.outcome(moments)


@dataclass(frozen=True)
class DescentPlan:
    """What the launches of a descent depend on."""

    pairs: int
    fixed_shape: Shape
    moving_shape: Shape
    form: LineForm
    weighted: bool
    symmetric: bool
    settings: StepSettings
    tolerance: float
    patience: int

    @property
    def size_bytes(self) -> int:
        """Of the vectors, their gradient and direction, both moments, and weights."""
        fields = 5 * 3 + self.weighted
        return 4 * fields * self.pairs * math.prod(self.fixed_shape)


class DescentChain:
    """The launches of a descent on memory that stays where it is.

    Attributes:
        fixed, moving: whose addresses are to be filled, as are ``placement`` and ``weights``.
    """

    def __init__(self, plan: DescentPlan, device: torch.device, graphs: bool) -> None:
        self._plan, pairs = plan, plan.pairs

        def memory(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(pairs, *shape, dtype=dtype, device=device)

        self.fixed, self.moving = (
            FeatureLines(memory(dtype=torch.int64), shape, plan.form, memory())
            for shape in (plan.fixed_shape, plan.moving_shape)
        )
        self.placement = memory(3, 7)
        self.weights = memory(1, *plan.fixed_shape) if plan.weighted else None
        self._vectors, self._gradient, direction, first, second = (
            memory(3, *plan.fixed_shape) for _ in range(5)
        )
        voxels = self._vectors[0, 0].numel()
        self._sums = memory(2, triton.cdiv(voxels, plan.form.block))
        self._chunks = memory(2, chunks(self._sums.shape[2]))
        self._live, self._stepping, self._converged = (memory(dtype=torch.uint8) for _ in range(3))
        self._done, self._waited, steps = (memory(dtype=torch.int32) for _ in range(3))
        self._limit = torch.zeros(1, dtype=torch.int32, device=device)
        self._loss, self._lengths, bias = memory(), memory(2), memory(2)
        self._moments = Moments(first, second, steps)
        self._step = StepMemory(direction, self._gradient, bias)
        # nobody is live yet: what is launched to be captured changes nothing
        self._launch: Callable[[], tuple[Tensor, Tensor]] = self.launch
        if graphs:
            self._launch = Captured(self.launch, f"a descent on {plan.fixed_shape} voxels")

    def begin(self, vectors: Tensor, moments: Moments, iterations: int) -> None:
        """Fill what iterations change."""
        self._vectors.copy_(vectors)
        for own, given in zip(self._moments, moments, strict=True):
            own.copy_(given)
        for count in (self._done, self._waited, self._converged, self._lengths):
            count.zero_()
        self._loss.fill_(torch.inf)
        self._limit.fill_(iterations)
        self._live.fill_(iterations > 0)

    def run(self, iterations: int) -> None:
        """Iterate until no pair goes on."""
        looks: deque[_Look] = deque()
        for _ in range(triton.cdiv(iterations, _ITERATIONS)):
            self._launch()
            looks.append(_Look(self._live))
            # the launch before this one: the GPU is not kept waiting
            if len(looks) > 1 and not looks.popleft().any():
                break

    def outcome(self, moments: Moments) -> Outcome:
        """What was found, in memory of its own; moments are written."""
        for own, given in zip(self._moments, moments, strict=True):
            given.copy_(own)
        ratio = self._lengths[:, 1] / self._lengths[:, 0]
        found = self._vectors.clone(), self._done.clone(), self._converged.bool()
        return Outcome(*found, self._loss.clone(), ratio)

    def launch(self) -> tuple[Tensor, Tensor]:
        """A few iterations."""
        for _ in range(_ITERATIONS):
            self._iterate()
        return self._vectors, self._loss

    def _iterate(self) -> None:
        plan, settings = self._plan, self._plan.settings
        launch_squares_force(
            self.fixed, self.moving, (self._vectors, self.placement), self.weights, self._live,
            (self._gradient, self._sums), symmetric=plan.symmetric, cleared=False,
        )  # fmt: skip
        reduce_chunks(self._sums.flatten(0, 1), self._chunks.flatten(0, 1), maximum=False)
        voxels, count = self._vectors[0, 0].numel(), self._chunks.shape[2]
        first, second = logarithms(settings)
        stop_kernel[(plan.pairs,)](
            self._chunks, self._live, self._stepping, self._converged, self._done, self._waited,
            self._moments.steps, self._limit, self._step.bias, self._loss, self._lengths, count,
            1 / (voxels * plan.form.channels), float(plan.tolerance), plan.patience,
            LOG_FIRST=first, LOG_SECOND=second, CHUNKS=triton.next_power_of_2(count), **FUSED,
        )  # fmt: skip
        given = self._vectors, self._gradient, self._moments, settings, self._stepping
        step(*given, self._step)
        moved = moved_by_step(self._step, settings)
        smooth(moved, self._vectors, None, settings.vector_sigmas, self._stepping)


class _Look:
    """Whether any pair was live, read without waiting for what was launched since."""

    def __init__(self, live: Tensor) -> None:
        self._event = torch.cuda.Event() if live.is_cuda else None
        self._live = torch.empty(live.shape, dtype=live.dtype, pin_memory=live.is_cuda)
        self._live.copy_(live, non_blocking=True)
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(live.device))

    def any(self) -> bool:
        if self._event is not None:
            self._event.synchronize()
        return bool(self._live.any())


_LOCK = threading.Lock()


def _chain(plan: DescentPlan, device: torch.device, graphs: bool) -> DescentChain:
    """The chain that is kept for these arguments, or a new one."""
    key = ("descent", plan, graphs)
    return kept_work(key, plan.size_bytes, device, lambda: DescentChain(plan, device, graphs))
