"""Sources to store: every subject on the working grid, or in quarantine with a reason.

Subjects are independent of each other: any number of processes gives the same store.
"""

import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cohort.data.entries import Rejected, SourceEntry, SourceListing
from cohort.data.geometry import Grid
from cohort.data.ingest_settings import IngestSettings
from cohort.data.ingest_store import open_or_create
from cohort.data.ingest_subject import (
    Job,
    Outcome,
    Status,
    ingest_subject,
    looks_unchanged,
)
from cohort.data.places import Where
from cohort.data.processes import in_processes
from cohort.data.sources import find_subjects
from cohort.data.store import CohortStore


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
    the working grid does not hold, for subjects with labels. unused: sentences about files of the
    source that no subject takes.
    """

    ingested: tuple[str, ...]
    unchanged: tuple[str, ...]
    quarantined: dict[str, tuple[str, str]]
    grid: Grid
    outside: dict[str, float]
    elapsed_s: float
    unused: tuple[str, ...] = ()


def ingest(
    source: Path,
    store_at: Where,
    settings: IngestSettings | None = None,
    *,
    workers: int = 1,
    recheck: bool = False,
    progress: Callable[[IngestEvent], None] | None = None,
) -> IngestReport:
    """Bring every subject of ``source`` that is new or changed into the store.

    A subject whose files have the sizes and times that they had is taken for unchanged. With
    ``recheck`` the files and the arrays that are stored are read and compared by their checksums,
    and what is damaged in the store is made again.
    """
    from triton_reg import __version__  # here, so that importing this module needs no torch

    started = time.monotonic()
    settings = settings or IngestSettings()
    listing = find_subjects(Path(source))
    store = open_or_create(store_at, listing, settings)
    entries, rejected = _refuse_other_spelling(listing, store.subject_ids)
    refused = store.quarantined
    outcomes: list[Outcome] = []
    total = len(entries) + len(rejected)

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if outcome.status == "quarantined":
            store.quarantine(outcome.subject_id, outcome.code, outcome.message, outcome.source)
        elif outcome.subject_id in refused:
            store.release(outcome.subject_id)
        if progress is not None:
            event = (outcome.subject_id, outcome.status, outcome.message, len(outcomes), total)
            progress(IngestEvent(*event))

    for item in rejected:
        note(Outcome(item.subject_id, "quarantined", item.code, item.message, item.source))
    choices = settings.header_choices
    jobs = {entry.subject_id: Job(entry, store.address, choices, __version__) for entry in entries}
    for outcome in [] if recheck else _unchanged(store, jobs, but=refused):
        note(outcome)
        del jobs[outcome.subject_id]
    for outcome in in_processes(ingest_subject, list(jobs.values()), workers):
        note(outcome)
    return _report(outcomes, store.grid, time.monotonic() - started, listing.unused)


def _unchanged(store: CohortStore, jobs: Mapping[str, Job], but: Container[str]) -> list[Outcome]:
    """Of subjects whose files look as they did, ``but`` those in quarantine: what their records say
    is from before they were refused."""
    names = [name for name in jobs if name not in but]
    return [
        one for one in store.each(lambda name: looks_unchanged(store, jobs[name]), names) if one
    ]


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


def _report(
    outcomes: Sequence[Outcome], grid: Grid, elapsed_s: float, unused: tuple[str, ...]
) -> IngestReport:
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
        unused=unused,
    )
