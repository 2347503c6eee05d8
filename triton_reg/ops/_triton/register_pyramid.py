"""All levels of VoxelOpt on a GPU; the definition stands in ``ops/register_pyramid.py``.

Each level has one chain of launches, for a number of pairs that suits it, on memory that is
allocated once and shared by all levels. A batch goes through a level in as many runs of its chain
as it takes; a last run that is not full repeats its last pair. On a GPU the chain is a CUDA graph.
Features are given to it as addresses, so that a graph serves any subjects, wherever they lie. It
depends on shapes, settings and the number of pairs alone, and stays for the next call.

A pair's result does not depend on the batch: no kernel looks at another pair's values, and block
sizes depend on the volume alone.
"""

import threading
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from triton_reg.ops._triton.batches import pairs_a_launch
from triton_reg.ops._triton.graphs import Captured
from triton_reg.ops._triton.layout import Shape, addresses, channels_last
from triton_reg.ops._triton.level_chain import LevelChain, chain_bytes
from triton_reg.ops._triton.workspace import Arena, LevelPlan, storage_dtype
from triton_reg.ops.pyramid_settings import PyramidSettings
from triton_reg.ops.work_memory import kept_work

# |a - b| of two features that are within it can still be stored in fp16
_LARGEST_FEATURE = 3e4
# finest levels that precision="fast" stores in fp16: they hold 98 % of the voxels, while an argmin
# that rounding flips at a coarse level moves a whole region
_HALF_LEVELS = 2
_MEMORY_SHARE = 8  # of a device's memory, one part in so many for the work of a run


def stored_levels(pyramid: list[Tensor], settings: PyramidSettings) -> list[Tensor]:
    """Levels ``[N, C, d, h, w]``, finest first, as ``[N, d, h, w, CP]`` in fp16 or float32.

    Raises:
        ValueError: if fp16 is asked for and a feature is not finite or too large for it.
    """
    dtypes = [
        storage_dtype(settings.level, precision_at(level, settings.precision))
        for level in range(len(pyramid))
    ]
    if dtypes[0] == torch.float16:
        largest = pyramid[0].abs().amax().item()
        if not largest <= _LARGEST_FEATURE:
            raise ValueError(
                f"VoxelOpt: precision='fast' keeps features in fp16, where none may exceed "
                f"{_LARGEST_FEATURE:,.0f}; got {largest:,.0f}; scale them, or use precision='exact'"
            )
    return [
        channels_last(one, dtype).view(len(one), *one.shape[2:], -1)
        for one, dtype in zip(pyramid, dtypes, strict=True)
    ]


def precision_at(level: int, precision: str) -> str:
    """What a precision means at a level: the coarse ones are exact in any case."""
    return precision if level < _HALF_LEVELS else "exact"


