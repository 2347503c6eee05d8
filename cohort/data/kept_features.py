"""Features of subjects beside their store, for later runs by the same method."""

import hashlib
import json

import safetensors.torch
import torch
from torch import Tensor

from cohort.data.store import CohortStore

FOLDER = "features"


class KeptFeatures:
    """What one method made of subjects, on one kind of device and one grid; a document a subject.

    ``features/<method>/<subject>.safetensors`` holds the tensors, the digest of the subject that
    they were made of, and their own sha256. What was made of another content, or is damaged, counts
    as not there: features can always be made again.

    Args:
        store: the cohort's.
        fingerprint: of the method, the kind of device and the grid.
    """

    def __init__(self, store: CohortStore, fingerprint: str) -> None:
        self._place = store.place
        self._folder = hashlib.sha256(fingerprint.encode()).hexdigest()[:24]

    def load(self, subject_id: str, subject_digest: str) -> tuple[Tensor, ...] | None:
        """The features of a subject with this content; None if they are not there."""
        try:
            content = self._place.read(self._key(subject_id))
            facts, tensors = _parts(content)
        except (FileNotFoundError, ValueError, KeyError, safetensors.SafetensorError):
            return None
        if facts["subject"] != subject_digest or facts["sha256"] != _digest(tensors):
            return None
        return tensors

    def save(self, subject_id: str, subject_digest: str, features: tuple[Tensor, ...]) -> None:
        """Keep the features of a subject.

        Raises:
            StorageError: if the store cannot be written.
        """
        # of their own memory: what is passed on may be a view
        tensors = tuple(one.detach().cpu().contiguous().clone() for one in features)
        named = {f"{number:03d}": one for number, one in enumerate(tensors)}
        facts = {"subject": subject_digest, "sha256": _digest(tensors)}
        self._place.write(self._key(subject_id), safetensors.torch.save(named, facts))

    def _key(self, subject_id: str) -> str:
        return f"{FOLDER}/{self._folder}/{subject_id}.safetensors"


def _parts(content: bytes) -> tuple[dict[str, str], tuple[Tensor, ...]]:
    """What is said of the tensors, and the tensors in their order."""
    length = int.from_bytes(content[:8], "little")
    facts = json.loads(content[8 : 8 + length])["__metadata__"]
    named = safetensors.torch.load(content)
    return facts, tuple(named[name] for name in sorted(named))


def _digest(tensors: tuple[Tensor, ...]) -> str:
    found = hashlib.sha256()
    for one in tensors:
        found.update(f"{one.dtype}{tuple(one.shape)}".encode())
        found.update(one.reshape(-1).view(torch.uint8).numpy().data if one.numel() else b"")
    return found.hexdigest()
