"""What a worker does with one tile: register its pairs, measure them, commit their rows.

A pair that fails is a row with a code of its subject's fault, or one of these:

- ``E_METHOD``: the method raised an error.
- ``E_OOM``: there was not enough memory, not even for this pair alone with nothing else kept.
- ``E_CRASH``: worker processes died over it, or lost their card, three times.
- ``E_TIMEOUT``: it took longer than a pair may take.
"""

import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psutil
import torch

from cohort.data.one_thread import one_thread
from cohort.engine.beside import Beside
from cohort.engine.breadcrumbs import Blame, Breadcrumbs, Pair, sweep_crumbs
from cohort.engine.convergence import convergence
from cohort.engine.measure import measure_pair
from cohort.engine.memory import in_less_memory, is_out_of_memory
from cohort.engine.pair_faults import pair_fault
from cohort.engine.patience import once_more
from cohort.engine.registered_pair import RegisteredPair
from cohort.engine.results import commit_part, pair_key, part_path
from cohort.engine.stop import Stopped, is_stopped
from cohort.engine.tiles import Tile
from cohort.engine.watchdog import Watchdog
from cohort.engine.workbench import Workbench

_LOG = logging.getLogger(__name__)
Row = dict[str, Any]


@dataclass(frozen=True)
class TileReport:
    """What the driver learns of a tile; the rows themselves are on disk.

    Attributes:
        tile_id: which tile.
        pairs, failed: how many pairs it has, and how many of them failed.
        elapsed_s: from start to commit.
        worker: host and process.
        seconds: the time by kind: reading, preparing, registering, measuring, committing.
        prepared: subjects that were not at hand.
        kept, kept_bytes: subjects that are at hand now, and what they take.
        memory_bytes, device_bytes: of the whole process, and the most that it had on its card.
    """

    tile_id: str
    pairs: int
    failed: int
    elapsed_s: float
    worker: str
    seconds: dict[str, float]
    prepared: int = 0
    kept: int = 0
    kept_bytes: int = 0
    memory_bytes: int = 0
    device_bytes: int = 0


def run_tile(
    workbench: Workbench,
    tile: Tile,
    attempt: int = 1,
    *,
    epoch: int = 0,
    watchdog: Watchdog | None = None,
) -> TileReport:
    """Register and measure a tile's pairs and commit their rows; a committed tile is left alone.

    Args:
        workbench: the open run.
        tile: of the run.
        attempt: how often its driver has given it out.
        epoch: of that driver, see :mod:`cohort.engine.lock`.
        watchdog: ends this process if a pair does not come to its end.

    Raises:
        Stopped: if the run is to stop; nothing of the tile is kept.
        StorageError: if the store or the run's folder cannot be read or written.
        DeviceLostError: ``E_DEVICE_LOST`` if this process can use its card no more.
    """
    start, before = time.perf_counter(), dict(workbench.seconds)
    subjects = workbench.subjects
    subjects.name(tile.subject_ids)
    prepared, failed = subjects.prepared, 0
    worker = f"{socket.gethostname()}-{os.getpid()}"
    if not part_path(workbench.run_dir, tile.tile_id).exists():
        kept = Beside()
        rows = _rows_of_tile(workbench, tile, epoch, watchdog, kept)
        common = {"tile": tile.tile_id, "worker": worker, "attempt": attempt}
        failed = sum(row["status"] != "ok" for row in rows)
        _commit(workbench, tile.tile_id, [row | common for row in rows], kept)
    return TileReport(
        tile.tile_id,
        len(tile.pairs),
        failed,
        time.perf_counter() - start,
        worker,
        {kind: spent - before.get(kind, 0.0) for kind, spent in workbench.seconds.items()},
        subjects.prepared - prepared,
        len(subjects),
        subjects.size,
        psutil.Process().memory_info().rss,
        torch.cuda.max_memory_allocated() if workbench.device.type == "cuda" else 0,
    )


def _commit(workbench: Workbench, tile_id: str, rows: list[Row], kept: Beside) -> None:
    run_dir = workbench.run_dir
    with workbench.timed("commit_s"):
        # first, as the part vouches for all that belongs to its rows
        once_more(partial(kept.write, run_dir, tile_id))
        once_more(partial(commit_part, run_dir, tile_id, rows))
        sweep_crumbs(run_dir, [tile_id])


