"""Memory that launches use again and again, and what they depend on besides its content."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from triton_reg.ops._triton.layout import PACKED_LABELS, Shape
from triton_reg.ops.level_settings import LevelSettings

_ALIGNMENT = 256  # bytes: every tensor starts where an allocation of its own would


@dataclass(frozen=True)
class LevelPlan:
    """What the launches of one level depend on.

    Attributes:
        shape: ``(D, H, W)`` of the level.
        coarse_shape: grid of the displacement that is known; None where nothing is.
        factor: by which the vectors of that displacement grow.
        channels: of the features, which ``padded`` channels hold.
        dtype: of the features.
        precision: ``"fast"`` packs the cost volume in fp16 where its kernels can.
        level: how the level is solved.
        solves: how often.
        squarings: steps of scaling and squaring.
    """

    shape: Shape
    coarse_shape: Shape | None
    factor: float
    channels: int
    padded: int
    dtype: torch.dtype
    precision: str
    level: LevelSettings
    solves: int
    squarings: int

    def __post_init__(self) -> None:
        # kernels count in int32 within a pair
        rows = max(self.padded, PACKED_LABELS if self.is_packed else 27)
        if self.voxels * rows >= 2**31:
            raise ValueError(
                f"VoxelOpt on a GPU: {self.shape} voxels with {self.channels} channels are too"
                f" many; voxels times {rows} must stay below 2**31, at precision="
                f"{self.precision!r}; halve the grid (downsample=2)"
            )

    @property
    def voxels(self) -> int:
        """Voxels of the level."""
        return math.prod(self.shape)

    @property
    def is_packed(self) -> bool:
        """Whether the cost volume is kept in fp16, two labels a word."""
        return storage_dtype(self.level, self.precision) == torch.float16

    def is_fused(self, radius: int) -> bool:
        """Whether a search takes the kernel that keeps its costs in registers."""
        return radius == 1 and not self.level.masked

    @property
    def entropy_radius(self) -> int:
        """The search radius whose entropy is taken."""
        return self.level.entropy_radius or self.level.radius


def storage_dtype(level: LevelSettings, precision: str) -> torch.dtype:
    """In what features and cost volume are stored."""
    if precision not in ("fast", "exact"):
        raise ValueError(f"precision must be 'fast' or 'exact', got {precision!r}")
    wide = level.filter_cost and level.is_wide
    fits_packed = level.radius == 1 and not wide and not level.masked
    return torch.float16 if precision == "fast" and fits_packed else torch.float32


class Arena:
    """One piece of memory that is cut into tensors, one after the other.

    Levels that run one after the other each cut the same piece anew. Without memory nothing is
    cut, only counted.
    """

    def __init__(self, memory: Tensor | None = None) -> None:
        self._memory = memory
        self.used_bytes = 0

    def take(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """The next tensor, not initialised; on the meta device while counting."""
        start, size_bytes = self.used_bytes, math.prod(shape) * dtype.itemsize
        self.used_bytes += -(-size_bytes // _ALIGNMENT) * _ALIGNMENT
        if self._memory is None:
            return torch.empty(shape, dtype=dtype, device="meta")
        return self._memory[start : start + size_bytes].view(dtype).view(shape)
