"""Transforms as ITK reads them: LPS mm, mapping points of the fixed image to the moving one.

The affine files follow ITK's text and MATLAB transform formats: the twelve parameters are the rows
of the matrix M and the translation t of ``y = M (x - c) + c + t``, the fixed parameters are c.
"""

import io
from pathlib import Path

import numpy as np
from scipy.io import savemat

from cohort.data.geometry import Grid, ras_to_lps
from cohort.data.storage import write_atomic
from cohort.studies.nifti_images import ITK_VECTORS, write_image

_AFFINE = "AffineTransform_double_3_3"
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


def lps_matrix(ras_mm: np.ndarray) -> np.ndarray:
    """A matrix ``[4, 4]`` between RAS worlds as one between LPS worlds."""
    return _FLIP @ ras_mm @ _FLIP


def affine_parameters(
    ras_mm: np.ndarray, center_ras_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """ITK's twelve parameters and three fixed parameters of a matrix ``[4, 4]``, about a centre."""
    matrix, center = lps_matrix(ras_mm), ras_to_lps(center_ras_mm)
    moved = matrix[:3, :3] @ center + matrix[:3, 3]
    return np.concatenate([matrix[:3, :3].ravel(), moved - center]), center


def write_itk_affine(stem: Path, ras_mm: np.ndarray, center_ras_mm: np.ndarray) -> None:
    """A matrix ``[4, 4]`` as ITK's text and MATLAB files: ``stem`` with .tfm and .mat behind."""
    parameters, center = affine_parameters(ras_mm, center_ras_mm)
    text = (
        "#Insight Transform File V1.0\n#Transform 0\n"
        f"Transform: {_AFFINE}\n"
        f"Parameters: {_numbers(parameters)}\n"
        f"FixedParameters: {_numbers(center)}\n"
    )
    write_atomic(stem.with_name(f"{stem.name}.tfm"), text.encode())
    binary = io.BytesIO()
    savemat(binary, {_AFFINE: parameters[:, None], "fixed": center[:, None]}, format="4")
    write_atomic(stem.with_name(f"{stem.name}.mat"), binary.getvalue())


def write_itk_field(path: Path, field: np.ndarray, grid: Grid, description: str) -> None:
    """A field ``[D, H, W, 3]`` in RAS mm as NIfTI of (D, H, W, 1, 3), intent vector, in LPS mm."""
    lps = field.copy()
    lps[..., :2] *= -1
    write_image(path, lps[:, :, :, None], grid, description, ITK_VECTORS)


def _numbers(values: np.ndarray) -> str:
    return " ".join(map(repr, values.tolist()))
