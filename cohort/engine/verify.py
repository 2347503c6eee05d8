"""``cohort verify``: whether a run is whole, and every row in it what was planned and written."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cohort.data.inventory import Inventory
from cohort.data.places import Where
from cohort.data.storage import storage_error
from cohort.data.store import CohortStore
from cohort.engine import manifest as compacted
from cohort.engine.atlas import kept_atlas
from cohort.engine.beside_checks import beside_faults, event_faults, total_faults
from cohort.engine.inspection import ROW_FACTS, Finding, PlannedRows, by_tile
from cohort.engine.leftovers import unlisted
from cohort.engine.manifest import Compacted, Manifest, load_manifest, manifest_path
from cohort.engine.parts import loose_tiles, read_part, row_groups
from cohort.engine.results import SCHEMA, part_path
from cohort.engine.run_copy import copy_path, kept_document
from cohort.engine.spec import RunSpec, plan_digest
from cohort.errors import StorageError, SubjectError, UsageError

# of run.json, what the plan's digest is of
_PLANNED = {
    "store_digest", "subject_digests", "pairs_digest", "tile_size", "pairs", "device", "seed",
    "metrics", "keep_uncertainty", "method", "fingerprint", "keep_displacements", "keep_below",
    "shrink", "sums",
}  # fmt: skip


@dataclass
class Inspection:
    """What was found.

    Attributes:
        findings: all that is wrong.
        tiles, left: of the plan, and how many of them have no rows yet.
        rows: that were checked.
        subjects: of the store that were checked.
    """

    findings: list[Finding] = field(default_factory=list)
    tiles: int = 0
    left: int = 0
    rows: int = 0
    subjects: int = 0


def verify(
    run_dir: Path, store: Where | None = None, *, with_store: bool = True, deep: bool = False
) -> Inspection:
    """Check all files of a run, and that the store still holds what it was planned on.

    Args:
        run_dir: the run; nothing in it is changed.
        store: where its cohort is now, if it has moved.
        with_store: whether to look at the store.
        deep: whether to read every array there, too.

    Raises:
        UsageError: ``E_RUN`` if there is no run.
        StorageError: ``E_RUN`` if ``run.json`` is beyond use; ``E_STORAGE`` if the file system
            fails.
    """
    spec, findings = checked_spec(run_dir)
    planned = PlannedRows(run_dir, spec)
    seen = Inspection(findings, len(planned.tiles))
    try:
        listed = load_manifest(run_dir)
    except StorageError as error:
        if error.code != "E_MANIFEST":
            raise
        listed = Manifest()
        findings.append(Finding(error.code, str(manifest_path(run_dir)), error.message))
    done = _check_parts(run_dir, planned, listed, seen)
    for file in listed.files:
        done |= _check_compacted(run_dir, file, planned, seen)
    findings += _lost(run_dir, listed, done)
    seen.left = len(planned.tiles - done)
    findings += [*total_faults(run_dir), *event_faults(run_dir)]
    if with_store:
        findings += _store(run_dir, spec, store or spec.store, deep=deep)
        seen.subjects = len(spec.subject_ids)
    return seen


def checked_spec(run_dir: Path) -> tuple[RunSpec, list[Finding]]:
    """The facts of a run, from the copy if ``run.json`` is not what it was, and what is wrong.

    Raises:
        UsageError: ``E_RUN`` if there is no run.
        StorageError: ``E_RUN`` if neither is of use.
    """
    path, kept = run_dir / "run.json", kept_document(run_dir)
    findings = []
    if kept is None and copy_path(run_dir).exists():
        sentence = "it is damaged; `cohort repair` makes it anew from run.json"
        findings.append(Finding("E_COPY", str(copy_path(run_dir)), sentence))
    try:
        is_same = kept is None or path.read_bytes() == kept
    except FileNotFoundError:
        is_same = False
    except OSError as error:
        raise storage_error(path, error) from error
    if not is_same:
        assert kept is not None
        sentence = "it is not what it was when the run began; `cohort repair` restores it"
        findings.append(Finding("E_RUN", str(path), sentence))
        return RunSpec.model_validate_json(kept), findings
    spec = RunSpec.load(run_dir)
    facts = spec.model_dump(mode="json", include=_PLANNED)
    facts["method"] = spec.method.model_dump(mode="json", exclude_none=True)
    if spec.keep_below is None:  # a plan that keeps none says nothing of it
        del facts["keep_displacements"], facts["keep_below"]
    if spec.shrink == 1:
        del facts["shrink"]
    if spec.sums is None:
        del facts["sums"]
    if plan_digest(facts) != spec.plan_digest:
        raise StorageError("E_RUN", f"{path} is damaged: its plan digest is of another plan")
    return spec, findings


def _check_parts(
    run_dir: Path, planned: PlannedRows, listed: Manifest, seen: Inspection
) -> set[str]:
    """Tiles whose parts are good."""
    good, merged = set(), listed.tiles
    for tile in loose_tiles(run_dir):
        if tile in merged:
            continue
        path = part_path(run_dir, tile)
        try:
            rows = read_part(path, SCHEMA)
        except StorageError as error:
            if error.code != "E_PART":
                raise
            seen.findings.append(Finding(error.code, str(path), error.message, tile))
            continue
        seen.rows += len(rows)
        fault = planned.fault(tile, rows)
        if fault:
            seen.findings.append(Finding("E_ROWS", str(path), fault, tile))
        else:
            seen.findings += beside_faults(run_dir, planned.spec, tile, rows)
            good.add(tile)
    return good


def _check_compacted(
    run_dir: Path, file: Compacted, planned: PlannedRows, seen: Inspection
) -> set[str]:
    """Tiles whose rows in a compacted file are good."""
    path, wanted = run_dir / compacted.FOLDER / file.name, set(file.tiles)
    good: set[str] = set()
    if not wanted:
        return good
    try:
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != file.sha256:
                sentence = "its bytes are not those that were written"
                seen.findings.append(Finding("E_PART", str(path), sentence))
        for group in row_groups(path, ROW_FACTS):
            seen.rows += len(group)
            for tile, rows in by_tile(group):
                if tile in wanted and not planned.fault(tile, rows):
                    seen.findings += beside_faults(run_dir, planned.spec, tile, rows)
                    good.add(tile)
    except (StorageError, FileNotFoundError) as error:
        if isinstance(error, StorageError) and error.code != "E_PART":
            raise
        seen.findings.append(Finding("E_PART", str(path), f"it cannot be read: {error}"))
    bad = sorted(wanted - good)
    if bad:
        sentence = f"the rows of {len(bad)} of its tiles are not those planned, such as {bad[0]}"
        seen.findings.append(Finding("E_ROWS", str(path), sentence))
    return good


def _lost(run_dir: Path, listed: Manifest, done: set[str]) -> Iterator[Finding]:
    for path, tiles in unlisted(run_dir, listed):
        if not tiles <= done:
            sentence = "the manifest does not name it, and it has rows that nothing else has"
            yield Finding("E_MANIFEST", str(path), sentence)


def _store(run_dir: Path, spec: RunSpec, where: Where, *, deep: bool) -> Iterator[Finding]:
    try:
        store = CohortStore.open(where)
        atlas = kept_atlas(run_dir) if spec.atlas else None
    except UsageError as error:
        yield Finding(error.code, str(where), error.message)
        return
    inventory = store.inventory()  # many records at a time, where a place takes that well
    for subject_id, digest in zip(spec.subject_ids, spec.subject_digests, strict=True):
        own = atlas if atlas and subject_id == spec.atlas else store
        try:
            found = None if own is atlas else _digest_in(inventory, subject_id)
            if (found or own.subject_digest(subject_id)) != digest:
                sentence = f"{subject_id} is no longer what it was when the run was planned"
                yield Finding("E_CHANGED", str(own.where), sentence)
            elif deep:
                own.read(subject_id)
        except SubjectError as error:
            yield Finding(error.code, str(own.where), error.message)


def _digest_in(inventory: Inventory, subject_id: str) -> str | None:
    """A subject's digest; None if it is not there. Raises why its record cannot be read."""
    if subject_id in inventory.unreadable:
        raise inventory.unreadable[subject_id]
    return inventory.subject_digests.get(subject_id)
