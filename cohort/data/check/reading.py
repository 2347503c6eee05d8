"""Read one subject, of a source or of a store, as far as it can be read; nothing is written."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cohort.data.check.facts import Fault, SubjectFacts, measure_image, measure_labels
from cohort.data.entries import SourceEntry
from cohort.data.geometry import Grid
from cohort.data.header_choices import HeaderChoices
from cohort.data.keypoints import file_grid, read_points
from cohort.data.native import read_segmentation
from cohort.data.nifti import Nifti, read_nifti
from cohort.data.nifti_bytes import read_header
from cohort.data.places import Where
from cohort.data.store import CohortStore
from cohort.errors import CohortError, SubjectError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceJob:
    """One subject of a source."""

    entry: SourceEntry
    choices: HeaderChoices


@dataclass(frozen=True)
class StoreJob:
    """One committed subject of a store; faults: why a newer version of it was refused."""

    store: Where
    subject_id: str
    faults: tuple[Fault, ...] = ()


def examine(job: SourceJob | StoreJob) -> SubjectFacts:
    """Everything that can be known of one subject; only a broken file system raises."""
    if isinstance(job, StoreJob):
        return _examine_stored(job)
    return _examine_files(job.entry, job.choices)


def _examine_files(entry: SourceEntry, choices: HeaderChoices) -> SubjectFacts:
    faults: list[Fault] = []
    learnt: dict[str, Any] = {}
    image = None
    with _noted(faults, "image", entry.image):
        header = read_header(entry.image)
        learnt["header"] = header.facts(header.place(choices))
        image = read_nifti(entry.image, choices=choices)
        learnt["image"] = measure_image(image.data, image.grid, image.grid)
    if image is not None:
        for role, path in entry.files.items():
            with _noted(faults, role, path):
                learnt |= _companion(role, path, image, choices)
    return SubjectFacts(entry.subject_id, tuple(faults), **learnt)


def _companion(role: str, path: Path, image: Nifti, choices: HeaderChoices) -> dict[str, Any]:
    if role == "labels":
        labels = read_segmentation(path, image, choices)
        return {"labels": measure_labels(labels.data, image.grid)}
    if role == "mask":
        mask = read_segmentation(path, image, choices, is_mask=True)
        return {"mask_share": _share(mask.data)}
    if role == "keypoints":
        return {"keypoints": len(read_points(path).ras_mm(file_grid(image.header)))}
    if role != "image":
        read_nifti(path, content="vectors")
    return {}


def _examine_stored(job: StoreJob) -> SubjectFacts:
    store = CohortStore.open(job.store)
    faults = list(job.faults)
    learnt: dict[str, Any] = {}
    with _noted(faults, "store", f"{job.store}/{job.subject_id}"):
        provenance = store.record(job.subject_id)["provenance"]
        subject = store.read(job.subject_id)
        native = store.grid
        if "native_grid" in provenance:
            native = Grid.from_json(provenance["native_grid"])
            learnt["header"] = provenance["header"]
            learnt["outside"] = provenance["outside"]
            learnt["aligned"] = provenance.get("registration", {}).get("accepted", True)
        learnt["image"] = measure_image(subject.volume, store.grid, native)
        if subject.labels is not None:
            learnt["labels"] = measure_labels(subject.labels, store.grid)
        if subject.mask is not None:
            learnt["mask_share"] = _share(subject.mask)
        if subject.keypoints_mm is not None:
            learnt["keypoints"] = len(subject.keypoints_mm)
    return SubjectFacts(job.subject_id, tuple(faults), **learnt)


def _share(mask: np.ndarray) -> float:
    return float(np.count_nonzero(mask) / mask.size)


@contextmanager
def _noted(faults: list[Fault], role: str, path: Path | str) -> Iterator[None]:
    """What breaks one subject is a row of the table, and not the end of it."""
    try:
        yield
    except SubjectError as error:
        faults.append(Fault(role, error.code, error.message))
    except CohortError:
        raise
    except MemoryError:
        faults.append(Fault(role, "E_MEMORY", f"{path} does not fit into memory"))
    except Exception as error:
        _log.exception("%s", path)
        message = f"{path}: {type(error).__name__}: {error}"
        faults.append(Fault(role, "E_UNEXPECTED", message))
