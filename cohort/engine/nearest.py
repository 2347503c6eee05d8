"""``knn:K``: for every subject the K that look most like it, as ingest aligned them."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from cohort.data.store import CohortStore
from cohort.engine.designs import Listed
from cohort.errors import SubjectError, UsageError
from triton_reg.ops.resize import Shape, resize

_SIDE = 16  # voxels an axis: what an affine alignment can have brought together
_AT_ONCE = 256  # subjects that are read before their looks are kept
_ROWS = 1024  # subjects that are compared with all others at once


def nearest_pairs(store: CohortStore, neighbours: int) -> Listed:
    """Pairs in which each subject is fixed for its nearest others.

    Nearness is the correlation of the volumes on a coarse grid, where ingest left them: with
    affinely registered subjects the score that their affine registration reached.

    Raises:
        UsageError: ``E_PAIRS`` if a subject cannot be read, as its neighbours are not known.
    """
    looks = _looks(store, store.subject_ids)
    nearest = []
    for start in range(0, len(looks), _ROWS):
        likeness = looks[start : start + _ROWS] @ looks.T
        rows = np.arange(len(likeness))
        likeness[rows, start + rows] = -np.inf
        # ties and their order do not matter: the pairs are written down
        np.negative(likeness, out=likeness)
        nearest.append(np.argpartition(likeness, neighbours - 1, axis=1)[:, :neighbours].copy())
    moving = np.sort(np.concatenate(nearest), axis=1)
    fixed = np.repeat(np.arange(len(looks)), neighbours)
    return Listed(np.stack([fixed, moving.ravel()], axis=1).astype(np.int32))


def likeness(store: CohortStore, subject_ids: Sequence[str]) -> np.ndarray:
    """Correlations ``[N, N]`` of subjects' volumes on a coarse grid, where ingest left them.

    Raises:
        UsageError: ``E_PAIRS`` if a subject cannot be read.
    """
    looks = _looks(store, subject_ids)
    return looks @ looks.T


def _looks(store: CohortStore, subject_ids: Sequence[str]) -> np.ndarray:
    """All volumes on the coarse grid, ``[N, V]``: 0.8 GB of 50,000."""
    looks = np.empty((len(subject_ids), _SIDE**3), dtype=np.float32)
    for start in range(0, len(looks), _AT_ONCE):
        names = subject_ids[start : start + _AT_ONCE]
        looks[start : start + len(names)] = store.each(partial(_look, store), names)
    return looks


def _look(store: CohortStore, subject_id: str) -> np.ndarray:
    """A volume on the coarse grid, with mean 0 and length 1, as float32 ``[V]``."""
    try:
        volume = torch.from_numpy(store.read(subject_id).volume)[None, None]
    except SubjectError as error:
        raise UsageError("E_PAIRS", f"who looks like it is not known: {error}") from error
    shape: Shape = (_SIDE, _SIDE, _SIDE)
    values = resize(volume, shape).flatten()
    values = values - values.mean()
    return (values / values.norm().clamp_min(1e-12)).numpy()
