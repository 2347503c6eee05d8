"""What runs in a worker process: the workbench, opened once, and the tiles that come."""

import logging
import os
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from cohort.engine.opening import Opening
from cohort.engine.plan import tiles_of
from cohort.engine.tile import TileReport, run_tile
from cohort.engine.tiles import Tiles
from cohort.engine.warm import warm
from cohort.engine.watchdog import Watchdog
from cohort.engine.workbench import Workbench
from cohort.errors import DeviceLostError

_LOG = logging.getLogger(__name__)
LOST_EXIT_CODE = 87


class WorkbenchPlugin(WorkerPlugin):
    """Opens the run on each worker, also on one that was restarted."""

    def __init__(self, name: str, opening: Opening) -> None:
        self.name = name  # of one driver's plugin: several may share a scheduler
        self._opening = opening
        self.workbench: Workbench
        self.tiles: Tiles
        self.watchdog: Watchdog

    def setup(self, worker: Worker) -> None:
        """Called by Dask when a worker starts."""
        del worker
        self.workbench = self._opening.open()
        self.watchdog = Watchdog(self._opening.pair_timeout_s)
        self.tiles = tiles_of(self._opening.run_dir, self.workbench.spec)
        warm(self.workbench)

    def run(self, tile_id: str, attempt: int) -> TileReport:
        """Work on a tile; ends this process, for another to be started, if its card is lost."""
        tile, epoch = self.tiles.named(tile_id), self._opening.epoch
        try:
            return run_tile(self.workbench, tile, attempt, epoch=epoch, watchdog=self.watchdog)
        except DeviceLostError as error:
            _LOG.error("%s", error)
            os._exit(LOST_EXIT_CODE)

    def transition(self, key: Any, start: str, finish: str, **more: Any) -> None:
        """Called by Dask when a tile's state changes; one that is next in line is read for."""
        del start, more
        if finish == "ready" and isinstance(key, str) and key.startswith(f"{self.name}/"):
            tile = self.tiles.named(key.split("/")[1])
            self.workbench.subjects.read_ahead(tile.subject_ids)


def task_key(plugin: str, tile_id: str, attempt: int) -> str:
    """What Dask calls an attempt at a tile."""
    return f"{plugin}/{tile_id}/{attempt}"


def run_tile_here(plugin: str, tile_id: str, attempt: int) -> TileReport:
    """Work on a tile in a worker process that has the plugin of that name."""
    own = get_worker().plugins[plugin]
    assert isinstance(own, WorkbenchPlugin)
    return own.run(tile_id, attempt)
