"""Subjects of a store, as training and scoring take them."""

from pathlib import Path

import numpy as np
import torch

from cohort.data.store import CohortStore
from triton_reg.training.scans import Scans


def read_store(path: Path) -> Scans:
    """All subjects in the store's order; the mask is all ones where a subject has none.

    Raises:
        ValueError: if a subject has no labels.
    """
    store = CohortStore.open(path)
    subjects = [store.read(name) for name in store.subject_ids]
    labels = [one.labels.astype(np.int32) for one in subjects if one.labels is not None]
    if len(labels) < len(subjects):
        missing = [one.subject_id for one in subjects if one.labels is None]
        raise ValueError(
            f"{path} must have labels of every subject; {len(missing)} have none, such as "
            f"{missing[0]}"
        )
    masks = [
        np.ones_like(one.volume) if one.mask is None else one.mask.astype(np.float32)
        for one in subjects
    ]
    stacks = [one.volume for one in subjects], labels, masks
    return Scans.of(*(torch.from_numpy(np.stack(stack))[:, None] for stack in stacks))
