"""Dask's workers as the crew of :func:`cohort.engine.dispatch.drive`."""

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError
from queue import Empty, SimpleQueue
from typing import cast

from distributed import Client, Future, KilledWorker
from distributed.comm.core import CommClosedError

from cohort.engine.breadcrumbs import History
from cohort.engine.cluster.given import GONE
from cohort.engine.cluster.plugin import run_tile_here, task_key
from cohort.engine.dispatch import Ended
from cohort.engine.stop import Stopped
from cohort.engine.tile import TileReport
from cohort.engine.tiles import Tiles
from cohort.errors import SchedulerError, UsageError

_LOOK_S = 2.0  # between two looks at who is there
_RESULT_S = 10.0  # for a small result to come; its tile is committed in any case


class DaskCrew:
    """Workers by address, each with one thread.

    Args:
        client: of the scheduler.
        plugin: name of the plugin that its workers have.
        tiles: by position.
        patience_s: how long to wait for a first worker, or for one after all are gone.
        stopping: whether not to wait for a first worker any more.
        history: of a tile, by its id, whose worker died.
    """

    def __init__(
        self,
        client: Client,
        plugin: str,
        tiles: Tiles,
        patience_s: float,
        stopping: Callable[[], bool],
        history: Callable[[str], History],
    ) -> None:
        self._client, self._plugin = client, plugin
        self._tiles, self._patience_s = tiles, patience_s
        self._history, self._begun = history, dict[int, int]()
        self._work: dict[Future, tuple[str, int]] = {}
        self._ended: SimpleQueue[Future] = SimpleQueue()
        self._stranded: set[Future] = set()
        self._given_up: set[Future] = set()
        self._names: tuple[str, ...] = ()
        self._looked_at = -_LOOK_S
        self._alone_since = time.monotonic()
        self._await_first(stopping)

    def names(self) -> Sequence[str]:
        """Addresses of the workers that are there.

        Raises:
            SchedulerError: ``E_SCHEDULER`` if the scheduler is gone, ``E_WORKER`` if no worker is
                left and none comes.
            UsageError: ``E_WORKERS`` if one has several threads.
        """
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return self._names
        try:
            threads = cast(dict[str, int], self._client.nthreads())
            self._give_up_stranded(threads)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            raise SchedulerError("E_SCHEDULER", GONE) from error
        self._looked_at = now
        self._names = tuple(sorted(threads))
        _refuse_threads(threads)
        if self._names:
            self._alone_since = now
        elif now - self._alone_since > self._patience_s:
            message = f"no worker came within {self._patience_s:.0f} s"
            raise SchedulerError("E_WORKER", f"{message}; the same command goes on from here")
        return self._names

    def submit(self, worker: str, position: int, attempt: int) -> None:
        """Give a tile to a worker; another may have it if that one is gone by then."""
        tile_id = self._tiles.id_of(position)
        future = self._client.submit(
            run_tile_here,
            self._plugin,
            tile_id,
            attempt,
            key=task_key(self._plugin, tile_id, attempt),
            workers=[worker],
            allow_other_workers=True,  # else a tile would wait for ever for a worker that is dead
            pure=False,
        )
        self._work[future] = (worker, position)
        future.add_done_callback(self._ended.put)

    def wait(self) -> Sequence[Ended[TileReport]]:
        """What ended since the last call; nothing, if it is time to look who is there.

        Raises:
            CohortError: what a tile raised.
            SchedulerError: ``E_SCHEDULER`` if the scheduler is gone.
        """
        try:
            future = self._ended.get(timeout=_LOOK_S)
        except Empty:
            if self._client.status != "running":
                raise SchedulerError("E_SCHEDULER", GONE) from None
            return []
        worker, position = self._work.pop(future)
        try:
            if future in self._given_up:
                return [Ended(worker, position, None)]
            report = future.result(timeout=_RESULT_S)
            return [Ended(worker, position, report, in_vain=report.failed == report.pairs)]
        except TimeoutError:  # the worker that had it died before it was fetched
            return [Ended(worker, position, None)]
        except KilledWorker:
            self._looked_at = -_LOOK_S  # it is not there any more
            return [self._dead(worker, position)]
        except Stopped:
            return [Ended(worker, position, None)]
        except (CancelledError, CommClosedError) as error:  # the latter if it dies meanwhile
            raise SchedulerError("E_SCHEDULER", GONE) from error
        finally:
            self._given_up.discard(future)
            future.release()

    def _give_up_stranded(self, present: Collection[str]) -> None:
        """Take back tiles for workers that are gone and which nobody has, at the second look.

        Dask gives a tile to others only if its worker is gone when it is given out; one that waits
        for a worker which dies before it is ready waits for ever.
        """
        lost = {one for one, (worker, _) in self._work.items()
                if worker not in present and one.status == "pending"}  # fmt: skip
        if again := lost & self._stranded:
            held = cast(dict[str, list[str]], self._client.processing())
            had = {key for keys in held.values() for key in keys}
            for future in again:
                if future.key not in had:
                    self._given_up.add(future)
                    future.cancel()
        self._stranded = lost

    def _dead(self, worker: str, position: int) -> Ended[TileReport]:
        """A tile whose worker died: at work on it, or with it only in line."""
        before = self._begun.get(position, 0)
        begun, settled = self._history(self._tiles.id_of(position))
        self._begun[position] = begun
        return Ended(worker, position, None, died=begun > before, settled=settled)

    def _await_first(self, stopping: Callable[[], bool]) -> None:
        while not self.names() and not stopping():
            time.sleep(0.05)
            self._looked_at = -_LOOK_S


def _refuse_threads(threads: dict[str, int]) -> None:
    """Two tiles at once in one process would share a card and a cache that is made for one."""
    several = {address: count for address, count in threads.items() if count != 1}
    if several:
        address, count = next(iter(several.items()))
        raise UsageError(
            "E_WORKERS",
            f"worker {address} has {count} threads, and {len(several)} of {len(threads)} workers"
            " have several; need one each: start them with `dask worker --nthreads 1`, one a GPU",
        )
