"""Where a template lies: its own grid, and the way from there to what its last pass registered to.

The last pass registers to a template whose mean displacement is not quite 0. What is published is
moved by the inverse of that mean, and has the mean size and pose of the cohort: a voxel of the
published template leads through the linear map ``B`` and the inverse of the mean displacement to
the pass's own template, and from there through each subject's displacement to the subject.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from cohort.config.atlas import AtlasSettings
from cohort.data.geometry import Grid
from cohort.data.one_thread import one_thread
from cohort.data.store import CohortStore
from cohort.engine.sums import Sums
from cohort.studies.atlas.affine_mean import covering_grid, mean_linear
from cohort.studies.atlas.update import NextTemplate
from cohort.studies.chain import Field, moved_by
from cohort.studies.published import Published
from triton_reg import Displacement


@dataclass(frozen=True, eq=False)
class World:
    """A template's world.

    Attributes:
        grid: of its files.
        to_working_mm: ``B`` ``[4, 4]``: template world -> working world.
        field: on the working grid: where a working position of the published template lies on the
            template of the last pass.
    """

    grid: Grid
    to_working_mm: np.ndarray
    field: Field

    @classmethod
    def of(
        cls, store: CohortStore, settings: AtlasSettings, sums: Sums, found: NextTemplate
    ) -> "World":
        """The world of what a pass on the working grid found, of those who were registered."""
        counted = {name: weight for name, weight in sorted(sums.subjects.items()) if weight}
        to_working_mm = mean_linear(
            store, list(counted), list(counted.values()), symmetric=settings.symmetric
        )
        grid = covering_grid(store.grid, to_working_mm)
        return cls(grid, to_working_mm, Field(found.inverse, store.grid))

    @cached_property
    def moved(self) -> Displacement:
        """From voxels of the files to those of the last pass's template."""
        voxels = self._working_voxels
        return self._to(self.field.moved(voxels))

    def brought(self, values: np.ndarray) -> np.ndarray:
        """A map ``[D, H, W]`` on the last pass's grid as the files have it, linear, 0 outside."""
        return _warped(values, self.moved)

    def log_jacobian(self) -> np.ndarray:
        """Of the way from the published template to the last pass's, without ``B``."""
        inside = self.field.determinants[1:-1, 1:-1, 1:-1]
        values = np.log(np.maximum(inside, 1e-3)).astype(np.float32)
        return _warped(values, self._to(self._working_voxels))

    @cached_property
    def _working_voxels(self) -> np.ndarray:
        """Where voxels of the files lie on the working grid before the mean is removed."""
        matrix = np.linalg.inv(self.field.grid.affine) @ self.to_working_mm @ self.grid.affine
        return moved_by(matrix, np.indices(self.grid.shape, dtype=np.float64).reshape(3, -1))

    def _to(self, positions: np.ndarray) -> Displacement:
        """From the files' grid to positions ``[3, N]`` on the working grid."""
        shape, working = self.grid.shape, self.field.grid.shape
        voxels = np.indices(shape, dtype=np.float64).reshape(3, -1)
        scale = (np.array(working) - 1) / (np.array(shape) - 1)
        vectors = (positions - voxels * scale[:, None]).reshape(1, 3, *shape)
        return Displacement(torch.from_numpy(vectors.astype(np.float32)), shape, working)

    def published(self, image: Path) -> Published:
        """What is left with the runs, whose transforms then start from the published template."""
        digest = hashlib.sha256(image.read_bytes()).hexdigest()
        return Published(image, digest, self.grid, self.to_working_mm, self.field)


def _warped(values: np.ndarray, moved: Displacement) -> np.ndarray:
    with one_thread(), torch.inference_mode():
        return moved.warp(torch.from_numpy(values)[None, None])[0, 0].numpy()
