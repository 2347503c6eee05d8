"""Adam on a displacement that should be likely and smooth; see ``ops/instance_fit.py``.

Three launches an iteration: the field that the parameters give, the loss's gradient at it, and
the gradient's way back with the step. Fields are small and stay in the cache, so the two means of
three are one sum over 125 neighbours. All iterations are one CUDA graph, which is kept for the next
call; it finds the probabilities by their address.
"""

# pyright: reportArgumentType=false
# (triton annotates its language for its own compiler, not for a type checker)

import math
import threading
from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from triton_reg.ops._triton.fit_kernels import fit_gradient_kernel, fit_mean_kernel, fit_step_kernel
from triton_reg.ops._triton.graphs import Captured
from triton_reg.ops._triton.layout import FUSED, Shape
from triton_reg.ops.instance_fit import FitSettings
from triton_reg.ops.lattice import Vector
from triton_reg.ops.work_memory import kept_work

_BLOCK = 128
_FIRST, _SECOND = 0.9, 0.999  # Adam's decay rates


class FitPlan(NamedTuple):
    """What the launches of a fit depend on.

    Attributes:
        pairs: in a batch.
        points: control points along each axis.
        width: labels along each axis.
        label_step: length of a label step along each axis, in the unit of the parameters.
    """

    pairs: int
    points: Shape
    width: int
    label_step: Vector
    settings: FitSettings

    @property
    def size_bytes(self) -> int:
        """Of six fields."""
        return 4 * 6 * 3 * self.pairs * math.prod(self.points)


# memory made in inference mode could not be written outside of it later
@torch.inference_mode(False)
def instance_fit(
    probabilities: Tensor,
    mean: Tensor,
    label_step: Vector,
    settings: FitSettings,
    *,
    graphs: bool | None = None,
) -> Tensor:
    """See :func:`triton_reg.ops.instance_fit.instance_fit`; ``[B, 3, d, h, w]`` in label steps.

    Args:
        graphs: whether launches are captured and replayed; on a GPU if None.

    Raises:
        ValueError: if a pair is too large for the kernels, which count in int32 within one.
    """
    if probabilities[0].numel() >= 2**31:
        raise ValueError(
            "instance_fit on a GPU: a pair's probabilities must stay below 2**31, got "
            f"{probabilities[0].numel():,} of {list(probabilities.shape)}"
        )
    probabilities = probabilities.detach().contiguous()
    device = mean.device
    if graphs is None:  # inside someone's capture, launches are part of that one
        graphs = device.type == "cuda" and not torch.cuda.is_current_stream_capturing()
    batch, _, depth, height, width = mean.shape
    labels = round(probabilities.shape[1] ** (1 / 3))
    plan = FitPlan(batch, (depth, height, width), labels, label_step, settings)
    with _LOCK:
        chain = _chain(plan, device)
        chain.start.copy_(mean.detach() * chain.unit)
        chain.address.fill_(probabilities.data_ptr())
        return chain.run(graphs) / chain.unit


class FitChain:
    """The launches of a fit on memory that stays where it is.

    Attributes:
        address: to be filled: ``[1]`` int64, where the probabilities ``[B, L, d, h, w]`` lie.
        start: to be filled: the first parameters ``[B, 3, d, h, w]``.
        unit: a label step along each axis in the unit of the parameters, ``[1, 3, 1, 1, 1]``.
    """

    def __init__(self, plan: FitPlan, device: torch.device) -> None:
        self._plan = plan
        shape = plan.pairs, 3, *plan.points
        self.unit = torch.tensor(plan.label_step, device=device).view(1, 3, 1, 1, 1)
        self.address = torch.zeros(1, dtype=torch.int64, device=device)
        self.start, self._parameters, self._fitted, self._gradient, self._first, self._second = (
            torch.empty(shape, device=device) for _ in range(6)
        )
        self._captured: Callable[[], tuple[Tensor, Tensor]] | None = None

    def run(self, graphs: bool) -> Tensor:
        """The field ``[B, 3, d, h, w]`` of the last step's forward pass, in the chain's memory."""
        if graphs and self._captured is None:
            self._captured = Captured(self.launch, f"a fit of {self._plan.points} control points")
        fitted, _ = self._captured() if graphs and self._captured else self.launch()
        return fitted

    def launch(self) -> tuple[Tensor, Tensor]:
        """All steps: the last field and the parameters that it belongs to."""
        plan, settings = self._plan, self._plan.settings
        points = plan.points[0] * plan.points[1] * plan.points[2]
        blocks = triton.cdiv(points, _BLOCK)
        self._parameters.copy_(self.start)
        self._first.zero_()
        self._second.zero_()
        moments = self._first, self._second
        for iteration in range(1, settings.iterations + 1):
            fit_mean_kernel[(blocks, 3, plan.pairs)](
                self._parameters, self._fitted, *plan.points, BLOCK=_BLOCK, **FUSED
            )
            if iteration == settings.iterations:
                break  # nothing reads parameters that another step would move
            fit_gradient_kernel[(blocks, plan.pairs)](
                self.address, self._fitted, self._gradient, *plan.label_step,
                settings.smoothness, *plan.points, WIDTH=plan.width, BLOCK=_BLOCK, **FUSED,
            )  # fmt: skip
            fit_step_kernel[(blocks, 3, plan.pairs)](
                self._gradient, self._parameters, *moments,
                settings.learning_rate / (1 - _FIRST**iteration),
                (1 - _SECOND**iteration) ** -0.5, *plan.points, BLOCK=_BLOCK, **FUSED,
            )  # fmt: skip
        return self._fitted, self._parameters


_LOCK = threading.Lock()


def _chain(plan: FitPlan, device: torch.device) -> FitChain:
    """The chain that is kept for these arguments, or a new one."""
    return kept_work(("fit", plan), plan.size_bytes, device, lambda: FitChain(plan, device))
