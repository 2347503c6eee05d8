"""The next template: the mean volume, brought to the mean shape.

The mean volume M lies where the template lay, x, which is at x + m(x) in the mean subject, with
the mean displacement m. The next template is M moved there: T(x + m(x)) = M(x), so that seen from
it the subjects' displacements have the mean 0. It is sampled once, by cubic splines, through the
inverse of m.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

from cohort.config.atlas import AtlasSettings
from cohort.data.geometry import Grid
from cohort.data.one_thread import one_thread
from cohort.engine.sums import Sums
from cohort.studies.atlas.means import mean_displacement, mean_volume, with_mirror_images
from cohort.studies.chain import Field, moved_by, slabs
from triton_reg import Displacement
from triton_reg.ops.resize import resize
from triton_reg.ops.warp import warp

_STEPS, _TOLERANCE = 60, 1e-3  # of the inversion
_CUBIC = 3
_SAME = np.eye(4)


@dataclass(frozen=True, eq=False)
class NextTemplate:
    """What a pass gives.

    Attributes:
        volume: float32 ``[D, H, W]`` on the pass's own grid.
        mean: the mean volume before it was moved.
        inverse: float32 ``[3, D, H, W]`` voxels: where each voxel of the volume lies in ``mean``.
        drift_voxels, drift_mm: root mean square of the mean displacement inside the mask, before
            it was removed.
        left_voxels: that of what is left of it after removal.
        sharpness: mean squared gradient inside the mask, per mm², before sharpening.
        mask: bool ``[D, H, W]``, see :func:`foreground`.
    """

    volume: np.ndarray
    mean: np.ndarray
    inverse: np.ndarray
    drift_voxels: float
    drift_mm: float
    left_voxels: float
    sharpness: float
    mask: np.ndarray

    @property
    def facts(self) -> dict[str, Any]:
        """The numbers."""
        return {name: value for name, value in vars(self).items() if isinstance(value, float)}


def next_template(sums: Sums, settings: AtlasSettings, grid: Grid) -> NextTemplate:
    """The template that the sums of a pass on ``grid`` give."""
    if settings.symmetric:
        sums = with_mirror_images(sums)
    mean, displacement = mean_volume(sums, settings.center), mean_displacement(sums)
    mask = foreground(mean, sums)
    with one_thread(), torch.inference_mode():
        moved = Displacement(torch.from_numpy(displacement)[None], grid.shape, grid.shape)
        inverse = moved.inverse(iterations=_STEPS, tolerance=_TOLERANCE).displacement
        # beyond its grid the mean goes on, as for the inverse: 0 there would pass for what is left
        left = (inverse.vectors + warp(moved.vectors, inverse.vectors, padding="border"))[0].numpy()
    back = inverse.vectors[0].numpy()
    plain = moved_volume(mean, back, grid, grid)
    voxels, mm = root_mean_square(displacement, mask, grid)
    return NextTemplate(
        sharpened(plain, settings.sharpen),
        mean,
        back,
        voxels,
        mm,
        root_mean_square(left, mask, grid)[0],
        sharpness(plain, mask, grid),
        mask,
    )


def moved_volume(
    mean: np.ndarray, inverse: np.ndarray, grid: Grid, onto: Grid, to_world: np.ndarray = _SAME
) -> np.ndarray:
    """The mean volume ``[D, H, W]`` on ``grid``, moved to the mean shape, on the grid ``onto``.

    ``to_world [4, 4]`` leads from the world of ``onto`` to that of ``grid``, mm. Outside of
    ``grid`` the result is the mean's minimum.
    """
    field, matrix = Field(inverse, grid), np.linalg.inv(grid.affine) @ to_world @ onto.affine
    coefficients = spline_filter(mean, order=_CUBIC, output=np.float64, mode="mirror")
    found = np.empty(onto.shape, dtype=np.float32)
    for slab, voxels in slabs(onto.shape):
        start = moved_by(matrix, voxels)
        values = map_coordinates(
            coefficients, field.moved(start), order=_CUBIC, mode="mirror", prefilter=False
        )
        outside = (start < -0.5) | (start > np.array(grid.shape)[:, None] - 0.5)
        values[outside.any(axis=0)] = mean.min()
        found[slab] = values.reshape(found[slab].shape)
    return found


def foreground(mean: np.ndarray, sums: Sums) -> np.ndarray:
    """Where numbers are taken: brighter than the mean, and seen in most subjects, masks counted."""
    return (sums.row("weight") >= sums.weight / 2) & (mean > mean.mean())


def root_mean_square(vectors: np.ndarray, mask: np.ndarray, grid: Grid) -> tuple[float, float]:
    """Of voxel vectors ``[3, D, H, W]`` inside a mask, in voxels and in mm."""
    inside = vectors[:, mask].astype(np.float64)
    spacing = np.array(grid.spacing_mm)[:, None]
    lengths = [(inside**2).sum(axis=0), ((inside * spacing) ** 2).sum(axis=0)]
    voxels, mm = (float(np.sqrt(one.mean())) if one.size else 0.0 for one in lengths)
    return voxels, mm


def movement(before: np.ndarray, found: NextTemplate, grid: Grid) -> dict[str, float]:
    """How far a pass moved the edges of the template ``before [D, H, W]``: ``moved_voxels, _mm``.

    The root of the mean squared change of the intensities inside the mask over their mean squared
    gradient: the distance along the gradient that explains the change. Unlike the drift it goes to
    zero as passes converge: a displacement that registration to a smooth mean finds for everyone
    alike is in the mean volume too, the other way round, and both cancel in the next template.
    """
    change = np.square(found.volume - before, dtype=np.float64)[found.mask].sum()

    def moved(spacing: tuple[float, float, float]) -> float:
        energy = gradient_energy(found.volume, spacing)[found.mask].sum()
        return float(np.sqrt(change / energy)) if energy else 0.0

    return {"moved_voxels": moved((1.0, 1.0, 1.0)), "moved_mm": moved(grid.spacing_mm)}


def sharpness(volume: np.ndarray, mask: np.ndarray, grid: Grid) -> float:
    """Mean squared gradient inside a mask, intensities squared per mm²."""
    energy = gradient_energy(volume, grid.spacing_mm)[mask]
    return float(energy.mean()) if energy.size else 0.0


def gradient_energy(volume: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Squared length ``[D, H, W]`` of the gradient of a volume."""
    return np.square(np.gradient(volume.astype(np.float64), *spacing)).sum(axis=0)


def on_grid(volume: np.ndarray, grid: Grid) -> np.ndarray:
    """A volume of a coarser or finer grid over the same box on ``grid``, linear."""
    if volume.shape == grid.shape:
        return volume
    with one_thread():
        return resize(torch.from_numpy(volume)[None, None], grid.shape)[0, 0].numpy()


def sharpened(volume: np.ndarray, amount: float) -> np.ndarray:
    """Unsharp masking: what a Gaussian of one voxel takes away is added ``amount`` times."""
    if amount == 0:
        return volume
    return volume + amount * (volume - gaussian_filter(volume, 1.0, mode="nearest"))
