"""One target: its atlases' volumes and labels brought onto it, fused, written and scored.

Of the atlases those that vote are in memory together, those that only are scored pass one by one.
On a grid of a million voxels a process was measured to take 1.06 GB with 8 votes and 1.28 GB with
20, the libraries among it.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cohort.data.align import recorded_to_native
from cohort.data.geometry import Grid
from cohort.data.keypoints import file_grid
from cohort.data.layout import digest_of
from cohort.data.one_thread import one_thread
from cohort.data.storage import to_json, write_atomic
from cohort.data.store import CohortStore, Subject
from cohort.engine.displacements import read_kept
from cohort.engine.registered_pair import warped_labels
from cohort.engine.spec import RunSpec
from cohort.errors import CohortError, SubjectError
from cohort.studies.chain import Chain
from cohort.studies.fusion_scores import scores_of
from cohort.studies.nifti_images import write_image
from cohort.studies.resample import resample_labels
from triton_reg import Displacement
from triton_reg.ops.label_fusion import FusionSettings, fuse_labels
from triton_reg.ops.resize import Shape

NATIVE, WORKING, RECORDS = "labels", "working", "targets"
_SCHEMA = 1  # raise it when the same inputs would give other files


@dataclass(frozen=True)
class Job:
    """One target to segment.

    Attributes:
        run_dir: the run that kept the displacements.
        store: address of the cohort.
        out: folder of the fusion.
        target: the subject.
        atlases: ids and their similarity to the target after registration, the likest first.
        votes: so many of them vote; the others are only scored.
        settings: how they vote.
        confidence: whether the winners' share of the weights is kept.
    """

    run_dir: Path
    store: str
    out: Path
    target: str
    atlases: tuple[tuple[str, float], ...]
    votes: int
    settings: FusionSettings
    confidence: bool

    @property
    def record(self) -> Path:
        """Written last: a target without it is not done."""
        return self.out / RECORDS / f"{self.target}.json"

    def key(self, plan_digest: str) -> str:
        """Content hash of all that the target's files depend on."""
        own = {name: value for name, value in asdict(self).items() if name in _DECIDES}
        return digest_of({**own, "plan": plan_digest, "schema": _SCHEMA})


_DECIDES = ("target", "atlases", "votes", "settings", "confidence")


class Outcome(NamedTuple):
    """What became of a target; code and message say why it failed."""

    target: str
    code: str = ""
    message: str = ""


def fuse_target(job: Job) -> Outcome:
    """Segment one target; only a broken file system raises."""
    try:
        with one_thread(), torch.inference_mode():
            _fuse_target(job)
    except SubjectError as error:
        return Outcome(job.target, error.code, error.message)
    except CohortError:
        raise
    except MemoryError:
        message = f"{job.votes} atlases do not fit into memory; --select takes fewer"
        return Outcome(job.target, "E_MEMORY", message)
    return Outcome(job.target)


def is_done(job: Job, plan_digest: str) -> bool:
    """Whether the target was segmented from the same atlases in the same way."""
    try:
        record = json.loads(job.record.read_bytes())
        there = all((job.out / name).is_file() for name in record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return there and record["key"] == job.key(plan_digest)


def _fuse_target(job: Job) -> None:
    spec, store = RunSpec.load(job.run_dir), CohortStore.open(job.store)
    target = _read(store, spec, job.target)
    truth = None if target.labels is None else _labels(target)
    shape = store.grid.shape
    warped = torch.empty(1, job.votes, *shape)
    labels = torch.empty(1, job.votes, *shape, dtype=torch.int32)
    scores: dict[str, Any] = {}
    for number, (atlas, brought, moved) in enumerate(_atlases(job, spec, store, shape)):
        if number < job.votes:
            warped[:, number], labels[:, number] = brought[0], moved[0]
        if truth is None and number + 1 == job.votes:
            break
        if truth is not None:
            scores[atlas] = scores_of(truth, moved)
    fused = fuse_labels(torch.from_numpy(target.volume)[None, None], warped, labels, job.settings)
    files = _write(job, store, fused.labels[0, 0], fused.confidence[0, 0])
    record = {
        "key": job.key(spec.plan_digest),
        "target": job.target,
        "atlases": [{"id": name, "ncc": ncc} for name, ncc in job.atlases],
        "votes": job.votes,
        "files": files,
        "dice": None if truth is None else scores_of(truth, fused.labels),
        "dice_of_atlases": scores,
    }
    write_atomic(job.record, to_json(record))


def _atlases(
    job: Job, spec: RunSpec, store: CohortStore, shape: Shape
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each atlas with its volume and labels on the target's grid, ``[1, 1, D, H, W]``."""
    for atlas, _ in job.atlases:
        subject = _read(store, spec, atlas)
        displacement = _between(read_kept(job.run_dir, spec, job.target, atlas).displacement, shape)
        volume = displacement.warp(torch.from_numpy(subject.volume)[None, None], padding="border")
        yield atlas, volume, warped_labels(_labels(subject), displacement)


def _between(displacement: Displacement, shape: Shape) -> Displacement:
    """A displacement between volumes of ``shape``, whose corners are those of its own."""
    scale = [
        (size - 1) / max(old - 1, 1)
        for size, old in zip(shape, displacement.moving_shape, strict=True)
    ]
    vectors = displacement.vectors * torch.tensor(scale).view(1, 3, 1, 1, 1)
    return Displacement(vectors, shape, shape)


def _read(store: CohortStore, spec: RunSpec, subject_id: str) -> Subject:
    planned = dict(zip(spec.subject_ids, spec.subject_digests, strict=True))
    if store.subject_digest(subject_id) != planned[subject_id]:
        raise SubjectError("E_CHANGED", f"{subject_id} is no longer what it was when registered")
    return store.read(subject_id)


def _labels(subject: Subject) -> Tensor:
    assert subject.labels is not None
    return torch.from_numpy(subject.labels.astype(np.int32))[None, None]


def _write(job: Job, store: CohortStore, labels: Tensor, confidence: Tensor) -> dict[str, str]:
    """The files of a target, and the sha256 of each."""
    values = labels.numpy().astype(np.uint16)
    said = f"{job.target}, {job.settings.rule} fusion of {job.votes} atlases"
    images = {f"{WORKING}/{job.target}_dseg.nii.gz": (values, store.grid)}
    if job.confidence:
        shares = confidence.numpy()
        images[f"{WORKING}/{job.target}_confidence.nii.gz"] = (shares, store.grid)
    place = _native_place(store, job.target)
    if place is not None:
        native, to_native_mm = place
        chain = Chain(job.target, "working grid", (np.linalg.inv(to_native_mm),), ())
        found = resample_labels(values, store.grid, chain, native, "nearest")
        images[f"{NATIVE}/{job.target}_dseg.nii.gz"] = (found, native)
    for name, (array, grid) in images.items():
        write_image(job.out / name, array, grid, said)
    return {name: hashlib.sha256((job.out / name).read_bytes()).hexdigest() for name in images}


def _native_place(store: CohortStore, subject_id: str) -> tuple[Grid, np.ndarray] | None:
    """The grid of the file that a subject came from, and the way to its world; None without one."""
    try:
        provenance = store.record(subject_id)["provenance"]
        return file_grid(provenance["header"]), recorded_to_native(provenance)
    except (KeyError, TypeError):
        return None
