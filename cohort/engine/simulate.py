"""A run in simulated time: the planner, the driver and the caches of a real one, without the work.

Only the workers are played: each takes as long as :class:`Costs` say.
"""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from cohort.engine.at_hand import AtHand
from cohort.engine.dispatch import Ended, drive
from cohort.engine.tiles import Tiles

_MACHINE = 8  # workers that share a machine's way to the files


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What the parts of a run take, measured or assumed.

    Attributes:
        pair_s: to register a pair and measure it.
        prepare_s: a subject's features.
        read_s: to read and decode a subject, when nobody else reads.
        subject_bytes: that are read of a subject.
        tile_s: the way of a tile to its worker and back, and its commit.
        row_s: what a row adds to the commit.
        start_s: until a worker takes its first tile.
        machine_bytes_s: that one machine of eight workers reads a second.
        total_bytes_s: that all machines together do.
    """

    pair_s: float
    prepare_s: float = 0.0
    read_s: float = 0.0
    subject_bytes: float = 0.0
    tile_s: float = 0.0
    row_s: float = 0.0
    start_s: float = 0.0
    machine_bytes_s: float = math.inf
    total_bytes_s: float = math.inf


@dataclass(frozen=True)
class Outcome:
    """What a simulated run came to.

    Attributes:
        elapsed_s: from the start to the last commit.
        efficiency: time in pairs over the time of all workers.
        subjects_read: how often a subject was read.
        bytes_read: from the store.
        found_share: of the times that a tile needed a subject, how often it was at hand.
        waiting_s: for subjects to be read, all workers together.
        tiles: how many.
    """

    elapsed_s: float
    efficiency: float
    subjects_read: int
    bytes_read: float
    found_share: float
    waiting_s: float
    tiles: int


def simulate(tiles: Tiles, workers: int, costs: Costs, at_hand: int) -> Outcome:
    """Play a run.

    Args:
        tiles: in the order of work.
        workers: how many, all there from the start.
        costs: of their work.
        at_hand: subjects that a worker keeps.
    """
    crew = _Played(tiles, workers, costs, at_hand)
    for _ in drive(tiles, crew):
        pass
    busy = tiles.n_pairs * costs.pair_s
    return Outcome(
        crew.now,
        busy / (workers * crew.now) if crew.now else 1.0,
        crew.read,
        crew.read * costs.subject_bytes,
        crew.found / max(crew.found + crew.read, 1),
        crew.waiting_s,
        len(tiles),
    )


@dataclass
class _Worker:
    blocks: AtHand[int, int]  # by number, with their numbers of subjects
    line: deque[int] = field(default_factory=deque)
    free_at: float = 0.0
    reads_from: float = 0.0


class _Played:
    """Workers of a :func:`cohort.engine.dispatch.drive`, in simulated time.

    Subjects are played block by block: those of a block come and go together.
    """

    def __init__(self, tiles: Tiles, workers: int, costs: Costs, at_hand: int) -> None:
        self.now = costs.start_s
        self.read = self.found = 0
        self.waiting_s = 0.0
        self._tiles, self._costs = tiles, costs
        machines = math.ceil(workers / _MACHINE)
        share = min(costs.machine_bytes_s * machines, costs.total_bytes_s) / workers
        self._read_s = max(costs.read_s, costs.subject_bytes / share)
        self._workers = {
            f"worker-{number}": _Worker(
                AtHand[int, int](at_hand, int), free_at=self.now, reads_from=self.now
            )
            for number in range(workers)
        }
        self._names = list(self._workers)
        self._ending: list[tuple[float, int, str, int]] = []
        self._order = 0

    def names(self) -> Sequence[str]:
        """Those that are there now: all of them, all the time."""
        return self._names

    def submit(self, worker: str, position: int, attempt: int) -> None:
        """Put a tile in a worker's line; one that is idle begins at once."""
        del attempt
        own = self._workers[worker]
        own.line.append(position)
        if len(own.line) == 1:
            self._begin(worker)

    def wait(self) -> Sequence[Ended[int]]:
        """Go to the moment when the next tile ends."""
        self.now, _, worker, position = heapq.heappop(self._ending)
        own = self._workers[worker]
        own.line.popleft()
        if own.line:
            self._begin(worker)
        return [Ended(worker, position, position)]

    def _begin(self, worker: str) -> None:
        """Play the first tile in line; it was read for while the one before it was at work."""
        own, costs = self._workers[worker], self._costs
        position = own.line[0]
        missing = self._fetch(own, position)
        here = max(self.now, own.free_at)
        start = max(here, own.reads_from + missing * self._read_s)
        self.waiting_s += start - here
        pairs = int(self._tiles.counts[position])
        took = pairs * (costs.pair_s + costs.row_s) + missing * costs.prepare_s + costs.tile_s
        own.reads_from, own.free_at = start, start + took
        self._order += 1
        heapq.heappush(self._ending, (own.free_at, self._order, worker, position))

    def _fetch(self, own: _Worker, position: int) -> int:
        """Bring a tile's blocks to hand; returns the subjects that had to be read."""
        missing = 0
        side, last = self._tiles.side, len(self._tiles.subject_ids)
        blocks = set(self._tiles.blocks[position].tolist())
        own.blocks.name(blocks)
        for block in blocks:
            subjects = min(side, last - block * side)
            if own.blocks.get(block) is None:
                missing += subjects
                own.blocks.keep(block, subjects)
            else:
                self.found += subjects
        self.read += missing
        return missing
