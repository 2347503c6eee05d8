"""Bytes that each GPU kernel of VoxelOpt has to move, from shapes alone.

What lies in the cache because the launch before wrote it is counted where the array is larger than
any cache, and named ``cached`` where it is not: displacements of one or two pairs.
"""

import math
from dataclasses import dataclass

VECTORS = 3 * 4  # bytes a voxel of a displacement
ENTROPY = 4
CODE = 2


@dataclass(frozen=True)
class Storage:
    """Bytes a voxel at one precision: a line of padded channels, the cost volume, side weights."""

    line: int
    cost: int
    side: int

    @classmethod
    def of(cls, precision: str, padded_channels: int) -> "Storage":
        """At search radius 1."""
        if precision == "fast":
            return cls(2 * padded_channels, 14 * 4, 2)
        return cls(4 * padded_channels, 27 * 4, 4)


def kernel_bytes(shape: tuple[int, int, int], storage: Storage) -> dict[str, int]:
    """Bytes a pair of one launch of each kernel."""
    a_voxel = {
        "up_warp": 2 * storage.line + VECTORS,
        "cost_entropy": 2 * storage.line + storage.cost + ENTROPY,
        "weights": ENTROPY + storage.side,
        "filter": 2 * storage.cost + storage.side,
        "argmin": storage.cost + CODE,
        "filter_codes": CODE + VECTORS + storage.side,
        "filter_vectors": 2 * VECTORS + storage.side,
        "square": 2 * VECTORS,
        "compose": 3 * VECTORS,
    }
    voxels = math.prod(shape)
    return {name: size_bytes * voxels for name, size_bytes in a_voxel.items()}


def launches(passes: int, argmins: int, squarings: int) -> dict[str, int]:
    """How often each kernel runs in one solve."""
    return {
        "up_warp": 1,
        "cost_entropy": 1,
        "weights": 1,
        "filter": passes,
        "argmin": argmins,
        "filter_codes": argmins,
        "filter_vectors": (passes - 1) * argmins,
        "square": squarings,
        "compose": 1,
    }
