"""Images of a chain's target on a grid of its source: one interpolation, slab by slab.

A voxel is a box: what lies within half a voxel of the outermost voxels' centres is inside, and
takes their values, as in ITK.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from cohort.data.align import TIE_VOXELS
from cohort.data.geometry import Grid
from cohort.errors import SubjectError
from cohort.studies.chain import Chain, sample, slabs

Interpolation = Literal["nearest", "linear"]


def resample_volume(values: np.ndarray, grid: Grid, chain: Chain, onto: Grid) -> np.ndarray:
    """``values [D, H, W]`` on ``grid`` in the target's world, linearly on the grid ``onto``.

    Outside of the image the result is its minimum. Returns float32.

    Raises:
        SubjectError: ``E_OUTSIDE`` if nothing of the image lies on ``onto``.
    """
    found = np.full(onto.shape, values.min(), dtype=np.float32)
    return _fill(found, grid, chain, onto, partial(sample, values))


def resample_labels(
    labels: np.ndarray, grid: Grid, chain: Chain, onto: Grid, interpolation: Interpolation
) -> np.ndarray:
    """Integer ``labels [D, H, W]`` on ``grid`` in the target's world, on the grid ``onto``.

    ``nearest`` takes the nearest voxel's label. ``linear`` interpolates each structure as an image
    of 0 and 1 and takes the one with the largest value, the smallest label of several. Outside of
    the image the result is 0.

    Raises:
        SubjectError: ``E_OUTSIDE`` if nothing of the image lies on ``onto``.
    """
    take = _nearest if interpolation == "nearest" else _most_weight
    found = np.zeros(onto.shape, dtype=labels.dtype)
    return _fill(found, grid, chain, onto, partial(take, labels))


def _fill(
    found: np.ndarray,
    grid: Grid,
    chain: Chain,
    onto: Grid,
    take: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Put what ``take`` says of positions ``[3, N]`` inside of ``grid`` into ``found``."""
    touched = False
    for slab, voxels in slabs(onto.shape):
        positions = chain.map(voxels, onto, grid)
        inside = _inside(positions, grid)
        touched |= bool(inside.any())
        found[slab].reshape(-1)[inside] = take(positions[:, inside])
    if not touched:
        raise SubjectError(
            "E_OUTSIDE",
            f"the image lies around {grid.center_mm.round(1).tolist()} RAS mm and none of it on"
            f" {chain.source}; need an image of {chain.target} in its native world",
        )
    return found


def _inside(positions: np.ndarray, grid: Grid) -> np.ndarray:
    inside = np.ones(positions.shape[1], dtype=bool)
    for position, size in zip(positions, grid.shape, strict=True):
        inside &= (position >= -0.5) & (position < size - 0.5)
    return inside


def _nearest(labels: np.ndarray, positions: np.ndarray) -> np.ndarray:
    indices = [
        np.clip(np.floor(position + 0.5 + TIE_VOXELS), 0, size - 1).astype(np.intp)
        for position, size in zip(positions, labels.shape, strict=True)
    ]
    return labels[tuple(indices)]


def _most_weight(labels: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """For each position the label whose corners of the eight around it weigh most."""
    last = np.array(labels.shape)[:, None] - 1
    clamped = np.clip(positions, 0, last)
    lower = np.minimum(clamped.astype(np.intp), np.maximum(last - 1, 0))
    corners = _corner_labels(labels, lower, np.minimum(lower + 1, last))
    found = corners[0].copy()
    # most positions lie within one structure
    mixed = np.flatnonzero((corners != found).any(axis=0))
    corners = corners[:, mixed]
    weights = _corner_weights(clamped[:, mixed] - lower[:, mixed])
    best, best_weight = corners[0], np.full(len(mixed), -1.0)
    for candidate in corners:
        weight = (weights * (corners == candidate)).sum(axis=0)
        better = (weight > best_weight) | ((weight == best_weight) & (candidate < best))
        best, best_weight = np.where(better, candidate, best), np.maximum(weight, best_weight)
    found[mixed] = best
    return found


def _corner_labels(labels: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Labels of the eight voxels between ``lower`` and ``upper``, ``[3, N]``: ``[8, N]``."""
    sides = list(zip(lower, upper, strict=True))
    return np.stack([
        labels[tuple(side[one] for side, one in zip(sides, corner, strict=True))]
        for corner in np.ndindex(2, 2, 2)
    ])  # fmt: skip


def _corner_weights(part: np.ndarray) -> np.ndarray:
    """Linear weights ``[8, N]`` of the eight voxels; ``part [3, N]`` is the way to the upper."""
    sides = [(1 - along, along) for along in part]
    return np.stack([
        sides[0][first] * sides[1][second] * sides[2][third]
        for first, second, third in np.ndindex(2, 2, 2)
    ])  # fmt: skip
