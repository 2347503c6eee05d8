"""A minute of a run before the run: what its parts take on this machine."""

import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch

from cohort.data.places import Where
from cohort.data.processes import in_processes
from cohort.data.store import CohortStore
from cohort.engine.measured import Measured
from cohort.engine.opening import Opening
from cohort.engine.plan import PlanSettings, open_run, tiles_of
from cohort.engine.results import part_path
from cohort.engine.run_folder import as_table
from cohort.engine.tile import TileReport, run_tile
from cohort.engine.warm import warm
from cohort.engine.workbench import Workbench
from cohort.errors import UsageError

_SUBJECTS = 8  # of the sample, in tiles of two: each is met several times
_SECONDS = 20.0  # of registering; starts and reading come to it
_SIDE = 2


@dataclass(frozen=True)
class _Job:
    run_dir: Path
    store: Where
    processes: int
    trust_code: bool
    first: int
    begun: float


@dataclass(frozen=True)
class _Seen:
    """What one process saw: reports of its tiles, and sizes in bytes."""

    tiles: tuple[TileReport, ...]
    subjects: int
    start_s: float
    subject_bytes: int
    worker_bytes: int
    device_bytes: int
    part_bytes: int


def calibrate(store: CohortStore, settings: PlanSettings, processes: int) -> Measured:
    """Register some pairs of a store as a run would, in so many processes at once.

    Takes half a minute and the time to start the processes. Nothing of it is kept.

    Raises:
        UsageError: as a plan with these settings does; ``E_CALIBRATION`` if no pair succeeded.
    """
    names = store.subject_ids
    sample = random.Random(0).sample(names, min(_SUBJECTS, len(names)))
    pairs = [(one, other) for one in sample for other in sample if one != other]
    with tempfile.TemporaryDirectory(prefix="cohort-calibration-") as folder:
        table = Path(folder) / "sample.csv"
        table.write_bytes(as_table(pairs))
        trial = replace(settings, pairs=str(table), atlas_labels=None, tile_size=_SIDE)
        run_dir = Path(folder) / "run"
        open_run(run_dir, store, replace(trial, keep_displacements=None))
        jobs = [
            _Job(run_dir, store.address, processes, settings.trust_code, first, time.time())
            for first in range(processes)
        ]
        seen = list(in_processes(_tried, jobs, processes))
    return _summed_up(store, seen)


def _tried(job: _Job) -> _Seen:
    """Work on tiles for a while; every process goes through them from a place of its own."""
    opening = Opening(
        run_dir=job.run_dir,
        store=job.store,
        workers=job.processes,
        trust_code=job.trust_code,
    )
    workbench = opening.open()
    warm(workbench)
    start_s = time.time() - job.begun
    return replace(_worked(workbench, job.first), start_s=start_s)


def _worked(workbench: Workbench, first: int) -> _Seen:
    tiles = tiles_of(workbench.run_dir, workbench.spec)
    reports, deadline = [], time.perf_counter() + _SECONDS
    for tile_id in _round(tuple(map(tiles.id_of, range(len(tiles)))), first):
        tile, path = tiles.named(tile_id), part_path(workbench.run_dir, tile_id)
        reports.append(run_tile(workbench, tile))
        part_bytes = path.stat().st_size if path.exists() else 0
        path.unlink(missing_ok=True)  # so that it is done again when it comes round
        enough = len(reports) >= len(tiles) or len(reports) > 2
        if enough and time.perf_counter() > deadline:
            break
    subjects = workbench.subjects
    return _Seen(
        tuple(reports),
        subjects.prepared,
        0.0,
        subjects.size // max(len(subjects), 1),
        max(psutil.Process(os.getpid()).memory_info().rss - subjects.size, 0),
        torch.cuda.max_memory_allocated() if workbench.device.type == "cuda" else 0,
        part_bytes,
    )


def _round(tile_ids: Sequence[str], first: int) -> Iterator[str]:
    """The tiles again and again, from one of them on; not more than ten times."""
    start = first * len(tile_ids) // 7 % len(tile_ids)
    for _ in range(10):
        yield from tile_ids[start:]
        yield from tile_ids[:start]


def _summed_up(store: CohortStore, seen: Sequence[_Seen]) -> Measured:
    tiles = [tile for one in seen for tile in one.tiles]
    good = [tile for tile in tiles if tile.failed < tile.pairs]
    if not good:
        raise UsageError(
            "E_CALIBRATION",
            f"none of {sum(tile.pairs for tile in tiles)} pairs that were tried succeeded; register"
            " a few, as with --pairs random:4, and see what their rows say",
        )
    prepared = max(sum(one.subjects for one in seen), 1)
    return Measured(
        pair_s=_per_pair(tiles),
        prepare_s=sum(tile.seconds.get("prepare_s", 0) for tile in tiles) / prepared,
        read_s=sum(tile.seconds.get("read_s", 0) for tile in tiles) / prepared,
        tile_s=statistics.median(tile.seconds.get("commit_s", 0.0) for tile in tiles),
        start_s=statistics.median(one.start_s for one in seen),
        subject_bytes=max(one.subject_bytes for one in seen),
        stored_bytes=_stored_bytes(store),
        row_bytes=max(one.part_bytes for one in seen) / max(tiles[-1].pairs, 1),
        worker_bytes=max(one.worker_bytes for one in seen),
        device_bytes=max(one.device_bytes for one in seen),
        processes=len(seen),
        pairs=sum(tile.pairs for tile in tiles),
    )


def _stored_bytes(store: CohortStore) -> int:
    """Of the arrays of one subject, which all have about the same, before compression."""
    arrays = store.record(store.subject_ids[0])["arrays"].values()
    return sum(math.prod(one["shape"]) * np.dtype(one["dtype"]).itemsize for one in arrays)


def _per_pair(tiles: Sequence[TileReport]) -> float:
    """Seconds of a pair beside what is counted by subject or by tile; the mean, as pairs differ."""
    apart = ("read_s", "prepare_s", "commit_s")
    spent = [tile.elapsed_s - sum(tile.seconds.get(kind, 0.0) for kind in apart) for tile in tiles]
    return sum(spent) / sum(tile.pairs for tile in tiles)
