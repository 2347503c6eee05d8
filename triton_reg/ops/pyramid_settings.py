"""The settings of a whole pyramid: what its operator and its kernels both read."""

from dataclasses import dataclass
from typing import Literal

from triton_reg.ops.level_settings import LevelSettings

Precision = Literal["fast", "exact"]


@dataclass(frozen=True, kw_only=True)
class PyramidSettings:
    """How VoxelOpt registers a pyramid on a GPU.

    Attributes:
        level: how one level is solved.
        solves: how often each level is solved, finest first; the last number holds for the rest.
        squarings: steps of scaling and squaring.
        precision: ``"fast"`` stores features, filter weights and the centred cost volume of the two
            finest levels in fp16, ``"exact"`` all in float32; arithmetic is float32 in both.
    """

    level: LevelSettings
    solves: tuple[int, ...]
    squarings: int
    precision: Precision
