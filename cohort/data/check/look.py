"""Look before work: every subject of a source or a store, measured and compared.

Subjects are measured one by one, then compared: what is wrong with one is known from its files,
what is odd about it only from the others. Nothing is written.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from cohort.data.check.compared import doubled, mirrored, other_keypoints, other_structures
from cohort.data.check.facts import Fault, SubjectFacts
from cohort.data.check.findings import Finding, faults_of, on_the_grid, ranked
from cohort.data.check.odd_ones import unlike, unlike_in_looks
from cohort.data.check.reading import SourceJob, StoreJob, examine
from cohort.data.check.sides import Sides, compare_sides
from cohort.data.entries import SourceListing
from cohort.data.header_choices import HeaderChoices
from cohort.data.layout import ROOT
from cohort.data.local_place import LocalPlace
from cohort.data.places import Where, place_of
from cohort.data.processes import in_processes
from cohort.data.sources import find_subjects
from cohort.data.store import CohortStore

_NO_CHOICES = HeaderChoices()
_START_S = 5.0  # of a process, until it has imported what it needs
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True, eq=False)
class CheckReport:
    """What there is, sorted by subject, and what is to be said of it, worst first.

    sides: likeness of each labelled subject's left and right to the cohort's, by subject id.
    side_measure: what it was judged by; None if the cohort's labels have no side to agree on.
    unused: sentences about files of a source that no subject takes.
    """

    subjects: tuple[SubjectFacts, ...]
    findings: tuple[Finding, ...]
    sides: dict[str, float]
    side_measure: str | None
    elapsed_s: float
    unused: tuple[str, ...] = ()

    @property
    def refused(self) -> tuple[str, ...]:
        """Subjects that ingest would put, or did put, into quarantine."""
        return tuple(one.subject_id for one in self.subjects if one.faults)


def check(
    where: Where,
    choices: HeaderChoices = _NO_CHOICES,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> CheckReport:
    """Look at a source, or at a store that ``where`` leads to.

    Raises:
        UsageError: if ``where`` is neither.
        StorageError: if the file system is broken; what is wrong with a subject is reported.
    """
    started = time.monotonic()
    place = place_of(where)
    is_store = place.has(ROOT)
    if is_store or not isinstance(place, LocalPlace):
        jobs, known, structures = _of_store(where)
        unused = ()
    else:
        listing = find_subjects(place.where)
        jobs, known, structures = _of_source(listing, choices)
        unused = listing.unused
    facts = list(known)
    failed = sum(bool(one.faults) for one in facts)
    for done in _examined(jobs, workers):
        facts.append(done)
        failed += bool(done.faults)
        if progress is not None:
            progress(len(facts), len(known) + len(jobs), failed)
    facts.sort(key=lambda one: one.subject_id)
    in_place = unlike_in_looks(facts) if is_store else ()
    return replace(_compared(facts, in_place, structures, started), unused=unused)


def _examined(jobs: Sequence[SourceJob | StoreJob], workers: int) -> Iterator[SubjectFacts]:
    """Facts of all subjects; processes are started once it is known that they pay."""
    started = time.monotonic()
    for done, job in enumerate(jobs, start=1):
        yield examine(job)
        left_s = (len(jobs) - done) * (time.monotonic() - started) / done
        if workers > 1 and left_s > 2 * _START_S:
            yield from in_processes(examine, jobs[done:], workers)
            return


def _of_store(
    where: Where,
) -> tuple[Sequence[SourceJob | StoreJob], list[SubjectFacts], dict[str, str]]:
    store = CohortStore.open(where)
    faults = {
        subject_id: (Fault("quarantine", entry["code"], entry["message"]),)
        for subject_id, entry in store.quarantined.items()
    }
    # an older version of a refused subject may be in the store
    jobs = [StoreJob(where, name, faults.pop(name, ())) for name in store.subject_ids]
    refused = [SubjectFacts(subject_id, found) for subject_id, found in faults.items()]
    return jobs, refused, store.settings.get("structures", {})


def _of_source(
    listing: SourceListing, choices: HeaderChoices
) -> tuple[Sequence[SourceJob | StoreJob], list[SubjectFacts], dict[str, str]]:
    refused = [
        SubjectFacts(item.subject_id, (Fault("source", item.code, item.message),))
        for item in listing.rejected
    ]
    return [SourceJob(entry, choices) for entry in listing.entries], refused, listing.structures


def _compared(
    facts: list[SubjectFacts],
    found: Iterable[Finding],
    structures: dict[str, str],
    started: float,
) -> CheckReport:
    findings = list(found)
    for one in facts:
        findings += faults_of(one) + on_the_grid(one)
    labelled = [one for one in facts if one.labels]
    sides: Sides | None = compare_sides([one.labels for one in labelled if one.labels])
    if sides is not None:
        findings += mirrored(labelled, sides)
    findings += doubled(facts)
    findings += unlike(facts)
    findings += other_structures(facts, structures)
    findings += other_keypoints(facts)
    likeness = sides.likeness.tolist() if sides else []
    return CheckReport(
        subjects=tuple(facts),
        findings=ranked(findings),
        sides={one.subject_id: value for one, value in zip(labelled, likeness, strict=False)},
        side_measure=sides.measure if sides else None,
        elapsed_s=time.monotonic() - started,
    )
