"""One subject as its files have it: checked, in canonical order, on its native grid."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cohort.data.entries import SourceEntry
from cohort.data.geometry import Grid
from cohort.data.nifti import MAX_BYTES, Nifti, read_nifti
from cohort.data.nifti_bytes import read_file
from cohort.data.nifti_header import Orientation
from cohort.errors import SubjectError

_MAX_TABLE_BYTES = 64 << 20
_SAME_GRID_VOXELS = 0.1


@dataclass(frozen=True, eq=False)
class Native:
    """A subject before anything is resampled.

    volume: float32 ``[D, H, W]`` on ``grid``. labels: uint16, mask: uint8, both on the same grid.
    keypoints_mm: float64 ``[K, 3]``, native RAS mm. to_template, from_template: fields in RAS mm.
    header: what the image's header said. sha256: of every file, by role.
    """

    subject_id: str
    volume: np.ndarray
    grid: Grid
    labels: np.ndarray | None
    mask: np.ndarray | None
    keypoints_mm: np.ndarray | None
    to_template: Nifti | None
    from_template: Nifti | None
    header: dict[str, Any]
    sha256: dict[str, str]


def load_native(entry: SourceEntry, assume_orientation: Orientation | None = None) -> Native:
    """Read and check all files of one subject."""
    image = read_nifti(entry.image, assume_orientation=assume_orientation)
    sha256 = {"image": image.sha256}
    segmentations = {"labels": entry.labels, "mask": entry.mask}
    values: dict[str, np.ndarray | None] = dict.fromkeys(segmentations)
    for role, path in segmentations.items():
        if path is not None:
            found = read_nifti(path, content="labels", assume_orientation=assume_orientation)
            _check_same_grid(f"E_{role.removesuffix('s').upper()}_SHAPE", image, found)
            sha256[role] = found.sha256
            values[role] = found.data.astype(np.uint16)
    fields: dict[str, Nifti | None] = {"to_template": None, "from_template": None}
    for role in fields:
        path = entry.files.get(role)
        if path is not None:
            field = fields[role] = read_nifti(path, content="vectors")
            sha256[role] = field.sha256
    keypoints_mm = None
    if entry.keypoints is not None:
        keypoints_mm, sha256["keypoints"] = _read_keypoints(entry.keypoints)
    return Native(
        subject_id=entry.subject_id,
        volume=image.data,
        grid=image.grid,
        labels=values["labels"],
        mask=_checked_mask(values["mask"], entry.mask),
        keypoints_mm=keypoints_mm,
        header=image.header,
        sha256=sha256,
        **fields,
    )


def hash_files(entry: SourceEntry) -> dict[str, str]:
    """sha256 of every file of a subject, by role; the files are not parsed."""
    return {
        role: hashlib.sha256(read_file(path, MAX_BYTES)).hexdigest()
        for role, path in entry.files.items()
    }


def _check_same_grid(code: str, image: Nifti, other: Nifti) -> None:
    distance = image.grid.distance(other.grid)
    if distance <= _SAME_GRID_VOXELS:
        return
    found = "x".join(map(str, other.grid.shape))
    if image.grid.shape == other.grid.shape:
        found += f", up to {distance:.2f} voxels away"
    raise SubjectError(
        code,
        f"{other.path} has shape {found}; need the grid of {image.path}, "
        f"{'x'.join(map(str, image.grid.shape))} (both in RAS order)",
    )


def _checked_mask(values: np.ndarray | None, path: Path | None) -> np.ndarray | None:
    if values is None:
        return None
    mask = (values > 0).astype(np.uint8)
    if not mask.any():
        raise SubjectError("E_MASK_EMPTY", f"{path} is 0 everywhere; need voxels inside the mask")
    return mask


def _read_keypoints(path: Path) -> tuple[np.ndarray, str]:
    """Points ``[K, 3]`` in RAS mm and the sha256 of their file."""
    stored = read_file(path, _MAX_TABLE_BYTES)
    needed = f"{path}: need a CSV file with the header x,y,z and one point in RAS mm per line"
    try:
        rows = list(csv.reader(stored.decode("utf-8-sig").splitlines(), strict=True))
        header = [name.strip() for name in rows[0]] if rows else []
        points = np.array([[float(cell) for cell in row] for row in rows[1:] if row])
    except (ValueError, csv.Error) as error:
        raise SubjectError("E_KEYPOINTS", f"{needed}; found {error}") from error
    if header != ["x", "y", "z"] or points.ndim != 2 or points.shape[1] != 3:
        found = f"header {header} and values of shape {list(points.shape)}"
        raise SubjectError("E_KEYPOINTS", f"{needed}; found {found}")
    if not np.isfinite(points).all():
        raise SubjectError("E_KEYPOINTS", f"{needed}; found NaN or infinite coordinates")
    return points, hashlib.sha256(stored).hexdigest()
