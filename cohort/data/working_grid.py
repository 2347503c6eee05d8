"""Which grid a cohort works on, and which subject the others are aligned to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cohort.data.entries import SourceEntry
from cohort.data.geometry import Grid, parse_grid
from cohort.data.header_choices import HeaderChoices
from cohort.data.native import Native, load_native
from cohort.data.nifti import read_grid
from cohort.errors import SubjectError, UsageError

_MULTIPLE = 16  # pyramids halve a grid four times
_MAX_VOXELS = 1 << 29


def choose_reference(
    entries: Sequence[SourceEntry], reference: str | None, choices: HeaderChoices
) -> Native:
    """The named subject, or the first that can be read."""
    if reference is not None:
        entries = [entry for entry in entries if entry.subject_id == reference]
        if not entries:
            raise UsageError("E_REFERENCE", f"the source has no subject {reference!r} to align to")
    faults = []
    for entry in entries:
        try:
            return load_native(entry, choices)
        except SubjectError as error:
            faults.append(str(error))
    if reference is not None:
        raise UsageError("E_REFERENCE", f"reference {reference!r} cannot be read: {faults[0]}")
    first = f"; the first: {faults[0]}" if faults else ""
    raise UsageError("E_SOURCE", f"none of {len(entries)} subjects can be read{first}")


def grid_from_text(text: str, reference: Native) -> Grid:
    """The grid that was asked for, around what matters of the reference."""
    shape, spacing_mm = parse_grid(text)
    return Grid.axis_aligned(shape, spacing_mm, _middle_mm(reference))


def grid_from_file(path: Path, choices: HeaderChoices) -> Grid:
    """Shape, spacing and centre of a NIfTI file, along the axes of the world."""
    try:
        grid = read_grid(path, choices=choices)
    except SubjectError as error:
        raise UsageError(error.code, f"--like: {error.message}") from error
    return Grid.axis_aligned(grid.shape, grid.spacing_mm, grid.center_mm)


def grid_from_data(
    entries: Sequence[SourceEntry], reference: Native, choices: HeaderChoices
) -> Grid:
    """Median spacing, room for the largest subject, sizes that are multiples of 16."""
    grids = []
    for entry in entries:
        try:
            grids.append(read_grid(entry.image, choices=choices))
        except SubjectError:  # it is quarantined when its turn comes
            continue
    spacing_mm = np.round(np.median([grid.spacing_mm for grid in grids], axis=0), 4)
    largest_mm = np.max([grid.extent_mm() for grid in grids], axis=0)
    blocks = np.ceil(largest_mm / spacing_mm / _MULTIPLE - 1e-3)
    depth, height, width = (int(count) * _MULTIPLE for count in blocks)
    if depth * height * width > _MAX_VOXELS:
        raise UsageError(
            "E_GRID",
            f"the largest subject would need a grid of {depth}x{height}x{width} voxels; "
            "give one with --grid, for example --grid 96x112x96@2mm",
        )
    return Grid.axis_aligned((depth, height, width), spacing_mm, _middle_mm(reference))


def _middle_mm(reference: Native) -> np.ndarray:
    """World position ``[3]`` of the middle of the labels' bounding box, or of the image."""
    if reference.labels is None or not reference.labels.any():
        return reference.grid.center_mm
    labelled = reference.labels > 0
    middle = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        (found,) = np.nonzero(labelled.any(axis=others))
        middle.append((found[0] + found[-1]) / 2)
    return reference.grid.voxel_to_world(middle)
