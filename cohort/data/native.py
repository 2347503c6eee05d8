"""One subject as its files have it: checked, in canonical order, on its native grid."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cohort.data.entries import SourceEntry
from cohort.data.geometry import Grid
from cohort.data.header_choices import HeaderChoices
from cohort.data.keypoints import file_grid, read_points
from cohort.data.nifti import MAX_BYTES, Nifti, read_nifti
from cohort.data.nifti_bytes import read_file
from cohort.errors import SubjectError

_SAME_GRID_VOXELS = 0.1
_NO_CHOICES = HeaderChoices()


@dataclass(frozen=True, eq=False)
class Native:
    """A subject before anything is resampled.

    volume: float32 ``[D, H, W]`` on ``grid``. labels: uint16, mask: uint8, both on the same grid.
    keypoints_mm: float64 ``[K, 3]``, native RAS mm. to_template, from_template: fields in RAS mm.
    header: what the image's header said. sha256: of every file, by role. fixed: the
    header choices that each role's file needed, for roles that needed any.
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
    fixed: dict[str, list[str]]


def load_native(entry: SourceEntry, choices: HeaderChoices = _NO_CHOICES) -> Native:
    """Read and check all files of one subject."""
    image = read_nifti(entry.image, choices=choices)
    sha256 = {"image": image.sha256}
    fixed = {"image": image.header["fixed"]}
    values: dict[str, np.ndarray | None] = {"labels": None, "mask": None}
    for role in values:
        path = entry.files.get(role)
        if path is not None:
            found = read_segmentation(path, image, choices, is_mask=role == "mask")
            sha256[role] = found.sha256
            fixed[role] = found.header["fixed"]
            values[role] = found.data
    fields: dict[str, Nifti | None] = {"to_template": None, "from_template": None}
    for role in fields:
        path = entry.files.get(role)
        if path is not None:
            field = fields[role] = read_nifti(path, content="vectors")
            sha256[role] = field.sha256
    keypoints_mm = None
    if entry.keypoints is not None:
        table = read_points(entry.keypoints)
        keypoints_mm, sha256["keypoints"] = table.ras_mm(file_grid(image.header)), table.sha256
    return Native(
        subject_id=entry.subject_id,
        volume=image.data,
        grid=image.grid,
        labels=None if values["labels"] is None else values["labels"].astype(np.uint16),
        mask=None if values["mask"] is None else (values["mask"] > 0).astype(np.uint8),
        keypoints_mm=keypoints_mm,
        header=image.header,
        sha256=sha256,
        fixed={role: names for role, names in fixed.items() if names},
        **fields,
    )


def read_segmentation(
    path: Path, image: Nifti, choices: HeaderChoices = _NO_CHOICES, *, is_mask: bool = False
) -> Nifti:
    """Read labels, or a mask, that must lie on the grid of ``image``.

    Raises:
        SubjectError: E_LABEL_SHAPE or E_MASK_SHAPE on another grid, E_MASK_EMPTY for a mask without
            voxels, and what `read_nifti` raises.
    """
    found = read_nifti(path, content="labels", choices=choices)
    _check_same_grid("E_MASK_SHAPE" if is_mask else "E_LABEL_SHAPE", image, found)
    if is_mask and not found.data.any():
        raise SubjectError("E_MASK_EMPTY", f"{path} is 0 everywhere; need voxels inside the mask")
    return found


def stamp_files(entry: SourceEntry) -> dict[str, dict[str, Any]]:
    """Path, size and times of every file of a subject, by role; of one that is not there only the
    path."""
    stamps: dict[str, dict[str, Any]] = {}
    for role, path in entry.files.items():
        stamps[role] = {"path": str(path.absolute())}
        with suppress(OSError):
            found = path.stat()
            # the second time is the system's own, which copying tools cannot set back
            times = {"modified_ns": found.st_mtime_ns, "changed_ns": found.st_ctime_ns}
            stamps[role] |= {"bytes": found.st_size, **times}
    return stamps


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