# memory made in inference mode could not be written outside of it later
@torch.inference_mode(False)
def register_pyramid(
    fixed: list[Tensor],
    moving: list[Tensor],
    pairs: Tensor,
    channels: int,
    settings: PyramidSettings,
    *,
    batches: tuple[int, ...] | None = None,
    graphs: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Register pairs of subjects whose features :func:`stored_levels` made.

    Args:
        pairs: ``[B, 2]`` rows of fixed and moving.
        channels: of the features, without padding.
        batches: pairs a launch at each level; what suits the device if None.
        graphs: whether launches are captured and replayed; on a GPU if None.

    Returns:
        The displacement ``[B, 3, D, H, W]`` in voxels of the finest level, and its entropy
        ``[B, D, H, W]``.
    """
    device = fixed[0].device
    graphs = device.type == "cuda" if graphs is None else graphs
    if graphs and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("VoxelOpt captures CUDA graphs of its own: call it outside of a capture")
    plans = level_plans(fixed, channels, settings)
    batches = _batches_for(len(pairs), plans, device) if batches is None else batches
    rows = _rows((fixed[0], moving[0]), pairs)
    displacement, entropy = None, torch.empty(0, device=device)
    with _LOCK:
        pyramid = _pyramid(plans, batches, device, graphs)
        for level in reversed(range(len(plans))):
            where = [addresses(fixed[level], rows[0]), addresses(moving[level], rows[1])]
            displacement, entropy = pyramid.levels[level].run(where, displacement)
    assert displacement is not None
    return displacement, entropy


def _batches_for(pairs: int, plans: tuple[LevelPlan, ...], device: torch.device) -> tuple[int, ...]:
    memory = 2**33
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    voxels, sizes = zip(*((plan.voxels, chain_bytes(plan, 1)) for plan in plans), strict=True)
    return pairs_a_launch(pairs, voxels, sizes, memory // _MEMORY_SHARE)


def _rows(features: tuple[Tensor, Tensor], pairs: Tensor) -> list[Tensor]:
    """Rows of fixed and moving; one that does not exist fails on the device, without a wait."""
    return [
        torch.arange(len(one), device=one.device).index_select(0, chosen)
        for one, chosen in zip(
            features, pairs.to(features[0].device, torch.int64).unbind(1), strict=True
        )
    ]


def level_plans(
    levels: list[Tensor], channels: int, settings: PyramidSettings
) -> tuple[LevelPlan, ...]:
    """What each level's launches depend on, finest first."""
    shapes: list[Shape] = [(one.shape[1], one.shape[2], one.shape[3]) for one in levels]
    return tuple(
        LevelPlan(
            shape=shapes[index],
            coarse_shape=shapes[index + 1] if index + 1 < len(shapes) else None,
            factor=2.0,
            channels=channels,
            padded=levels[index].shape[4],
            dtype=levels[index].dtype,
            precision=precision_at(index, settings.precision),
            level=settings.level,
            solves=settings.solves[min(index, len(settings.solves) - 1)],
            squarings=settings.squarings,
        )
        for index in range(len(levels))
    )


class _Level:
    """A level's chain for so many pairs, and how a batch goes through it."""

    def __init__(self, plan: LevelPlan, pairs: int, memory: Tensor, graphs: bool) -> None:
        self._plan, self._pairs, self._graphs = plan, pairs, graphs
        self._chain = LevelChain(plan, pairs, Arena(memory))
        self._launch: Callable[[], tuple[Tensor, Tensor]] | None = None

    def run(self, where: list[Tensor], coarse: Tensor | None) -> tuple[Tensor, Tensor]:
        """The displacement ``[B, 3, D, H, W]`` and the entropy ``[B, D, H, W]``."""
        chain, shape, batch = self._chain, self._plan.shape, len(where[0])
        found = torch.empty(batch, 3, *shape, device=where[0].device)
        entropy = torch.empty(batch, *shape, device=found.device)
        for first in range(0, batch, self._pairs):
            chosen = slice(first, min(first + self._pairs, batch))
            _fill(chain.fixed, where[0][chosen])
            _fill(chain.moving, where[1][chosen])
            if chain.coarse is not None and coarse is not None:
                _fill(chain.coarse, coarse[chosen])
            displacement, uncertainty = self._launched()
            count = chosen.stop - first
            found[chosen] = displacement[:count].view(count, 3, *shape)
            entropy[chosen] = uncertainty[:count].view(count, *shape)
        return found, entropy

    def _launched(self) -> tuple[Tensor, Tensor]:
        if self._launch is None:
            # only now do the addresses point to features
            what = f"VoxelOpt's level of {self._plan.shape} voxels for {self._pairs} pairs"
            chain = self._chain
            self._launch = Captured(chain.launch, what) if self._graphs else chain.launch
        return self._launch()


class _Pyramid:
    """The levels of one plan on one piece of memory."""

    def __init__(
        self,
        plans: tuple[LevelPlan, ...],
        batches: tuple[int, ...],
        device: torch.device,
        graphs: bool,
    ) -> None:
        size_bytes = _work_bytes(plans, batches)
        try:
            memory = torch.empty(size_bytes, dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(
                f"VoxelOpt on {plans[0].shape} voxels needs {size_bytes / 2**30:.2f} GiB of work "
                f"memory on {device} for {batches} pairs a launch, finest level first: {error}"
            ) from error
        steps = zip(plans, batches, strict=True)
        self.levels = [_Level(plan, pairs, memory, graphs) for plan, pairs in steps]


_LOCK = threading.Lock()


def _pyramid(
    plans: tuple[LevelPlan, ...], batches: tuple[int, ...], device: torch.device, graphs: bool
) -> _Pyramid:
    """The pyramid that is kept for these arguments, or a new one."""
    key = ("pyramid", plans, batches, graphs)
    made = partial(_Pyramid, plans, batches, device, graphs)
    return kept_work(key, _work_bytes(plans, batches), device, made)


def _work_bytes(plans: tuple[LevelPlan, ...], batches: tuple[int, ...]) -> int:
    """Of the memory that the levels share."""
    return max(chain_bytes(plan, pairs) for plan, pairs in zip(plans, batches, strict=True))


def _fill(target: Tensor, values: Tensor) -> None:
    """Copy values to the start of static memory and repeat the last to its end."""
    target[: len(values)] = values
    if len(values) < len(target):
        target[len(values) :] = values[-1:]
