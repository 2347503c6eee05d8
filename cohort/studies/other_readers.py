"""Whether other tools place a subject's file where the transforms of a run take it to lie.

A header may hold two positions or a unit that not everyone believes; which of them counts is a rule
of each tool. Where a user decided, or a form was repaired, that rule may lead elsewhere.
"""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from cohort.data.affine_checks import affine_fault
from cohort.data.geometry import Grid
from cohort.studies.itk_composite import can_write_composite, itk_affine
from cohort.studies.native_space import NativeSubject

# two forms that are so close are one position, as when they are read
_MAX_DISTANCE_VOXELS = 0.1
_FAULTS = (RuntimeError, OSError, ValueError, ImageFileError, HeaderDataError)


def caution(subject: NativeSubject, *, itk: bool) -> str | None:
    """What another tool makes of the subject's file, as a sentence; None if it agrees.

    itk: whether ITK is asked, else nibabel. Where neither the file nor SimpleITK is there, what the
    user decided about the header is told.
    """
    if not subject.image.is_file() or (itk and not can_write_composite()):
        return _decided(subject)
    reader, read = ("ITK", itk_affine) if itk else ("nibabel", _nibabel_affine)
    found = _read(read, subject.image)
    if found is None:
        return (
            f"{reader} cannot read {subject.image}: give it a copy in NIfTI-1 with axes at right"
            " angles, or use `cohort apply`"
        )
    here, there = subject.grid, Grid(subject.grid.shape, found)
    if here.distance(there) <= _MAX_DISTANCE_VOXELS:
        return None
    corners = here.corners()
    apart = here.voxel_to_world(corners) - there.voxel_to_world(corners)
    away_mm = np.linalg.norm(apart, axis=1).max()
    return (
        f"{reader} places the voxels of {subject.image} up to {away_mm:.1f} mm from where this"
        f" transform takes them to lie{_by_choice(subject)}: {_remedy(subject)}"
    )


def _decided(subject: NativeSubject) -> str | None:
    if not subject.fixed:
        return None
    return (
        f"other tools may place the voxels of {subject.image} elsewhere than this transform"
        f" takes them to lie{_by_choice(subject)}: {_remedy(subject)}"
    )


def _by_choice(subject: NativeSubject) -> str:
    return f" (by ingest's choice of {', '.join(subject.fixed)})" if subject.fixed else ""


def _remedy(subject: NativeSubject) -> str:
    return (
        f"give them a copy of {subject.subject_id} whose sform and qform are the record's affine,"
        " in mm, or use `cohort apply`"
    )


def _read(read: Callable[[Path], np.ndarray], image: Path) -> np.ndarray | None:
    try:
        affine = read(image)
    except _FAULTS:
        return None
    return None if affine_fault(affine) else affine


def _nibabel_affine(image: Path) -> np.ndarray:
    # of no image class in particular: a mere header has an affine too
    affine = getattr(nib.load(image), "affine", None)
    return np.full((4, 4), np.nan) if affine is None else np.asarray(affine)
