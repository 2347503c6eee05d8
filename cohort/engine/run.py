"""The driver of a run: which tiles are left, who works on them, what happened when."""

import re
import signal
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from cohort.data.store import CohortStore
from cohort.engine.budgets import subjects_at_hand
from cohort.engine.cluster.workers import check_dashboard, run_on_workers
from cohort.engine.compaction import compact
from cohort.engine.events import log_event
from cohort.engine.leftovers import sweep_run
from cohort.engine.lock import Lease, only_driver
from cohort.engine.opening import Opening
from cohort.engine.plan import tiles_of
from cohort.engine.results import committed_tiles
from cohort.engine.retry import set_aside_failed
from cohort.engine.run_copy import keep_copy
from cohort.engine.spec import RunSpec
from cohort.engine.stop import Stopped, forget_stop, is_stopped, signals_answered
from cohort.engine.team import PLAIN, Team
from cohort.engine.tile import TileReport, run_tile
from cohort.engine.tiles import Tiles, panel_width
from cohort.engine.warm import warm

_TILE_ID = re.compile(r"\d{5,}-\d{5,}")


@dataclass(frozen=True)
class DriverOptions:
    """What is asked of one driver; the plan knows nothing of it.

    Attributes:
        steal: take the run from a driver that holds it.
        retry_failed: do tiles again in which a pair failed.
        pair_timeout_s: how long a pair may take on a worker process; None for 20 times the median
            of the worker's pairs, and at least 120 s.
        batch: pairs that are registered at once, which no result depends on; None for what the
            device takes.
        trust_code: whether code that the method's settings name may be run.
        keep_features: keep features in the store, for later runs by the same method.
    """

    steal: bool = False
    retry_failed: bool = False
    pair_timeout_s: float | None = None
    batch: int | None = None
    trust_code: bool = False
    keep_features: bool = False


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
        """Pairs registered now over the time they took, all workers together; None if all failed,
        or there were none."""
        return 3600 * self.pairs / self.elapsed_s if self.pairs > self.failed else None


def run(
    run_dir: Path,
    store: CohortStore,
    *,
    team: Team = PLAIN,
    progress: Callable[[RunReport, int], None] | None = None,
    on_dashboard: Callable[[str], None] | None = None,
    options: DriverOptions = DriverOptions(),
) -> RunReport:
    """Work on every tile of a planned run that has no part yet.

    Args:
        run_dir: the run; its plan exists.
        store: the cohort, which may have moved since the plan was made.
        team: who works on it; a plain loop in this process.
        progress: called with the report so far and the pairs of the whole run, at the start and
            after each tile.
        on_dashboard: if given, the workers' dashboard is served while they work, and this is called
            with its address.
        options: what else is asked of this driver.

    Raises:
        Stopped: if it was stopped by a signal or by ``RUN/STOP``; the same call goes on from there.
        RunActiveError: ``E_ACTIVE`` if another driver works on the run.
        UsageError: as :meth:`cohort.engine.workbench.Workbench.open` does, or as
            :func:`cohort.engine.cluster.workers.run_on_workers`.
        StorageError, SchedulerError: the run stops; the same call goes on from there.
    """
    spec = RunSpec.load(run_dir)
    with only_driver(run_dir, steal=options.steal) as lease:
        tiles = _left(run_dir, spec, lease, team, retry_failed=options.retry_failed)
        report = RunReport(already_done=spec.n_pairs - tiles.n_pairs)
        say = partial(progress or (lambda report, pairs: None), report, spec.n_pairs)
        say()
        if len(tiles):
            facts = {"workers": team.size, "pairs": tiles.n_pairs, "epoch": lease.epoch}
            log_event(run_dir, "run_started", **facts)
            opening = _opening(run_dir, store, team, options, lease.epoch)
            _done(tiles, _work(tiles, opening, team, on_dashboard), lease, report, say)
        compact(run_dir)
        if not lease.stolen:
            sweep_run(run_dir)  # what was set aside is committed anew
    return report


def _done(
    tiles: Tiles,
    work: Generator[TileReport, None, None],
    lease: Lease,
    report: RunReport,
    say: Callable[[], None],
) -> None:
    """Follow the work to its end; raises ``Stopped`` if it ends before all is done."""
    run_dir, start, done = lease.run_dir, time.perf_counter(), 0
    # closed, so that no worker is left when the lock is
    with signals_answered(run_dir) as signals, closing(work) as reports:
        for tile in reports:
            lease.check()
            _add(report, tile)
            done += 1
            report.elapsed_s = time.perf_counter() - start
            log_event(run_dir, "tile_done", **asdict(tile))
            say()
    is_whole = done == len(tiles)
    event = "run_finished" if is_whole else "run_stopped"
    log_event(run_dir, event, pairs=report.pairs, failed=report.failed)
    if not is_whole:
        raise Stopped(signals[0] if signals else signal.SIGINT)


def _opening(
    run_dir: Path, store: CohortStore, team: Team, options: DriverOptions, epoch: int
) -> Opening:
    return Opening(
        run_dir=run_dir.resolve(),
        store=store.address,
        workers=max(team.size, 1),
        on_one_card=team.on_one_card,
        batch=options.batch,
        keep_features=options.keep_features,
        trust_code=options.trust_code,
        epoch=epoch,
        pair_timeout_s=options.pair_timeout_s,
    )


def _left(run_dir: Path, spec: RunSpec, lease: Lease, team: Team, *, retry_failed: bool) -> Tiles:
    """The tiles that are still to be done, after what earlier drivers left is cleared away."""
    forget_stop(run_dir)
    keep_copy(run_dir)
    if not lease.stolen:  # else its writers may be alive
        sweep_run(run_dir)
        compact(run_dir)  # a run that is always stopped would do so never
    if retry_failed:
        set_aside_failed(run_dir)
    done = {tile for tile in committed_tiles(run_dir) if _TILE_ID.fullmatch(tile)}
    subjects, workers = len(spec.subject_ids), max(team.size, 1)
    one = spec.measured
    fit = subjects_at_hand(one, workers, team.on_one_card) if one else subjects
    return tiles_of(run_dir, spec, panel_width(subjects, workers, fit)).without(done)


def _work(
    tiles: Tiles,
    opening: Opening,
    team: Team,
    on_dashboard: Callable[[str], None] | None,
) -> Generator[TileReport, None, None]:
    """Reports of tiles until all are done or the run is stopped."""
    if not team.is_plain:
        yield from run_on_workers(tiles, opening, team, on_dashboard)
        return
    if on_dashboard:
        check_dashboard(team)
    workbench = opening.open()
    warm(workbench)
    for position in range(len(tiles)):
        if is_stopped(opening.run_dir):
            return
        if position + 1 < len(tiles):
            workbench.subjects.read_ahead(tiles.tile(position + 1).subject_ids)
        try:
            yield run_tile(workbench, tiles.tile(position), epoch=opening.epoch)
        except Stopped:
            return


def _add(report: RunReport, tile: TileReport) -> None:
    report.pairs += tile.pairs
    report.failed += tile.failed
    for kind, seconds in tile.seconds.items():
        report.seconds[kind] = report.seconds.get(kind, 0.0) + seconds
