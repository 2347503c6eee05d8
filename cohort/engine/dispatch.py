"""Which worker does which tile next: the driver's own logic, without a clock or a network.

Workers that are processes, workers that are Dask's and workers that are simulated are driven by the
same loop, :func:`drive`.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

import numpy as np

from cohort.engine.tiles import Tiles
from cohort.errors import SchedulerError

IN_FLIGHT = 2  # tiles a worker: one at work, one at hand
ATTEMPTS = 8  # of a tile whose worker died, until a pair of it is known to be to blame
# of a tile, or of tiles in a row without a good pair, where one pair after the other is to blame:
# then something else is broken
_DEATHS_IN_ALL = 4 * ATTEMPTS
_ATTEMPTS_IN_ALL = 4 * _DEATHS_IN_ALL  # with those in which it was only in line behind another
Report = TypeVar("Report")
Report_co = TypeVar("Report_co", covariant=True)


@dataclass(frozen=True)
class Ended(Generic[Report_co]):
    """A tile that a worker is done with.

    Attributes:
        worker: its name.
        position: of the tile.
        report: what came back; None if it did not come to its end.
        died: whether the worker died over it; else it had it only in line, or was stopped.
        settled: pairs of it that are not tried again, as workers died over them.
        in_vain: whether it was done, and none of its pairs succeeded.
    """

    worker: str
    position: int
    report: Report_co | None
    died: bool = False
    settled: int = 0
    in_vain: bool = False


class Crew(Protocol[Report_co]):
    """Workers that take tiles and hand back reports."""

    def names(self) -> Sequence[str]:
        """Those that are there now."""
        ...

    def submit(self, worker: str, position: int, attempt: int) -> None:
        """Give a worker a tile to do when it is done with those it has."""
        ...

    def wait(self) -> Sequence[Ended[Report_co]]:
        """What ended since the last call; waits until something does, or a worker comes."""
        ...


class Dispatch:
    """The tiles that are left, as a run of consecutive ones for each worker.

    A worker goes through its own run, so that it meets the subjects it has at hand; one that is
    done takes over half of the longest run that is left. Tiles whose worker died come first.

    Args:
        counts: pairs of each tile, in the order of work.
    """

    def __init__(self, counts: np.ndarray) -> None:
        self._ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._runs: dict[Hashable, list[int]] = {}  # [next, end) by worker
        self._unclaimed = deque([[0, len(counts)]] if len(counts) else [])
        self._again: deque[int] = deque()

    def share_out(self, workers: Sequence[Hashable]) -> None:
        """Give each worker a run with an equal share of the pairs that nobody has."""
        cut: deque[list[int]] = deque()
        for start, end in self._unclaimed:
            goals = np.linspace(self._ends[start], self._ends[end], len(workers) + 1)[1:-1]
            inner = np.searchsorted(self._ends[start:end], goals) + start
            edges = [start, *inner.tolist(), end]
            cut.extend([a, b] for a, b in pairwise(edges) if a < b)
        self._unclaimed = cut
        for worker in workers:
            self._claim(worker)

    def next_for(self, worker: Hashable) -> int | None:
        """The next tile for a worker; None if nothing is left to give."""
        if self._again:
            return self._again.popleft()
        run = self._runs.get(worker)
        if run is None or run[0] >= run[1]:
            run = self._claim(worker) or self._steal(worker)
        if run is None:
            return None
        run[0] += 1
        return run[0] - 1

    @property
    def is_empty(self) -> bool:
        """Whether every tile has been given out."""
        left = any(map(self._left, self._runs))
        return not (left or self._again or self._unclaimed)

    def again(self, position: int) -> None:
        """Put back a tile that did not come to its end."""
        self._again.append(position)

    def forget(self, worker: Hashable) -> None:
        """A worker is gone: what it had not been given yet is free."""
        run = self._runs.pop(worker, None)
        if run is not None and run[0] < run[1]:
            self._unclaimed.append(run)

    def _claim(self, worker: Hashable) -> list[int] | None:
        if not self._unclaimed:
            return None
        self._runs[worker] = self._unclaimed.popleft()
        return self._runs[worker]

    def _steal(self, worker: Hashable) -> list[int] | None:
        """The second half of the longest run; the last tile of a run is its worker's own."""
        owner = max(self._runs, key=self._left, default=None)
        if owner is None or not self._left(owner):
            return None
        start, end = self._runs[owner]
        middle = min((start + end + 1) // 2, end - 1)
        self._runs[owner] = [start, middle]
        self._runs[worker] = [middle, end]
        return self._runs[worker]

    def _left(self, worker: Hashable) -> int:
        start, end = self._runs[worker]
        return end - start


def drive(
    tiles: Tiles, crew: Crew[Report], stopping: Callable[[], bool] = lambda: False
) -> Iterator[Report]:
    """Have every tile done; yields reports as they come.

    No worker has more than two tiles at a time, whatever their number. A tile whose worker died is
    given out again; what it had committed stays. Once ``stopping`` says so no tile is given out,
    and this ends with those that are at work.

    Raises:
        SchedulerError: ``E_WORKER`` if workers died eight times over one tile and no further pair
            of it was found to be to blame, or 32 times over it, or over tiles that came to their
            end without a good pair, with none between them that has one.
    """
    dispatch, fates = Dispatch(tiles.counts), _Fates(tiles)
    dispatch.share_out(crew.names())
    held: dict[str, int] = {}
    flying = 0
    while True:
        present = crew.names()
        for gone in set(held) - set(present):
            dispatch.forget(gone)
            del held[gone]
        ends = stopping()
        for worker in [] if ends else _with_room(present, held):
            position = dispatch.next_for(worker)
            if position is None:
                break
            crew.submit(worker, position, fates.begin(position))
            held[worker] = held.get(worker, 0) + 1
            flying += 1
        if not flying and (ends or dispatch.is_empty):
            return
        for ended in crew.wait():
            flying -= 1
            if ended.worker in held:
                held[ended.worker] -= 1
            if ended.report is None:
                fates.note(ended)
                dispatch.again(ended.position)
            else:
                yield ended.report
                fates.forget(ended)


class _Fates:
    """How often each tile was begun, and how often a worker died over it."""

    def __init__(self, tiles: Tiles) -> None:
        self._tiles = tiles
        self._begun: dict[int, int] = {}
        self._deaths: dict[int, list[int]] = {}  # at work, and how many pairs were settled by then
        self._in_a_row = 0  # over tiles that were done in vain

    def begin(self, position: int) -> int:
        """Note an attempt; returns its number."""
        self._begun[position] = self._begun.get(position, 0) + 1
        return self._begun[position]

    def forget(self, ended: Ended[Report]) -> None:
        """A tile is done; raises ``SchedulerError`` if one after the other only kills workers."""
        del self._begun[ended.position]
        deaths = len(self._deaths.pop(ended.position, ()))
        self._in_a_row = self._in_a_row + deaths if ended.in_vain else 0
        if self._in_a_row >= _DEATHS_IN_ALL:
            raise _endless(self._tiles, ended.position, self._in_a_row, "tiles in a row, the last")

    def note(self, ended: Ended[Report]) -> None:
        """Note an attempt that did not come to its end; raises ``SchedulerError`` at the last."""
        position = ended.position
        deaths = self._deaths.setdefault(position, [])
        if ended.died:
            deaths.append(ended.settled)
        in_vain = deaths.count(ended.settled)  # since a pair was last found to be to blame
        too_often = in_vain >= ATTEMPTS or len(deaths) >= _DEATHS_IN_ALL
        if too_often or self._begun[position] >= _ATTEMPTS_IN_ALL:
            times = len(deaths) or self._begun[position]
            raise _endless(self._tiles, position, times, "tile")


def _with_room(present: Sequence[str], held: Mapping[str, int]) -> list[str]:
    """Workers that can take a tile, once for each; everyone's first comes before any second."""
    free = {worker: IN_FLIGHT - held.get(worker, 0) for worker in present}
    return [worker for least in range(IN_FLIGHT, 0, -1) for worker in present
            if free[worker] >= least]  # fmt: skip


def _endless(tiles: Tiles, position: int, times: int, what: str) -> SchedulerError:
    tile = tiles.tile(position)
    subjects = ", ".join(tile.subject_ids)
    message = f"workers died {times} times over {what} {tile.tile_id}, with {subjects}"
    return SchedulerError("E_WORKER", f"{message}; the same command goes on from here")
