"""Bring a native subject onto the working grid: one affine transform, one interpolation.

A working world position w lies at native world position T w; a translation or what registration
found. Everything a subject has goes through the same chain: native voxel -> native world ->
working world -> working voxel.
"""

from typing import Any, Literal

import numpy as np
from scipy.ndimage import affine_transform

from cohort.data.geometry import Grid
from cohort.data.native import Native
from cohort.data.nifti import Nifti
from cohort.data.store import Subject
from cohort.errors import SubjectError

Align = Literal["none", "grid", "center", "rigid", "affine"]
# affines are stored as float32: a voxel on the border must not fall off it for a rounding
_ROUNDING_VOXELS = 1e-3
# labels half way between two voxels are those of one and the same side, whatever the rounding
TIE_VOXELS = 1e-4


def anchor_mm(native: Native, align: Align) -> np.ndarray:
    """The native world position ``[3]`` that alignment brings to the reference's."""
    if align == "none":
        return np.zeros(3)
    if align == "grid":
        return native.grid.center_mm
    return native.grid.voxel_to_world(_center_of_mass(native.volume))


def translation(translation_mm: np.ndarray) -> np.ndarray:
    """``[4, 4]``: a world position moved by a translation ``[3]``."""
    matrix = np.eye(4)
    matrix[:3, 3] = translation_mm
    return matrix


def recorded_to_native(provenance: dict[str, Any]) -> np.ndarray:
    """Working world mm -> native world mm ``[4, 4]``, from what a subject's record says.

    Raises:
        KeyError: if the subject was not brought to the grid from a file.
    """
    if "registration" in provenance:
        return np.array(provenance["registration"]["to_native_mm"])
    return translation(-np.asarray(provenance["translation_mm"]))


def bring_to_grid(native: Native, grid: Grid, to_native_mm: np.ndarray) -> Subject:
    """Resample a subject: linear for its volume, nearest for its labels and mask.

    Outside of the native image the volume has its minimum, labels and mask are 0.
    ``to_native_mm [4, 4]`` leads from the working world to the native one.
    """
    to_native = _between(grid, native.grid, to_native_mm)
    inside = _inside(to_native, grid.shape, native.grid.shape, _ROUNDING_VOXELS)
    if not inside.any():
        raise SubjectError(
            "E_OUTSIDE",
            f"subject {native.subject_id}, {_size(native.grid)}, lies around "
            f"{native.grid.center_mm.round(1).tolist()}, outside of the voxels of the working "
            f"grid, {_size(grid)} around {grid.center_mm.round(1).tolist()} (RAS mm); if the sizes "
            "are right, aligning by grid or center brings it there",
        )

    def nearest(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else _nearest(values, to_native, grid.shape) * inside

    mask = nearest(native.mask)
    if mask is not None and not mask.any():
        raise SubjectError(
            "E_MASK_EMPTY",
            f"the mask of subject {native.subject_id} holds no voxel of the working grid around "
            f"{grid.center_mm.round(1).tolist()} (RAS mm); need some of it there",
        )
    volume = _sample(native.volume, to_native, grid.shape, 1)
    to_working_mm = np.linalg.inv(to_native_mm)
    keypoints_mm = native.keypoints_mm
    return Subject(
        native.subject_id,
        volume=np.where(inside, volume, native.volume.min()),
        labels=nearest(native.labels),
        mask=mask,
        keypoints_mm=None if keypoints_mm is None else _moved(to_working_mm, keypoints_mm),
        to_template=_truth(native.to_template, grid, to_native_mm, np.eye(4)),
        from_template=_truth(native.from_template, grid, np.eye(4), to_working_mm),
    )


def labelled_outside(native: Native, grid: Grid, to_native_mm: np.ndarray) -> float | None:
    """Share of the labelled native voxels outside of the working grid; None if no labels."""
    if native.labels is None:
        return None
    labelled = native.labels > 0
    to_working = _between(native.grid, grid, np.linalg.inv(to_native_mm))
    held = _inside(to_working, native.grid.shape, grid.shape, 0.5)
    return float(np.count_nonzero(labelled & ~held) / max(np.count_nonzero(labelled), 1))


def _size(grid: Grid) -> str:
    return " x ".join(f"{size:.4g}" for size in grid.extent_mm()) + " mm"


def _center_of_mass(volume: np.ndarray) -> np.ndarray:
    """Voxel position ``[3]`` of the mean, weighted by intensity above the minimum."""
    weights = volume.astype(np.float64) - volume.min()
    center = []
    for axis, size in enumerate(volume.shape):
        others = tuple(other for other in range(3) if other != axis)
        center.append(weights.sum(axis=others) @ np.arange(size) / weights.sum())
    return np.array(center)


def _between(start: Grid, end: Grid, matrix_mm: np.ndarray) -> np.ndarray:
    """``[4, 4]``: voxel of ``start`` -> voxel of ``end``, through ``matrix_mm`` in the world."""
    return np.linalg.inv(end.affine) @ (matrix_mm @ start.affine)


def _moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _inside(
    matrix: np.ndarray, shape: tuple[int, ...], bounds: tuple[int, ...], margin: float
) -> np.ndarray:
    """Which voxels of ``shape`` are mapped into a grid of shape ``bounds``: bool ``[D, H, W]``."""
    inside = np.ones(shape, dtype=bool)
    first, second, third = np.ogrid[tuple(slice(size) for size in shape)]
    for row, size in zip(matrix[:3], bounds, strict=True):
        position = row[0] * first + row[1] * second + row[2] * third + row[3]
        inside &= (position >= -margin) & (position <= size - 1 + margin)
    return inside


def _sample(
    values: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...], order: int
) -> np.ndarray:
    """``values`` at the mapped voxels of ``shape``; the nearest edge outside."""
    return affine_transform(
        values, matrix, output_shape=shape, order=order, mode="nearest", prefilter=False
    )


def _nearest(values: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Like :func:`_sample`, the nearest voxel's; of two as near the upper one's.

    A grid that lies half a voxel away would else drop and repeat planes, as roundings fall.
    """
    upwards = matrix.copy()
    upwards[:3, 3] += TIE_VOXELS
    return _sample(values, upwards, shape, 0)


def _truth(
    field: Nifti | None, grid: Grid, before_mm: np.ndarray, after_mm: np.ndarray
) -> np.ndarray | None:
    """A field in mm as voxels ``[3, D, H, W]`` of the working grid.

    Working world position w goes through ``before_mm``, the field and ``after_mm``, both
    ``[4, 4]``; what is returned leads from w to where it arrives.
    """
    if field is None:
        return None
    matrix = _between(grid, field.grid, before_mm)
    vectors_mm = np.stack([_sample(values, matrix, grid.shape, 1) for values in field.data])
    linear = after_mm[:3, :3].astype(np.float32)
    vectors_mm = np.einsum("ij,jdhw->idhw", linear, vectors_mm)
    # the affine part in float64: it is a small difference of large positions
    added = (after_mm @ before_mm - np.eye(4)) @ grid.affine
    voxels = np.ogrid[tuple(slice(size) for size in grid.shape)]
    for vectors, row in zip(vectors_mm, added, strict=False):
        away = sum(step * axis for step, axis in zip(row[:3], voxels, strict=True)) + row[3]
        vectors += away.astype(np.float32)
    to_voxels = np.linalg.inv(grid.affine[:3, :3]).astype(np.float32)
    return np.ascontiguousarray(np.einsum("ij,jdhw->idhw", to_voxels, vectors_mm))
