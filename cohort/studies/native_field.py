"""A chain as one displacement field on the grid of a file, and what becomes of volumes there."""

from dataclasses import dataclass

import numpy as np

from cohort.data.geometry import Grid
from cohort.studies.chain import Chain, moved_by, sample, slabs

_TRIED_POINTS = 20_000


@dataclass(frozen=True)
class FieldDifference:
    """How far a field between its voxels is from the chain that it was sampled from, in mm."""

    largest_mm: float
    mean_mm: float
    points: int = _TRIED_POINTS


def native_field(chain: Chain, grid: Grid) -> np.ndarray:
    """Where the voxels of ``grid`` go: float32 ``[D, H, W, 3]``, RAS mm from where they are."""
    field = np.empty((*grid.shape, 3), dtype=np.float32)
    for slab, voxels in slabs(grid.shape):
        away = chain.map(voxels, grid) - moved_by(grid.affine, voxels)
        field[slab] = away.T.reshape(field[slab].shape)
    return field


def native_determinant(chain: Chain, grid: Grid) -> np.ndarray:
    """Determinant of the chain's Jacobian at the voxels of ``grid``: float32 ``[D, H, W]``.

    Volume in the target per volume in the source, in mm³ of both; 0 and below is folding.
    """
    determinant = np.empty(grid.shape, dtype=np.float32)
    for slab, voxels in slabs(grid.shape):
        determinant[slab] = chain.determinant(voxels, grid).reshape(determinant[slab].shape)
    return determinant


def difference_between_voxels(chain: Chain, grid: Grid, field: np.ndarray) -> FieldDifference:
    """Compare :func:`native_field` with its chain at random positions inside of the grid."""
    random = np.random.default_rng(0)
    voxels = random.random((3, _TRIED_POINTS)) * (np.array(grid.shape)[:, None] - 1)
    linear = np.stack([sample(field[..., axis], voxels) for axis in range(3)])
    exact = chain.map(voxels, grid) - moved_by(grid.affine, voxels)
    distance = np.linalg.norm(linear - exact, axis=0)
    return FieldDifference(float(distance.max()), float(distance.mean()))
