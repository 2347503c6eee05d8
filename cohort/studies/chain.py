"""The way from one native world to another: affine, displacement, affine, and so on.

A chain maps *points*: where a position of its source's world lies in its target's. Images travel
against it: sampled at the mapped positions, an image of the target's world lies on the source's.
Positions are arrays ``[3, N]``, float64, so that one matrix product moves them all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.ndimage import map_coordinates

from cohort.data.geometry import Grid
from triton_reg.displacement import jacobian_determinant

_SLAB_VOXELS = 1 << 20


@dataclass(frozen=True, eq=False)
class Field:
    """A displacement on a grid of the working world.

    vectors: float32 ``[3, D, H, W]``, voxel x lies at x + u(x), linear between voxels; outside of
    the grid, u is that of the nearest voxel on its border. grid: where the voxels lie.
    """

    vectors: np.ndarray
    grid: Grid

    def moved(self, voxels: np.ndarray) -> np.ndarray:
        """x + u(x) at positions ``[3, N]`` in voxels."""
        return voxels + np.stack([sample(component, voxels) for component in self.vectors])

    def determinant(self, voxels: np.ndarray) -> np.ndarray:
        """Of the Jacobian of x + u(x) at positions ``[3, N]`` in voxels; float64."""
        return sample(self.determinants, voxels + 1)

    @cached_property
    def determinants(self) -> np.ndarray:
        """float32 ``[D + 2, H + 2, W + 2]``, at the grid's voxels and at those around it.

        On the border that next to it; around it u changes along the border alone, not away from it.
        """
        around = np.pad(self.vectors, [(0, 0), (2, 2), (2, 2), (2, 2)], mode="edge")
        found = jacobian_determinant(torch.from_numpy(around)[None])[0].numpy()
        found[1:-1, 1:-1, 1:-1] = np.pad(found[2:-2, 2:-2, 2:-2], 1, mode="edge")
        return found


@dataclass(frozen=True, eq=False)
class Chain:
    """Native world of ``source`` -> native world of ``target``, RAS mm.

    source, target: subject ids. matrices: ``[4, 4]`` in mm, float64, one more than there are
    fields. fields: the first matrix leads into the world of the first field's grid, and so on.
    """

    source: str
    target: str
    matrices: tuple[np.ndarray, ...]
    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        if len(self.matrices) != len(self.fields) + 1:
            raise ValueError(
                f"Chain: {len(self.fields)} fields need {len(self.fields) + 1} matrices around "
                f"them, got {len(self.matrices)}"
            )

    def map_points(self, points_mm: np.ndarray) -> np.ndarray:
        """Points ``[..., 3]`` of the source's native world in the target's, RAS mm."""
        mapped = self.map(np.asarray(points_mm, dtype=np.float64).reshape(-1, 3).T)
        return mapped.T.reshape(np.shape(points_mm))

    def map(
        self, positions: np.ndarray, start: Grid | None = None, end: Grid | None = None
    ) -> np.ndarray:
        """Positions ``[3, N]``: from voxels of ``start`` to those of ``end``; RAS mm for None."""
        first, *others = self._in_voxels(start, end)
        found = moved_by(first, positions)
        for field, matrix in zip(self.fields, others, strict=True):
            found = moved_by(matrix, field.moved(found))
        return found

    def determinant(self, positions: np.ndarray, start: Grid | None = None) -> np.ndarray:
        """Of the chain's Jacobian in mm at positions ``[3, N]`` as :meth:`map` takes them."""
        first, *others = self._in_voxels(start, None)
        found = moved_by(first, positions)
        total = np.full(found.shape[1], np.prod([_linear_det(one) for one in self.matrices]))
        for field, matrix in zip(self.fields, others, strict=True):
            total *= field.determinant(found)
            found = moved_by(matrix, field.moved(found))
        return total

    def then(self, second: "Chain") -> "Chain":
        """First this chain, then ``second``, which starts where this one ends.

        Raises:
            ValueError: if it starts elsewhere.
        """
        if second.source != self.target:
            raise ValueError(
                f"Chain.then: this chain ends in {self.target}, the second starts in "
                f"{second.source}"
            )
        joint = second.matrices[0] @ self.matrices[-1]
        matrices = (*self.matrices[:-1], joint, *second.matrices[1:])
        return Chain(self.source, second.target, matrices, self.fields + second.fields)

    @property
    def alignment(self) -> np.ndarray:
        """``[4, 4]`` in mm: the chain without its displacements."""
        matrix = np.eye(4)
        for one in self.matrices:
            matrix = one @ matrix
        return matrix

    def _in_voxels(self, start: Grid | None, end: Grid | None) -> Iterator[np.ndarray]:
        """The matrices between voxels of one grid and the next."""
        grids = [start, *(field.grid for field in self.fields), end]
        for matrix, before, after in zip(self.matrices, grids[:-1], grids[1:], strict=True):
            found = matrix if before is None else matrix @ before.affine
            yield found if after is None else np.linalg.inv(after.affine) @ found


def moved_by(matrix: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Positions ``[3, N]`` through ``[4, 4]``."""
    return matrix[:3, :3] @ positions + matrix[:3, 3:]


def sample(values: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """``values [D, H, W]`` at positions ``[3, N]``, linear, as on the border outside; float64."""
    return map_coordinates(values, voxels, np.float64, order=1, mode="nearest", prefilter=False)


def slabs(shape: tuple[int, int, int]) -> Iterator[tuple[slice, np.ndarray]]:
    """A grid in slabs along its first axis: the slab, and its voxels' positions ``[3, N]``.

    One slab is some tens of MB, whatever the size of the grid.
    """
    depth, height, width = shape
    thickness = max(1, _SLAB_VOXELS // (height * width))
    for begin in range(0, depth, thickness):
        slab = slice(begin, min(begin + thickness, depth))
        axes = np.arange(slab.start, slab.stop), np.arange(height), np.arange(width)
        voxels = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
        yield slab, voxels.astype(np.float64)


def _linear_det(matrix: np.ndarray) -> float:
    return float(np.linalg.det(matrix[:3, :3]))
