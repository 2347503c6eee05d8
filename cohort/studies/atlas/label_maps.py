"""Labels of a template: how often each structure lies at each voxel, and which one most often."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cohort.data.geometry import Grid
from cohort.data.one_thread import one_thread
from cohort.data.storage import storage_error
from cohort.engine.sums import FOLDER, labels_there, read_labels
from cohort.studies.nifti_images import write_volumes
from triton_reg import Displacement

_SLAB_BYTES = 1 << 28
_FULL = 65535  # a probability of 1
_STEPS = 255  # of a probability in a file


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """Of every structure, from a file that takes two bytes a voxel and structure.

    structures: label values, sorted. shares: uint16 ``[M, D, H, W]`` on the working grid, 65535
    where every subject has the structure.
    """

    structures: np.ndarray
    shares: np.ndarray


def label_rows(run_dir: Path) -> list[tuple[str, Path, int]]:
    """Subject, folder and row of every warped label map of a run.

    Raises:
        StorageError: ``E_SUMS`` if one is damaged.
    """
    return [
        (subject_id, tile, row)
        for tile in sorted((run_dir / FOLDER).glob("*"))
        for row, subject_id in enumerate(labels_there(tile))
    ]


def structures_of(rows: Sequence[tuple[str, Path, int]]) -> np.ndarray:
    """Label values above 0 that any subject has, sorted."""
    found: set[int] = set()
    for _, tile, row in rows:
        found |= set(np.unique(read_labels(tile, row)).tolist())
    return np.array(sorted(found - {0}), dtype=np.int64)


def count_labels(
    rows: Sequence[tuple[str, Path, int]], weights: dict[str, int], temporary: Path
) -> LabelMaps:
    """Count structures slab by slab; memory depends neither on the subjects nor the structures.

    Args:
        rows: as :func:`label_rows` gives them, at least one.
        weights: of subjects.
        temporary: a file to work in.

    Raises:
        StorageError: if a map is damaged, or ``temporary`` cannot be written.
    """
    structures = structures_of(rows)
    shape = read_labels(rows[0][1], rows[0][2]).shape
    index = np.full(int(structures.max(initial=0)) + 1, -1)
    index[structures] = np.arange(len(structures))
    total = sum(weights[subject_id] for subject_id, _, _ in rows)
    try:
        shares = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.uint16, shape=(len(structures), *shape)
        )
    except OSError as error:
        raise storage_error(temporary, error) from error
    planes = max(1, _SLAB_BYTES // max(4 * len(structures) * shape[1] * shape[2], 1))
    for first in range(0, shape[0], planes):
        slab = slice(first, min(first + planes, shape[0]))
        depth = slab.stop - slab.start
        counts = np.zeros((len(structures), depth * shape[1] * shape[2]), dtype=np.int32)
        for subject_id, tile, row in rows:
            values = read_labels(tile, row)[slab].ravel()
            where = np.flatnonzero(values)
            counts[index[values[where]], where] += weights[subject_id]
        found = counts.reshape(len(structures), depth, *shape[1:])
        shares[:, slab] = np.rint(found * (_FULL / max(total, 1)))
    return LabelMaps(structures, shares)


def write_label_maps(
    maps: LabelMaps, moved: Displacement, grid: Grid, probabilities: Path
) -> np.ndarray:
    """Write the probabilities of all structures as one 4D file; returns the majority's labels.

    Args:
        maps: on the working grid.
        moved: from the file's grid to the working grid.
        grid: of the file.
        probabilities: ``.nii.gz``, uint8 with a slope of 1/255, one volume a structure.

    Returns:
        uint16 ``[D, H, W]`` on ``grid``: the structure with the largest share, 0 where the
        background's is larger.
    """
    best = np.zeros(grid.shape, dtype=np.float32)
    rest = np.ones(grid.shape, dtype=np.float32)
    labels = np.zeros(grid.shape, dtype=np.uint16)

    def volumes() -> Iterator[np.ndarray]:
        for value, share in zip(maps.structures.tolist(), maps.shares, strict=True):
            found = _moved(share, moved)
            better = found > best
            best[better], labels[better] = found[better], value
            np.subtract(rest, found, out=rest)
            yield np.rint(found * _STEPS).astype(np.uint8)

    shape = (*grid.shape, len(maps.structures))
    write_volumes(probabilities, volumes(), shape, grid, np.dtype(np.uint8), slope=1 / _STEPS)
    labels[rest > best] = 0
    return labels


def majority(maps: LabelMaps) -> np.ndarray:
    """The structure with the largest share at each voxel, int64 ``[D, H, W]``; 0 for background."""
    best = np.zeros(maps.shares.shape[1:], dtype=np.int64)
    rest, labels = np.full_like(best, _FULL), np.zeros_like(best)
    for value, share in zip(maps.structures.tolist(), maps.shares, strict=True):
        better = share > best
        best[better], labels[better] = share[better], value
        rest -= share
    labels[rest > best] = 0
    return labels


def _moved(share: np.ndarray, moved: Displacement) -> np.ndarray:
    values = torch.from_numpy(share.astype(np.float32))[None, None] / _FULL
    with one_thread(), torch.inference_mode():
        return moved.warp(values)[0, 0].numpy()
