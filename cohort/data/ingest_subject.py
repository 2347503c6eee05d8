"""One subject in one process: read, bring to the grid, commit; failures are outcomes."""

import logging
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cohort.data.align import anchor_mm, bring_to_grid, labelled_outside, translation
from cohort.data.entries import SourceEntry
from cohort.data.header_choices import ORIENTATION, HeaderChoices
from cohort.data.native import Native, hash_files, load_native, stamp_files
from cohort.data.places import Where
from cohort.data.registered import register_to_reference
from cohort.data.store import CohortStore
from cohort.errors import CohortError, SubjectError

Status = Literal["ingested", "unchanged", "quarantined"]
# settings that say what subjects are aligned to; which there are depends on the way of aligning
_PLACE = ("anchor_mm", "align_search_degrees", "reference_facts")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One subject to bring into the store; all else is in the store's settings."""

    entry: SourceEntry
    store: Where
    choices: HeaderChoices
    version: str


@dataclass(frozen=True)
class Outcome:
    """What became of one subject; code, message and source say why it was refused.

    outside: share of its labelled voxels that the working grid does not hold.
    """

    subject_id: str
    status: Status
    code: str = ""
    message: str = ""
    source: str = ""
    outside: float | None = None


def looks_unchanged(store: CohortStore, job: Job) -> Outcome | None:
    """That a subject's files have the sizes and times that its record says; None if they do not.

    Neither the files nor what is stored of them is read.
    """
    kept = _kept_record(store, job.entry.subject_id)
    if kept is None or _choice_withdrawn(kept, job.choices):
        return None
    source = {
        role: {name: fact for name, fact in file.items() if name != "sha256"}
        for role, file in kept["source"].items()
    }
    return _unchanged(job, kept) if source == stamp_files(job.entry) else None


def ingest_subject(job: Job) -> Outcome:
    """Ingest one subject unless it is in the store as it is; only a broken file system raises.

    To know that, its files and what is stored of them are read.
    """
    entry = job.entry
    store = CohortStore.open(job.store)
    kept = _kept_record(store, entry.subject_id)
    changed = False
    try:
        if kept is not None:
            changed = hash_files(entry) != _kept_hashes(kept)
            withdrawn = _choice_withdrawn(kept, job.choices)
            if not changed and not withdrawn and _is_whole(store, entry.subject_id):
                return _unchanged(job, kept)
        outside = bring_in(store, job, into=store)
    except SubjectError as error:
        code, message = error.code, error.message
    except CohortError:
        raise
    except MemoryError:
        code, message = "E_MEMORY", f"{entry.image} does not fit into memory"
    except Exception as error:
        _log.exception("subject %s", entry.subject_id)
        code, message = "E_UNEXPECTED", f"{entry.image}: {type(error).__name__}: {error}"
    else:
        return Outcome(entry.subject_id, "ingested", outside=outside)
    if changed:  # what is committed was made from files that are no more
        store.remove(entry.subject_id)
    return Outcome(entry.subject_id, "quarantined", code, message, str(entry.image))


def _unchanged(job: Job, kept: dict[str, Any]) -> Outcome:
    return Outcome(job.entry.subject_id, "unchanged", outside=kept["provenance"]["outside"])


def _is_whole(store: CohortStore, subject_id: str) -> bool:
    """Whether what is stored passes its checksums; if not, it is made again from its files."""
    try:
        store.read(subject_id)
    except SubjectError:
        return False
    return True


def bring_in(store: CohortStore, job: Job, into: CohortStore) -> float | None:
    """Read a subject, align it as ``store`` says and commit it ``into`` that store or another.

    Returns:
        The share of its labelled voxels that the working grid does not hold; None if no labels.

    Raises:
        SubjectError: if the subject cannot be used.
    """
    # before they are read: a file that is written to meanwhile is another than the one read
    stamps = stamp_files(job.entry)
    native = load_native(job.entry, job.choices)
    to_native_mm, found = _aligned(store, native)
    subject = bring_to_grid(native, store.grid, to_native_mm)
    outside = labelled_outside(native, store.grid, to_native_mm)
    source = {role: {**stamps[role], "sha256": digest} for role, digest in native.sha256.items()}
    provenance = _provenance(store, job, native) | found | {"outside": outside}
    into.commit(subject, {"source": source, **provenance})
    return outside


def _aligned(store: CohortStore, native: Native) -> tuple[np.ndarray, dict[str, Any]]:
    """Working world mm -> native world mm ``[4, 4]``, and what the record says of it."""
    settings = store.settings
    if "reference_facts" in settings:
        matrix, found = register_to_reference(native, store.where, settings)
        return matrix, {"registration": found}
    translation_mm = np.asarray(settings["anchor_mm"]) - anchor_mm(native, settings["align"])
    return translation(-translation_mm), {"translation_mm": translation_mm.tolist()}


def _provenance(store: CohortStore, job: Job, native: Native) -> dict[str, Any]:
    """How a subject came to the working grid: its original header, and the chain from there."""
    settings = store.settings
    return {
        "header": native.header,
        "fixed": native.fixed,
        "native_grid": native.grid.to_json(),
        "grid": store.grid.to_json(),
        "settings": {
            "align": settings["align"],
            "reference": settings["reference"],
            "header_choices": list(job.choices.names),
        }
        | {name: settings[name] for name in _PLACE if name in settings},
        "version": job.version,
    }


def _kept_record(store: CohortStore, subject_id: str) -> dict[str, Any] | None:
    """The record of a subject that came from files; None if there is none that can be read."""
    try:
        record = store.record(subject_id)
    except SubjectError:
        return None
    # of what a program put there it says nothing of files
    return record if "header" in record["provenance"] else None


def _kept_hashes(record: dict[str, Any]) -> dict[str, str]:
    return {role: file["sha256"] for role, file in record["source"].items()}


def _choice_withdrawn(record: dict[str, Any], choices: HeaderChoices) -> bool:
    """Whether a file was read by a choice that is no longer made."""
    provenance = record["provenance"]
    assumed = [ORIENTATION] if provenance["header"]["form"] == "assumed" else []
    # records of version 0.1 have only the form
    needed = {
        name for names in provenance.get("fixed", {"image": assumed}).values() for name in names
    }
    return not needed <= set(choices.names)
