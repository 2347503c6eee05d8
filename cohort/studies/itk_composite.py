"""A chain as one ITK file of its own steps: affine, displacement on the working grid, affine.

The only module that needs SimpleITK, the extra ``itk``.
"""

from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cohort.data.geometry import Grid, ras_to_lps
from cohort.errors import StorageError
from cohort.studies.chain import Chain, Field, moved_by
from cohort.studies.itk_files import affine_parameters

if TYPE_CHECKING:
    import SimpleITK as sitk

MISSING = "not written: it needs SimpleITK, `pip install 'triton-reg[itk]'`"


def can_write_composite() -> bool:
    """Whether SimpleITK is installed."""
    return find_spec("SimpleITK") is not None


def itk_affine(image: Path) -> np.ndarray:
    """Where ITK places the voxels of a file: ``[4, 4]``, voxel -> RAS mm.

    Raises:
        RuntimeError: if ITK cannot read it.
    """
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(image))
    spoken = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.GlobalWarningDisplayOff()  # of its own doubts, which we tell ourselves
    try:
        reader.ReadImageInformation()
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(spoken)
    axes = reader.GetDimension()
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(reader.GetDirection(), (axes, axes))[:3, :3] * reader.GetSpacing()[:3]
    lps[:3, 3] = reader.GetOrigin()[:3]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def write_composite(path: Path, chain: Chain, grid: Grid) -> None:
    """Write a chain as ``.h5``; it holds for all that lies on ``grid`` in its source's world.

    Raises:
        StorageError: if ITK cannot write it.
    """
    import SimpleITK as sitk

    covered = covering(chain, grid)
    steps: list[sitk.Transform] = [_affine(covered.matrices[0])]
    for field, matrix in zip(covered.fields, covered.matrices[1:], strict=True):
        steps += [_displacement(field), _affine(matrix)]
    # ITK applies the last one first
    composite = sitk.CompositeTransform(steps[::-1])
    try:
        sitk.WriteTransform(composite, str(path))
    except RuntimeError as error:
        raise StorageError("E_STORAGE", f"ITK cannot write {path}: {error}") from error


def covering(chain: Chain, grid: Grid) -> Chain:
    """A chain with fields that hold every position that starts on ``grid``, half a voxel around it.

    ITK's displacement fields are zero outside of their grid, ours go on as at the border.
    """
    low, high = np.full(3, -0.5), np.array(grid.shape) - 0.5
    to_world = grid.affine
    fields = []
    for matrix, field in zip(chain.matrices[:-1], chain.fields, strict=True):
        corners = np.array(list(product(*zip(low, high, strict=True)))).T
        reached = moved_by(np.linalg.inv(field.grid.affine) @ matrix @ to_world, corners)
        low, high = reached.min(axis=1), reached.max(axis=1)
        fields.append(_padded(field, low, high))
        spread = field.vectors.reshape(3, -1)
        low, high = low + spread.min(axis=1), high + spread.max(axis=1)
        to_world = field.grid.affine
    return Chain(chain.source, chain.target, chain.matrices, tuple(fields))


def _padded(field: Field, low: np.ndarray, high: np.ndarray) -> Field:
    """A field that goes on as at its border from voxel ``low [3]`` to voxel ``high [3]``."""
    before = np.maximum(np.ceil(-low), 0).astype(int)
    after = np.maximum(np.ceil(high - (np.array(field.grid.shape) - 1)), 0).astype(int)
    margins = list(zip(before.tolist(), after.tolist(), strict=True))
    vectors = np.pad(field.vectors, [(0, 0), *margins], mode="edge")
    affine = field.grid.affine.copy()
    affine[:3, 3] = field.grid.voxel_to_world(-before)
    first, second, third = vectors.shape[1:]
    return Field(vectors, Grid((first, second, third), affine))


def _affine(matrix: np.ndarray) -> "sitk.Transform":
    import SimpleITK as sitk

    transform = sitk.AffineTransform(3)
    parameters, center = affine_parameters(matrix, np.zeros(3))
    transform.SetParameters(parameters.tolist())
    transform.SetFixedParameters(center.tolist())
    return transform


def _displacement(field: Field) -> "sitk.Transform":
    import SimpleITK as sitk

    vectors_mm = np.einsum("ij,jdhw->whdi", field.grid.affine[:3, :3], field.vectors)
    image = sitk.GetImageFromArray(ras_to_lps(vectors_mm), isVector=True)
    spacing_mm = np.array(field.grid.spacing_mm)
    directions = field.grid.affine[:3, :3] / spacing_mm
    image.SetSpacing(spacing_mm.tolist())
    image.SetDirection((np.diag([-1.0, -1.0, 1.0]) @ directions).ravel().tolist())
    image.SetOrigin(ras_to_lps(field.grid.affine[:3, 3]).tolist())
    return sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64))
