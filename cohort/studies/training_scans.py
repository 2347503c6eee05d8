"""Subjects of a store as tensors to train on, and what of them is scored."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cohort.data.store import CohortStore, Subject
from cohort.studies.training_plan import TrainingTask
from triton_reg.training.scans import Scans


def read_scans(store: CohortStore, names: Sequence[str]) -> Scans:
    """Subjects as tensors; labels are 0 where there are none."""
    subjects = [store.read(name) for name in names]
    volumes = np.stack([one.volume for one in subjects])
    ones, zeros = np.ones_like(volumes[0]), np.zeros(volumes.shape[1:], np.int32)
    labels = np.stack([zeros if one.labels is None else one.labels for one in subjects])
    masks = np.stack([ones if one.mask is None else one.mask for one in subjects])
    tensors = volumes, labels.astype(np.int32), masks.astype(np.float32)
    whole = (torch.from_numpy(one)[:, None] for one in tensors)
    return Scans.of(*whole, keypoints=_keypoints(store, subjects))


def _keypoints(store: CohortStore, subjects: Sequence[Subject]) -> Tensor | None:
    """Voxel positions ``[N, K, 3]`` where every subject has as many; None otherwise."""
    given = [one.keypoints_mm for one in subjects if one.keypoints_mm is not None]
    if len(given) < len(subjects) or len({one.shape for one in given}) > 1:
        return None
    return torch.from_numpy(np.stack([store.grid.world_to_voxel(one) for one in given])).float()


def scored_structures(task: TrainingTask, learned: Tensor, scans: Scans | None) -> Tensor:
    """The label values to score: those learned from, or of who is scored if none are needed.

    Args:
        task: what is trained.
        learned: label values of the subjects that are learned from.
        scans: who is scored; None for nobody.
    """
    return learned if task.recipe.needs_labels or scans is None else scans.structures
