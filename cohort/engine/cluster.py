"""Worker processes on this machine: the only file that knows Dask."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import dask.config
from distributed import (
    Client,
    Future,
    KilledWorker,
    LocalCluster,
    Worker,
    WorkerPlugin,
    as_completed,
    get_worker,
)

from cohort.data.interrupts import ctrl_c_held
from cohort.engine.plan import Tile
from cohort.engine.tile import TileReport, run_tile
from cohort.engine.warm import warm
from cohort.engine.workbench import Workbench
from cohort.errors import SchedulerError, UsageError

_TILES_IN_FLIGHT = 2  # a worker: one at work, one at hand
_ATTEMPTS = 3  # of a tile whose worker died
_PLUGIN = "cohort-workbench"
# set before a worker starts. One kernel thread each: pairs are what runs in parallel. And freed
# memory stays with the process: Dask's default hands it back at every turn, and the next volume
# then spends as long on page faults as on arithmetic
_WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}
_CONFIG: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": 0,  # the driver decides about another attempt
    "distributed.scheduler.worker-ttl": "30 minutes",  # a long kernel call is no dead worker
    # workers keep all cores busy: what looks at them fifty times a second takes time from pairs
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.nanny.pre-spawn-environ": _WORKER_ENVIRONMENT,
}


class WorkbenchPlugin(WorkerPlugin):
    """Opens the run on each worker, also on one that was restarted."""

    def __init__(self, run_dir: Path, store_path: Path, workers: int, trust_code: bool) -> None:
        self._opening = (run_dir, store_path, workers)
        self._trust_code = trust_code
        self.workbench: Workbench

    def setup(self, worker: Worker) -> None:
        """Called by Dask when a worker starts."""
        del worker
        self.workbench = Workbench.open(*self._opening, trust_code=self._trust_code)
        warm(self.workbench)


def check_dashboard(workers: int) -> None:
    """Raise ``UsageError``, ``E_DASHBOARD``, unless Dask's dashboard can show so many workers."""
    if not workers:
        message = "a dashboard shows worker processes and --workers 0 starts none; need 1 or more"
        raise UsageError("E_DASHBOARD", message)
    try:
        import_module("distributed.dashboard.scheduler")  # else Dask serves a page of regret
    except ImportError as error:
        message = f"the dashboard needs bokeh ({error}): pip install 'triton-reg[dashboard]'"
        raise UsageError("E_DASHBOARD", message) from error


def run_on_workers(
    run_dir: Path,
    store_path: Path,
    tiles: Iterable[Tile],
    workers: int,
    trust_code: bool = False,
    on_dashboard: Callable[[str], None] | None = None,
) -> Iterator[TileReport]:
    """Work on tiles in local processes of one thread each; yields reports as they come.

    The scheduler knows two tiles a worker at a time, whatever their number, and what comes back is
    small: the rows are on disk. With ``on_dashboard`` Dask's dashboard is served to this machine
    alone, and that is called with its address.

    Raises:
        UsageError: as :func:`check_dashboard` does, if a dashboard is wanted.
        SchedulerError: ``E_WORKER`` if the workers do not start, or died three times over one tile.
        CohortError: what a tile raised.
    """
    if on_dashboard:
        check_dashboard(workers)
    with dask.config.set(_CONFIG), ExitStack() as stack:
        with ctrl_c_held():
            cluster = _cluster(workers, dashboard=on_dashboard is not None)
            client = stack.enter_context(Client(stack.enter_context(cluster)))
        if on_dashboard:
            on_dashboard(str(client.dashboard_link))
        plugin = WorkbenchPlugin(run_dir, store_path, workers, trust_code)
        client.register_plugin(plugin, name=_PLUGIN)
        yield from _in_flight(client, iter(tiles), _TILES_IN_FLIGHT * workers)


def _cluster(workers: int, *, dashboard: bool) -> LocalCluster:
    """One process of one thread a worker; nothing listens but on the loopback address."""
    try:
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            memory_limit=None,  # Dask would pause a worker for ever whose cache it cannot empty
            dashboard_address=None,  # pyright: ignore[reportArgumentType]  (None means none)
            # the scheduler answers health checks over HTTP all the same; on any free port, so that
            # two runs on one machine do not meet
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0", "dashboard": dashboard},
            silence_logs=logging.CRITICAL,
        )
    except (RuntimeError, OSError) as error:
        message = f"{workers} worker processes cannot be started: {error.__cause__ or error}"
        raise SchedulerError("E_WORKER", f"{message}; need fewer, or 0 for none") from error


def _in_flight(client: Client, tiles: Iterator[Tile], window: int) -> Iterator[TileReport]:
    """Keep ``window`` tiles submitted; a tile whose worker died is tried again."""
    work: dict[Future, tuple[Tile, int]] = {}

    def submit(tile: Tile, attempt: int) -> Future:
        key = f"{tile.tile_id}-{attempt}"
        future = client.submit(_run_tile_here, tile, attempt, key=key, pure=False)
        work[future] = (tile, attempt)
        return future

    completed = as_completed(
        [submit(tile, 1) for tile in islice(tiles, window)], raise_errors=False
    )
    for future in completed:
        tile, attempt = work.pop(future)
        if isinstance(future.exception(), KilledWorker):
            if attempt == _ATTEMPTS:
                subjects = ", ".join(tile.subject_ids)
                message = f"workers died {attempt} times over tile {tile.tile_id}, with {subjects}"
                raise SchedulerError("E_WORKER", f"{message}; the same command goes on from here")
            completed.add(submit(tile, attempt + 1))
            continue
        yield future.result()
        completed.update([submit(tile, 1) for tile in islice(tiles, 1)])


def _run_tile_here(tile: Tile, attempt: int) -> TileReport:
    plugin = get_worker().plugins[_PLUGIN]
    assert isinstance(plugin, WorkbenchPlugin)
    return run_tile(plugin.workbench, tile, attempt)
