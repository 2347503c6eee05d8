"""The driver of a run: which tiles are left, who works on them, what happened when."""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cohort.data.storage import TEMPORARY, storage_error
from cohort.data.store import CohortStore
from cohort.engine.cluster import check_dashboard, run_on_workers
from cohort.engine.events import log_event
from cohort.engine.plan import Tile, tiles_of
from cohort.engine.results import committed_tiles
from cohort.engine.spec import RunSpec
from cohort.engine.tile import TileReport, run_tile
from cohort.engine.workbench import Workbench
from cohort.errors import RunActiveError


@dataclass
class RunReport:
    """What one call of :func:`run` did.

    Attributes:
        pairs, failed: registered now, and how many of them failed.
        already_done: pairs that earlier calls had committed.
        elapsed_s: of this call, from the first tile on.
        seconds: time of all workers by kind of work.
    """

    pairs: int = 0
    failed: int = 0
    already_done: int = 0
    elapsed_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def pairs_per_hour(self) -> float | None:
        """Pairs registered now over the time they took, all workers together."""
        return 3600 * self.pairs / self.elapsed_s if self.pairs else None


def run(
    run_dir: Path,
    store: CohortStore,
    *,
    workers: int = 0,
    trust_code: bool = False,
    progress: Callable[[RunReport, int], None] | None = None,
    on_dashboard: Callable[[str], None] | None = None,
) -> RunReport:
    """Work on every tile of a planned run that has no part yet.

    Args:
        run_dir: the run; its plan exists.
        store: the cohort, which may have moved since the plan was made.
        workers: local worker processes; 0 for a plain loop in this one.
        trust_code: whether code that the method's settings name may be run.
        progress: called with the report so far and the pairs of the whole run, at the start and
            after each tile.
        on_dashboard: if given, the workers' dashboard is served while they work, and this is called
            with its address.

    Raises:
        RunActiveError: ``E_ACTIVE`` if another driver works on the run.
        UsageError: as :meth:`cohort.engine.workbench.Workbench.open` does, or
            :func:`cohort.engine.cluster.check_dashboard`.
        StorageError, SchedulerError: the run stops; the same call goes on from there.
    """
    spec = RunSpec.load(run_dir)
    with _only_driver(run_dir):
        done, report = committed_tiles(run_dir), RunReport()
        left = [tile for tile in tiles_of(run_dir, spec) if tile.tile_id not in done]
        report.already_done = spec.n_pairs - sum(len(tile.pairs) for tile in left)
        say = progress or (lambda report, pairs: None)
        say(report, spec.n_pairs)
        if not left:
            return report
        log_event(run_dir, "run_started", workers=workers, pairs=spec.n_pairs - report.already_done)
        start = time.perf_counter()
        # closed, so that no worker is left when the lock is
        work = _work(run_dir, store.path, left, workers, trust_code, on_dashboard)
        with closing(work) as reports:
            for tile in reports:
                _add(report, tile)
                report.elapsed_s = time.perf_counter() - start
                log_event(run_dir, "tile_done", **asdict(tile))
                say(report, spec.n_pairs)
        log_event(run_dir, "run_finished", pairs=report.pairs, failed=report.failed)
    return report


def _work(
    run_dir: Path,
    store_path: Path,
    tiles: list[Tile],
    workers: int,
    trust_code: bool,
    on_dashboard: Callable[[str], None] | None,
) -> Generator[TileReport, None, None]:
    if workers:
        yield from run_on_workers(run_dir, store_path, tiles, workers, trust_code, on_dashboard)
        return
    if on_dashboard:
        check_dashboard(workers)
    workbench = Workbench.open(run_dir, store_path, trust_code=trust_code)
    for tile in tiles:
        yield run_tile(workbench, tile)


def _add(report: RunReport, tile: TileReport) -> None:
    report.pairs += tile.pairs
    report.failed += tile.failed
    for kind, seconds in tile.seconds.items():
        report.seconds[kind] = report.seconds.get(kind, 0.0) + seconds


@contextmanager
def _only_driver(run_dir: Path) -> Iterator[None]:
    """Hold the run's lock; the system lets go of it when this process ends, however it ends."""
    path = run_dir / "run.lock"
    try:
        file = path.open("a+")
    except OSError as error:
        raise storage_error(path, error) from error
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            message = f"{run_dir} is being worked on by {holder}; wait for it or stop it"
            raise RunActiveError("E_ACTIVE", message) from None
        lock.seek(0)
        lock.truncate()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        lock.write(f"process {os.getpid()} on {socket.gethostname()} since {now}")
        lock.flush()
        _sweep(run_dir)
        yield


def _sweep(run_dir: Path) -> None:
    """Remove what writers that died left behind; the lock says that none is alive."""
    for leftover in (run_dir / "parts").glob(f"{TEMPORARY}*"):
        leftover.unlink(missing_ok=True)
