"""What `check` measures of one subject: small enough to keep ten thousand of them in memory."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from cohort.data.geometry import Grid

_FINGERPRINT = 8  # blocks per axis


@dataclass(frozen=True)
class Fault:
    """Why one file of a subject, by its role, would be refused."""

    role: str
    code: str
    message: str


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """One volume in RAS order.

    minimum, low, high, maximum: its intensities at 0, 1, 99 and 100 percent. content: sha256 of
    its decoded values. fingerprint: float32 ``[512]``, the mean of 8 x 8 x 8 blocks between low and
    high, of mean 0 and length 1, so that a product of two is their correlation.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    minimum: float
    low: float
    high: float
    maximum: float
    content: str
    fingerprint: np.ndarray


@dataclass(frozen=True, eq=False)
class LabelFacts:
    """One segmentation.

    values: the structures ``[M]``, voxels: their sizes. right: their mean distance ``[M]`` to the
    right of the mean of all labelled voxels, in standard deviations of these. right_share: the
    share ``[M]`` of their voxels to the right of it.
    """

    values: np.ndarray
    voxels: np.ndarray
    right: np.ndarray
    right_share: np.ndarray
    volume_ml: float
    content: str


@dataclass(frozen=True, eq=False)
class SubjectFacts:
    """All that is known of one subject; what could not be read is None.

    header: what the image's header says. mask_share: of voxels inside the mask. keypoints: how
    many. outside: share of labelled voxels that the working grid of a store does not hold.
    aligned: False if a store's registration of it was not accepted.
    """

    subject_id: str
    faults: tuple[Fault, ...] = ()
    header: dict[str, Any] | None = None
    image: ImageFacts | None = None
    labels: LabelFacts | None = None
    mask_share: float | None = None
    keypoints: int | None = None
    outside: float | None = None
    aligned: bool = True


def measure_image(volume: np.ndarray, grid: Grid, native: Grid) -> ImageFacts:
    """Facts of a volume ``[D, H, W]`` on ``grid``; shape, spacing and extent are ``native``'s."""
    low, high = (float(value) for value in np.percentile(volume, (1, 99)))
    if low == high:  # what is not background is less than a hundredth
        low, high = float(volume.min()), float(volume.max())
    across, along, up = native.extent_mm().tolist()
    return ImageFacts(
        shape=native.shape,
        spacing_mm=native.spacing_mm,
        extent_mm=(across, along, up),
        minimum=float(volume.min()),
        low=low,
        high=high,
        maximum=float(volume.max()),
        content=_content(volume, grid),
        fingerprint=_fingerprint(volume, low, high),
    )


def measure_labels(labels: np.ndarray, grid: Grid) -> LabelFacts:
    """Facts of labels ``[D, H, W]``, whole numbers of 0 to 65535, on a grid in RAS order."""
    labelled = labels > 0
    which = labels[labelled].astype(np.intp)
    first, second, third = np.ogrid[tuple(slice(size) for size in grid.shape)]
    to_right = grid.affine[0]
    right_mm = (to_right[0] * first + to_right[1] * second + to_right[2] * third)[labelled]
    right_mm -= right_mm.mean() if which.size else 0.0
    voxels = np.bincount(which, minlength=1)
    (values,) = np.nonzero(voxels)
    sums = np.bincount(which, weights=right_mm, minlength=1)[values]
    # a voxel that the middle cuts counts by its part: whole ones would lend a side to symmetry
    part = np.clip(right_mm / np.abs(to_right[:3]).sum() + 0.5, 0, 1)
    on_right = np.bincount(which, weights=part, minlength=1)[values]
    spread_mm = float(right_mm.std()) if which.size else 0.0
    return LabelFacts(
        values=values,
        voxels=voxels[values],
        right=sums / voxels[values] / (spread_mm or 1.0),
        right_share=on_right / voxels[values],
        volume_ml=float(which.size * np.prod(grid.spacing_mm) / 1000),
        content=_content(labels, grid),
    )


def _content(values: np.ndarray, grid: Grid) -> str:
    """sha256 of shape and values: other compression, type or header hide nothing."""
    found = hashlib.sha256(str(grid.shape).encode())
    found.update(np.ascontiguousarray(values, dtype=np.float32).data.cast("B"))
    return found.hexdigest()


def _fingerprint(volume: np.ndarray, low: float, high: float) -> np.ndarray:
    blocks = np.clip(volume, low, high) - low
    for axis, size in enumerate(volume.shape):
        edges = np.arange(_FINGERPRINT) * size // _FINGERPRINT
        counts = np.maximum(np.diff(np.append(edges, size)), 1)
        blocks = np.add.reduceat(blocks, edges, axis=axis, dtype=np.float64)
        blocks /= counts.reshape([-1 if one == axis else 1 for one in range(3)])
    blocks = blocks.ravel() - blocks.mean()
    return (blocks / (np.linalg.norm(blocks) or 1.0)).astype(np.float32)
