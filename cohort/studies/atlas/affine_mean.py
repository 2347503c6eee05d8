"""The mean of the subjects' affine alignments, removed in the logarithm.

Ingest brings every subject to the size and pose of one reference. Seen from the working world, a
subject's own world is a linear map away, and the mean of those maps is how far the reference is
from the middle of the cohort. The template is given the size and pose of that middle by a linear
map ``B`` from its world to the working one, such that the logarithms of ``L_s B`` have the mean 0,
over the linear parts ``L_s`` of the alignments: the log-Euclidean mean of Arsigny et al., "Log-
Euclidean metrics for fast and simple calculus on diffusion tensors", Magnetic Resonance in
Medicine 2006, iterated to its fixed point. Where subjects lay in the scanner tells nothing of
them: ``B`` keeps the centre of the grid.
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import expm, logm

from cohort.data.align import recorded_to_native
from cohort.data.geometry import Grid
from cohort.data.store import CohortStore

_STEPS = 20
_TOLERANCE = 1e-9
_MIRROR = np.diag([-1.0, 1.0, 1.0])


def mean_linear(
    store: CohortStore, subjects: Sequence[str], weights: Sequence[float], *, symmetric: bool
) -> np.ndarray:
    """``B`` ``[4, 4]``: template world -> working world, mm; the identity if nothing was aligned.

    ``symmetric`` leaves out what is not the same on both sides.

    Raises:
        SubjectError: if a subject's record cannot be read.
    """
    found = [_linear_part(store, one) for one in subjects]
    known = [(one, weight) for one, weight in zip(found, weights, strict=True) if one is not None]
    if not known:
        return np.eye(4)
    linear, counts = zip(*known, strict=True)
    mean = unbiased(np.stack(linear), np.array(counts))
    return around(store.grid.center_mm, mirrored_mean(mean) if symmetric else mean)


def unbiased(linear: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``[3, 3]`` such that the weighted mean logarithm of ``linear [N, 3, 3] @ it`` is 0."""
    found = np.eye(3)
    for _ in range(_STEPS):
        logs = np.stack([np.real(logm(one @ found)) for one in linear])
        mean = np.average(logs, axis=0, weights=weights)
        found = found @ expm(-mean)
        if np.abs(mean).max() < _TOLERANCE:
            break
    return found


def mirrored_mean(linear: np.ndarray) -> np.ndarray:
    """Between ``[3, 3]`` and its mirror image, left to right."""
    logs = np.real(logm(linear))
    return expm((logs + _MIRROR @ logs @ _MIRROR) / 2)


def around(center_mm: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """``[4, 4]``: ``linear [3, 3]`` about a point."""
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = center_mm - linear @ center_mm
    return matrix


def covering_grid(grid: Grid, to_working_mm: np.ndarray) -> Grid:
    """A grid like the working grid that also holds what ``B`` moves out of it."""
    corners = grid.voxel_to_world(grid.corners())
    back = np.linalg.inv(to_working_mm)
    moved = grid.world_to_voxel(corners @ back[:3, :3].T + back[:3, 3])
    before = np.ceil(np.maximum(-moved.min(axis=0), 0) - 1e-6)
    after = np.ceil(np.maximum(moved.max(axis=0) - (np.array(grid.shape) - 1), 0) - 1e-6)
    depth, height, width = (np.array(grid.shape) + before + after).astype(int).tolist()
    affine = grid.affine.copy()
    affine[:3, 3] = grid.voxel_to_world(-before)
    return Grid((depth, height, width), affine)


def _linear_part(store: CohortStore, subject_id: str) -> np.ndarray | None:
    try:
        return recorded_to_native(store.record(subject_id)["provenance"])[:3, :3]
    except KeyError:  # it came from no file
        return None
