"""Sources to store: every subject on the working grid, or in quarantine with a reason.

Subjects are independent of each other: any number of processes gives the same store.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from cohort.data.align import Align, anchor_mm
from cohort.data.entries import Rejected, SourceEntry, SourceListing
from cohort.data.geometry import Grid, parse_grid
from cohort.data.ingest_subject import Job, Outcome, Status, ingest_subject
from cohort.data.interrupts import ctrl_c_held
from cohort.data.nifti_header import Orientation
from cohort.data.sources import find_subjects
from cohort.data.store import CohortStore
from cohort.data.working_grid import (
    choose_reference,
    grid_from_data,
    grid_from_file,
    grid_from_text,
)
from cohort.errors import SchedulerError, UsageError


@dataclass(frozen=True)
class IngestSettings:
    """How subjects are brought onto one grid.

    grid: such as 96x112x96@2mm. like: a NIfTI file whose grid is taken. With neither, an existing
    store keeps its grid and a new one gets it from the data. align: none (as headers say), grid
    (centre of the image), center (of intensity). reference: the subject aligned to; the first that
    can be read. assume_orientation: for files that do not say.
    """

    grid: str | None = None
    like: Path | None = None
    align: Align = "none"
    reference: str | None = None
    assume_orientation: Orientation | None = None

    def __post_init__(self) -> None:
        if self.align not in ("none", "grid", "center"):
            raise UsageError("E_ALIGN", f"align is {self.align!r}; need none, grid or center")
        if self.assume_orientation not in (None, "RAS"):
            raise UsageError(
                "E_ORIENT",
                f"assume orientation is {self.assume_orientation!r}; need RAS or nothing",
            )
        if self.grid is not None and self.like is not None:
            raise UsageError("E_GRID", "grid and like both choose the working grid; need one")
        if self.grid is not None:
            parse_grid(self.grid)


@dataclass(frozen=True)
class IngestEvent:
    """One subject is done; message says why it was quarantined."""

    subject_id: str
    status: Status
    message: str
    done: int
    total: int


@dataclass(frozen=True, eq=False)
class IngestReport:
    """What became of every subject.

    quarantined: subject id -> (code, message). outside: share of a subject's labelled voxels that
    the working grid does not hold, for subjects with labels.
    """

    ingested: tuple[str, ...]
    unchanged: tuple[str, ...]
    quarantined: dict[str, tuple[str, str]]
    grid: Grid
    outside: dict[str, float]
    elapsed_s: float


def ingest(
    source: Path,
    store_path: Path,
    settings: IngestSettings | None = None,
    *,
    workers: int = 1,
    progress: Callable[[IngestEvent], None] | None = None,
) -> IngestReport:
    """Bring every subject of ``source`` that is new or changed into the store."""
    from triton_reg import __version__  # here, so that importing this module needs no torch

    started = time.monotonic()
    settings = settings or IngestSettings()
    listing = find_subjects(Path(source))
    store = _open_or_create(Path(store_path), listing, settings)
    entries, rejected = _refuse_other_spelling(listing, store.subject_ids)
    outcomes: list[Outcome] = []
    total = len(entries) + len(rejected)

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if outcome.status == "quarantined":
            store.quarantine(outcome.subject_id, outcome.code, outcome.message, outcome.source)
        elif outcome.status == "unchanged":
            store.release(outcome.subject_id)
        if progress is not None:
            event = (outcome.subject_id, outcome.status, outcome.message, len(outcomes), total)
            progress(IngestEvent(*event))

    for item in rejected:
        note(Outcome(item.subject_id, "quarantined", item.code, item.message, item.source))
    assumed = settings.assume_orientation
    jobs = [Job(entry, store.path, assumed, __version__) for entry in entries]
    for outcome in _run(jobs, workers):
        note(outcome)
    return _report(outcomes, store.grid, time.monotonic() - started)


def _open_or_create(path: Path, listing: SourceListing, settings: IngestSettings) -> CohortStore:
    if (path / "zarr.json").exists():
        store = CohortStore.open(path, for_writing=True)
        _check_settings(store, listing, settings)
        return store
    if not listing.entries:
        first = listing.rejected[0]
        raise UsageError(
            "E_SOURCE",
            f"none of {len(listing.rejected)} subjects can be used; the first, "
            f"{first.subject_id!r}: {first.code}: {first.message}",
        )
    assumed = settings.assume_orientation
    reference = choose_reference(listing.entries, settings.reference, assumed)
    if settings.grid is not None:
        grid = grid_from_text(settings.grid, reference)
    elif settings.like is not None:
        grid = grid_from_file(settings.like, assumed)
    else:
        grid = grid_from_data(listing.entries, reference, assumed)
    # the anchor is kept, so that subjects that come later are aligned to the same place
    chosen = {
        "align": settings.align,
        "reference": reference.subject_id,
        "anchor_mm": anchor_mm(reference, settings.align).tolist(),
        "structures": listing.structures,
    }
    return CohortStore.create(path, grid, settings=chosen)


def _check_settings(store: CohortStore, listing: SourceListing, settings: IngestSettings) -> None:
    kept = store.settings
    if settings.align != kept["align"]:
        raise _other_setting(store, "align", kept["align"], settings.align)
    if settings.reference not in (None, kept["reference"]):
        raise _other_setting(store, "reference", kept["reference"], settings.reference)
    if listing.structures and listing.structures != kept["structures"]:
        raise _other_setting(store, "structures", kept["structures"], listing.structures)
    if settings.grid is not None:
        shape, spacing_mm = parse_grid(settings.grid)
        asked = Grid.axis_aligned(shape, spacing_mm, store.grid.center_mm)
        if asked.distance(store.grid) > 1e-3:
            raise _other_setting(store, "grid", _describe(store.grid), settings.grid)
    if settings.like is not None:
        asked = grid_from_file(settings.like, settings.assume_orientation)
        if asked.distance(store.grid) > 1e-3:
            found = f"{settings.like} with {_describe(asked)}"
            raise _other_setting(store, "grid", _describe(store.grid), found)


def _other_setting(store: CohortStore, name: str, kept: Any, asked: Any) -> UsageError:
    return UsageError(
        "E_STORE_SETTINGS",
        f"{store.path} was made with {name} {kept}, asked for is {asked}; "
        "use the same, or another store",
    )


def _describe(grid: Grid) -> str:
    shape = "x".join(map(str, grid.shape))
    spacing = "x".join(f"{step:g}" for step in grid.spacing_mm)
    center = ", ".join(f"{position:.1f}" for position in grid.center_mm)
    return f"{shape}@{spacing}mm around ({center})"


def _refuse_other_spelling(
    listing: SourceListing, stored: Sequence[str]
) -> tuple[list[SourceEntry], list[Rejected]]:
    """Refuse ids that differ from a stored one only in case: some file systems mix them up."""
    spelling = {subject_id.casefold(): subject_id for subject_id in stored}
    entries, rejected = [], list(listing.rejected)
    for entry in listing.entries:
        kept = spelling.get(entry.subject_id.casefold(), entry.subject_id)
        if kept == entry.subject_id:
            entries.append(entry)
            continue
        message = f"subject id {entry.subject_id!r} is in the store as {kept!r}; need one spelling"
        rejected.append(Rejected(entry.subject_id, "E_DUPLICATE", message, str(entry.image)))
    return entries, rejected


def _run(jobs: Sequence[Job], workers: int) -> Iterator[Outcome]:
    if workers <= 1 or len(jobs) <= 1:
        yield from map(ingest_subject, jobs)
        return
    # spawn: a forked child would inherit the locks of zarr's thread
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"))
    try:
        with ctrl_c_held():
            futures = [pool.submit(ingest_subject, job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise SchedulerError(
            "E_WORKER_LOST",
            "a worker process died, often for want of memory; what it committed is kept. "
            "Run again, with fewer workers",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _report(outcomes: Sequence[Outcome], grid: Grid, elapsed_s: float) -> IngestReport:
    ordered = sorted(outcomes, key=lambda outcome: outcome.subject_id)
    return IngestReport(
        ingested=tuple(done.subject_id for done in ordered if done.status == "ingested"),
        unchanged=tuple(done.subject_id for done in ordered if done.status == "unchanged"),
        quarantined={
            done.subject_id: (done.code, done.message)
            for done in ordered
            if done.status == "quarantined"
        },
        grid=grid,
        outside={done.subject_id: done.outside for done in ordered if done.outside is not None},
        elapsed_s=elapsed_s,
    )
