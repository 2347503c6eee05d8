"""A run's tiles on Dask's workers."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module

import dask.config
from distributed import Client

from cohort.engine.breadcrumbs import history_of
from cohort.engine.cluster.crew import DaskCrew
from cohort.engine.cluster.given import connected, workers_of_a_host
from cohort.engine.cluster.local import CONFIG, closed_in_time, local_cluster
from cohort.engine.cluster.plugin import WorkbenchPlugin
from cohort.engine.dispatch import ATTEMPTS, drive
from cohort.engine.opening import Opening
from cohort.engine.stop import deaf_children, is_stopped
from cohort.engine.team import Team
from cohort.engine.tile import TileReport
from cohort.engine.tiles import Tiles
from cohort.errors import SchedulerError, UsageError

_LOCAL_PATIENCE_S = 60.0
_GIVEN_PATIENCE_S = float("inf")  # a batch system gives workers when it likes


def check_dashboard(team: Team) -> None:
    """Raise ``UsageError``, ``E_DASHBOARD``, unless Dask's dashboard can show the team."""
    if team.is_plain:
        message = "a dashboard shows worker processes and --workers 0 starts none; need 1 or more"
        raise UsageError("E_DASHBOARD", message)
    try:
        import_module("distributed.dashboard.scheduler")  # else Dask serves a page of regret
    except ImportError as error:
        message = f"the dashboard needs bokeh ({error}): pip install 'triton-reg[dashboard]'"
        raise UsageError("E_DASHBOARD", message) from error


def run_on_workers(
    tiles: Tiles,
    opening: Opening,
    team: Team,
    on_dashboard: Callable[[str], None] | None = None,
) -> Iterator[TileReport]:
    """Work on tiles in processes of one thread each; yields reports as they come.

    The scheduler knows two tiles a worker at a time, whatever their number, and what comes back is
    small: the rows are on disk. With ``on_dashboard`` Dask's dashboard is served to this machine
    alone, and that is called with its address.

    Raises:
        UsageError: as :func:`check_dashboard` does, if a dashboard is wanted, and as
            :func:`cohort.engine.cluster.given.connected` does.
        SchedulerError: ``E_WORKER`` if workers do not start, or died eight times over one tile;
            ``E_SCHEDULER`` if the scheduler is gone.
        CohortError: what a tile raised.
    """
    if on_dashboard:
        check_dashboard(team)
    with dask.config.set(CONFIG), ExitStack() as stack:
        with deaf_children():
            client = _client(team, stack, dashboard=on_dashboard is not None)
        if on_dashboard:
            on_dashboard(str(client.dashboard_link))
        name = f"cohort-{uuid.uuid4().hex[:12]}"
        stopping = partial(is_stopped, opening.run_dir)
        if team.scheduler is not None:
            stack.callback(_unregister, client, name)
            opening = replace(opening, workers=workers_of_a_host(client, stopping))
        _register(client, WorkbenchPlugin(name, opening))
        patience_s = _LOCAL_PATIENCE_S if team.scheduler is None else _GIVEN_PATIENCE_S
        history = partial(history_of, opening.run_dir, opening.epoch)
        crew = DaskCrew(client, name, tiles, patience_s, stopping, history)
        yield from drive(tiles, crew, stopping)


def _client(team: Team, stack: ExitStack, *, dashboard: bool) -> Client:
    if team.scheduler is not None:
        return stack.enter_context(connected(team))
    cluster = stack.enter_context(closed_in_time(local_cluster(team, dashboard=dashboard)))
    return stack.enter_context(Client(cluster, set_as_default=False))


def _register(client: Client, plugin: WorkbenchPlugin) -> None:
    """Have every worker open the run, also one that dies while this goes on, and comes again."""
    for attempt in range(ATTEMPTS):
        try:
            client.register_plugin(plugin, name=plugin.name)
        except OSError as error:  # what Dask makes of a worker that is gone
            if attempt == ATTEMPTS - 1:
                message = f"workers died {ATTEMPTS} times before their first tile: {error}"
                raise SchedulerError(
                    "E_WORKER", f"{message}; the same command goes on from here"
                ) from error
        else:
            return


def _unregister(client: Client, name: str) -> None:
    with suppress(Exception):  # the scheduler may be what has gone
        client.unregister_worker_plugin(name)