def _rows_of_tile(
    workbench: Workbench, tile: Tile, epoch: int, watchdog: Watchdog | None, kept: Beside
) -> list[Row]:
    """A row for every pair, batch by batch; adds to what is kept beside the rows."""
    rows: list[Row] = []
    crumbs = Breadcrumbs(workbench.run_dir, tile.tile_id, epoch)
    with closing(crumbs), one_thread(), torch.inference_mode():
        for pairs in _batches(tile.pairs, workbench.batch, crumbs.blame):
            if is_stopped(workbench.run_dir):
                raise Stopped
            if workbench.spec.sums:  # everyone but the template is met once
                workbench.subjects.name({one for pair in pairs for one in pair}, alone=True)
            verdict = crumbs.blame.verdict(pairs[0])
            if verdict:  # such a pair is alone
                rows.append(_failed(workbench, pairs[0], *verdict))
                continue
            with ExitStack() as guards:
                guards.enter_context(crumbs.around(pairs))
                if watchdog:
                    mark = partial(crumbs.timeout, pairs)
                    guards.enter_context(watchdog.watching(len(pairs), mark))
                rows += once_more(partial(_rows_in_memory, workbench, pairs, kept))
    return rows


def _batches(pairs: Sequence[Pair], size: int, blame: Blame) -> Iterator[Sequence[Pair]]:
    """Pairs to be registered at once; alone if a worker died over them, or is not to try them."""
    alone = blame.suspects | blame.deaths.keys() | blame.timed_out
    together = [pair for pair in pairs if pair not in alone]
    yield from ([pair] for pair in pairs if pair in alone)
    yield from (together[first : first + size] for first in range(0, len(together), size))


def _rows_in_memory(workbench: Workbench, pairs: Sequence[Pair], kept: Beside) -> list[Row]:
    """Rows of pairs, of fewer at once if there is not enough memory for all."""

    def give_up(pair: Pair) -> Row:
        return _failed(workbench, pair, "E_OOM", "not enough memory for this pair, not even alone")

    def make_room(_: Sequence[Pair]) -> None:
        workbench.subjects.make_room()

    return in_less_memory(partial(_rows, workbench, kept), pairs, make_room, give_up)


def _rows(workbench: Workbench, kept: Beside, pairs: Sequence[Pair]) -> list[Row]:
    """Rows of pairs registered at once; each alone if that fails, so that a fault is one pair's."""
    try:
        return _registered_and_measured(workbench, kept, pairs)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        fault = pair_fault(workbench, pairs, error)
        if len(pairs) == 1:
            if fault is not error:
                _LOG.info("pair %s, %s failed", *pairs[0], exc_info=True)  # its row has a sentence
            return [_failed(workbench, pairs[0], fault.code, fault.message)]
        _LOG.info("a batch of %d pairs failed; each alone", len(pairs), exc_info=True)
    return [row for pair in pairs for row in _rows(workbench, kept, [pair])]


def _registered_and_measured(
    workbench: Workbench, kept: Beside, pairs: Sequence[Pair]
) -> list[Row]:
    scans = [(workbench.subject(f).scan, workbench.subject(m).scan) for f, m in pairs]
    families = workbench.spec.metrics
    start = time.perf_counter()
    results = workbench.register_many(pairs)
    there_and_back = "consistency" in families
    others = workbench.register_many([(m, f) for f, m in pairs]) if there_and_back else []
    register_s = (time.perf_counter() - start) / len(pairs)
    rows = []
    for index, (pair, result) in enumerate(zip(pairs, results, strict=True)):
        backward = others[index].displacement if there_and_back else None
        start = time.perf_counter()
        with workbench.timed("metrics_s"):
            registered = RegisteredPair.of(
                *scans[index], result.displacement, workbench.grid, backward
            )
            measures = measure_pair(registered, families)
        metrics_s = time.perf_counter() - start
        elapsed_s = register_s + metrics_s
        times = {"register_s": register_s, "metrics_s": metrics_s, "elapsed_s": elapsed_s}
        row = _row(workbench, pair)
        moving = scans[index][1]
        kept.note(workbench.spec, workbench.grid, pair, row["pair_key"], moving, result)
        rows.append(row | measures | times | convergence(result.extras))
    return rows


def _failed(workbench: Workbench, pair: Pair, code: str, message: str) -> Row:
    return _row(workbench, pair) | {"status": code, "message": message}


def _row(workbench: Workbench, pair: Pair) -> Row:
    """What a row says of its pair before anything was measured."""
    spec, (fixed, moving) = workbench.spec, pair
    digests = workbench.digests[fixed], workbench.digests[moving]
    return {
        "pair_key": pair_key(spec.fingerprint, spec.device, *digests),
        "fixed": fixed,
        "moving": moving,
        "status": "ok",
        "method": spec.method.name,
        "fingerprint": spec.fingerprint,
        "finished_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
