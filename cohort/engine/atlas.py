"""An atlas from outside the cohort, on the working grid, kept by its run: a file or a template.

A file is aligned as the cohort's subjects were. Either lies in ``RUN/atlas.zarr``, a store of its
own, so that the cohort's store stays what it was and the run does not need the file again.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cohort.data.entries import SourceEntry, nifti_stem
from cohort.data.header_choices import HeaderChoices
from cohort.data.ingest_subject import Job, bring_in
from cohort.data.nifti import MAX_BYTES
from cohort.data.nifti_bytes import read_file
from cohort.data.storage import storage_error
from cohort.data.store import CohortStore, Subject
from cohort.data.subject_ids import id_fault
from cohort.errors import CohortError, StorageError, SubjectError, UsageError
from triton_reg import __version__

FOLDER = "atlas.zarr"


@dataclass(frozen=True, eq=False)
class Template:
    """An atlas that was made on the working grid.

    provenance: what its record says of where it came from, see
    :meth:`cohort.data.store.CohortStore.commit`.
    """

    subject: Subject
    provenance: dict[str, Any]


def atlas_file(design: str) -> Path | None:
    """The file that ``atlas:FILE`` or ``to:FILE`` names; None if the pairs name none."""
    kind, _, argument = design.partition(":")
    if kind in ("atlas", "to") and nifti_stem(Path(argument).name) is not None:
        return Path(argument)
    return None


def bring_atlas(run_dir: Path, store: CohortStore, image: Path, labels: Path | None) -> CohortStore:
    """Make the run's own store with the atlas as its one subject, named as its file is.

    Raises:
        UsageError: ``E_ATLAS`` if its name or one of its files cannot be used.
        StorageError: if it cannot be written.
    """
    subject_id = nifti_stem(image.name) or image.name
    check_atlas_name(image, store)
    own = _new_store(run_dir, store)
    job = Job(SourceEntry(subject_id, image, labels), store.where, HeaderChoices(), __version__)
    try:
        bring_in(store, job, into=own)
    except SubjectError as error:
        raise UsageError("E_ATLAS", f"the atlas cannot be used: {error}") from error
    return own


def keep_atlas(run_dir: Path, store: CohortStore, template: Template) -> CohortStore:
    """Make the run's own store of a template that was made on the working grid.

    Raises:
        UsageError: ``E_ATLAS`` if the store has a subject of its name.
        StorageError: if it cannot be written.
    """
    _check_free(template.subject.subject_id, store, "the template")
    own = _new_store(run_dir, store)
    own.commit(template.subject, template.provenance)
    return own


@contextmanager
def removed_on_failure(run_dir: Path) -> Iterator[None]:
    """Take the atlas away if the run is not planned after all, and an empty folder with it."""
    try:
        yield
    except CohortError:
        shutil.rmtree(run_dir / FOLDER, ignore_errors=True)
        for folder in (run_dir / "parts", run_dir):
            with suppress(OSError):  # it is not empty, or was there before and somebody else's
                folder.rmdir()
        raise


def kept_atlas(run_dir: Path) -> CohortStore:
    """The store of a run's atlas.

    Raises:
        StorageError: ``E_ATLAS`` if it is gone.
    """
    try:
        return CohortStore.open(run_dir / FOLDER)
    except UsageError as error:
        raise StorageError("E_ATLAS", f"the atlas of {run_dir} is gone: {error.message}") from error


def check_same_atlas(run_dir: Path, atlas: str, image: Path, labels: Path | None) -> None:
    """Refuse files that are not those that a run was planned with.

    Raises:
        UsageError: ``E_PLAN_MISMATCH`` with the file that differs.
    """
    source = kept_atlas(run_dir).record(atlas)["source"]
    for role, path in {"image": image, "labels": labels}.items():
        if path is None:
            continue
        if not path.is_file():
            raise UsageError("E_ATLAS", f"{path} is no file; need the atlas or its labels")
        digest = sha256(read_file(path, MAX_BYTES)).hexdigest()
        if role not in source or source[role]["sha256"] != digest:
            known = source[role]["path"] if role in source else "none"
            raise UsageError(
                "E_PLAN_MISMATCH",
                f"{run_dir} was planned with another atlas: its {role} was {known}, now it is "
                f"{path}, with other content. Choose another folder for a new run",
            )


def check_atlas_name(image: Path, store: CohortStore) -> None:
    """Refuse a file that is not there or whose name cannot be a subject's beside the store's.

    Raises:
        UsageError: ``E_ATLAS``.
    """
    subject_id = nifti_stem(image.name) or image.name
    if not image.is_file():
        raise UsageError("E_ATLAS", f"the atlas {image} is no file; need a .nii or .nii.gz file")
    fault = id_fault(subject_id)
    if fault:
        raise UsageError("E_ATLAS", f"the atlas {image} gives no name for its rows: {fault}")
    _check_free(subject_id, store, f"the atlas {image}")


def _check_free(subject_id: str, store: CohortStore, what: str) -> None:
    if subject_id.casefold() in {name.casefold() for name in store.subject_ids}:
        raise UsageError(
            "E_ATLAS",
            f"the store has a subject {subject_id!r} as {what} would be called; rename it, or use"
            f" the subject: atlas:{subject_id}",
        )


def _new_store(run_dir: Path, store: CohortStore) -> CohortStore:
    path = run_dir / FOLDER
    try:
        if path.exists():  # of a plan that was not finished
            shutil.rmtree(path)
    except OSError as error:
        raise storage_error(path, error) from error
    return CohortStore.create(path, store.grid, settings=store.settings)
