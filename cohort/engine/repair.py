"""``cohort repair``: damaged files out of the way, so that the run's next driver makes them anew.

Rows that are good stay. What is not goes to ``RUN/bad``, where nobody reads it.
"""

import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from cohort.data.storage import storage_error
from cohort.engine.compaction import compact
from cohort.engine.events import log_event, read_events
from cohort.engine.inspection import Finding, PlannedRows, by_tile
from cohort.engine.leftovers import sweep_run, unlisted
from cohort.engine.lock import only_driver
from cohort.engine.manifest import FOLDER, Compacted, Manifest, load_manifest, manifest_path
from cohort.engine.parts import row_groups
from cohort.engine.results import SCHEMA, commit_table, committed_tiles, part_path
from cohort.engine.run_copy import copy_path, keep_copy, kept_document, restore_from_copy
from cohort.engine.verify import checked_spec, verify

BAD = "bad"


@dataclass
class Repaired:
    """What was done.

    Attributes:
        findings: what was wrong before.
        moved: files that were moved to ``RUN/bad``.
        restored: files that were made anew from what is known.
        saved: tiles whose rows were taken out of a damaged file.
        swept: leftovers that were removed.
        compacted: parts that were merged.
        left: tiles that the next driver has to do.
    """

    findings: list[Finding] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    saved: int = 0
    swept: int = 0
    compacted: int = 0
    left: int = 0


def repair(run_dir: Path, *, steal: bool = False, merge: bool = False) -> Repaired:
    """Put a run in order; what is missing then is done by ``cohort register``.

    Args:
        run_dir: the run.
        steal: take it from a driver that holds its lock.
        merge: compact all parts, however few there are.

    Raises:
        UsageError: ``E_RUN`` if there is no run.
        RunActiveError: ``E_ACTIVE`` if a driver works on it.
        StorageError: as :func:`cohort.engine.verify.verify` does.
    """
    checked_spec(run_dir)  # before a lock is put into what is no run
    with only_driver(run_dir, steal=steal):
        done = Repaired()
        _restore_facts(run_dir, done)
        found = verify(run_dir, with_store=False)
        done.findings += found.findings
        planned = PlannedRows(run_dir, checked_spec(run_dir)[0])
        _clear(run_dir, found.findings, planned, done)
        done.swept = sweep_run(run_dir)
        if merge:
            done.compacted = compact(run_dir, most_parts=0)
        after = verify(run_dir, with_store=False)
        done.left = after.left
        facts = {"moved": len(done.moved), "saved": done.saved, "restored": len(done.restored)}
        log_event(run_dir, "run_repaired", **facts)
    return done


def _restore_facts(run_dir: Path, done: Repaired) -> None:
    """``run.json`` from its copy, or the copy from ``run.json``, whichever is good."""
    _, findings = checked_spec(run_dir)
    for finding in findings:
        path = Path(finding.path)
        if path.exists():
            _move(run_dir, path, done)
        document = kept_document(run_dir)
        if path == copy_path(run_dir) or document is None:
            keep_copy(run_dir)
        else:
            restore_from_copy(run_dir, document)
        done.restored.append(finding.path)
    done.findings += findings


def _clear(run_dir: Path, findings: list[Finding], planned: PlannedRows, done: Repaired) -> None:
    """Move what is damaged out of the way, after what is good in it was saved."""
    if any(Path(one.path) == manifest_path(run_dir) for one in findings):
        _move(run_dir, manifest_path(run_dir), done)
    _adopt_unlisted(run_dir, planned, done)
    listed = load_manifest(run_dir)
    files = {str(run_dir / FOLDER / file.name): file for file in listed.files}
    damaged = [files[path] for path in sorted({one.path for one in findings}) if path in files]
    for file in damaged:
        _save_rows(run_dir, file, planned, done)
    again = {one.tile for one in findings if one.tile is not None}
    kept = Manifest(tuple(file for file in listed.files if file not in damaged)).without(again)
    if kept != listed:
        kept.write(run_dir)
    for file in damaged:
        _move(run_dir, run_dir / FOLDER / file.name, done)
    for finding in findings:
        if finding.code == "E_EVENTS":
            _keep_readable_events(run_dir, done)
        elif finding.tile is not None:
            # its part goes with it: a part vouches for all that belongs to its rows
            for path in {Path(finding.path), part_path(run_dir, finding.tile)}:
                if path.exists():
                    _move(run_dir, path, done)


def _adopt_unlisted(run_dir: Path, planned: PlannedRows, done: Repaired) -> None:
    """Save rows that only a file has which the manifest does not name."""
    have = committed_tiles(run_dir)
    # the latest first: what it has in common with older ones was done again since
    for path, tiles in sorted(unlisted(run_dir, load_manifest(run_dir)), reverse=True):
        if tiles <= have:  # of a compaction that was ended: it is swept
            continue
        file = Compacted(path.name, "", 0, tuple(sorted(tiles)))
        _save_rows(run_dir, file, planned, done)
        _move(run_dir, path, done)


def _save_rows(run_dir: Path, file: Compacted, planned: PlannedRows, done: Repaired) -> None:
    """Make parts of the tiles whose rows in a compacted file are good."""
    wanted = set(file.tiles)
    groups = row_groups(run_dir / FOLDER / file.name, SCHEMA, past_damage=True)
    for group in groups:
        for tile, rows in by_tile(group):
            if tile in wanted and not planned.fault(tile, rows):
                done.saved += commit_table(run_dir, tile, pa.table(rows))


def _keep_readable_events(run_dir: Path, done: Repaired) -> None:
    events = read_events(run_dir)
    _move(run_dir, run_dir / "events.jsonl", done)
    for event in events:
        log_event(run_dir, **event)


def _move(run_dir: Path, path: Path, done: Repaired) -> None:
    folder = run_dir / BAD
    try:
        folder.mkdir(exist_ok=True)
        path.replace(folder / f"{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(path, error) from error
    done.moved.append(str(path))
