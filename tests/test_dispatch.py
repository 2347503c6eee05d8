"""The driver's logic with workers that are played: who gets what, and what becomes of deaths."""

import random
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
import pytest

from cohort.engine.dispatch import ATTEMPTS, IN_FLIGHT, Dispatch, Ended, drive
from cohort.engine.pairs import select_pairs
from cohort.engine.simulate import Costs, simulate
from cohort.engine.tiles import Tiles, panel_width
from cohort.errors import SchedulerError


def tiles_of(count: int, side: int = 2, at_hand: int = 0) -> Tiles:
    names = tuple(f"s{number:04d}" for number in range(count))
    return Tiles.of(select_pairs("all", names, 0), names, side, at_hand)


class Players:
    """Workers that end their tiles in any order; some die, some come late."""

    def __init__(self, workers: int, seed: int, deadly: int | None = None) -> None:
        self.random = random.Random(seed)
        self.there = [f"w{number}" for number in range(workers)]
        self.lines: dict[str, deque[int]] = {name: deque() for name in self.there}
        self.given: Counter[int] = Counter()
        self.deadly = deadly
        self.most = 0
        self.deaths = 0

    def names(self) -> Sequence[str]:
        return list(self.there)

    def submit(self, worker: str, position: int, attempt: int) -> None:
        self.given[position] += 1
        assert attempt == self.given[position]
        self.lines[worker].append(position)
        self.most = max(self.most, len(self.lines[worker]))

    def wait(self) -> Sequence[Ended[int]]:
        worker = self.random.choice([name for name in self.there if self.lines[name]])
        line = self.lines[worker]
        is_fatal = line[0] == self.deadly and self.given[line[0]] < ATTEMPTS - 1
        if is_fatal or (self.deaths < 5 and self.random.random() < 0.1):
            self.deaths += 1
            self.there.remove(worker)
            self.there.append(f"{worker}'")
            self.lines[f"{worker}'"] = deque()
            return [Ended(worker, position, None, died=True) for position in line]
        return [Ended(worker, position := line.popleft(), position)]


@pytest.mark.parametrize("seed", range(20))
def test_every_tile_is_reported_once_whoever_dies(seed: int) -> None:
    tiles = tiles_of(9)
    crew = Players(1 + seed % 4, seed, deadly=seed % len(tiles))
    found = list(drive(tiles, crew))
    assert sorted(found) == list(range(len(tiles)))
    assert crew.most <= IN_FLIGHT


def test_a_tile_that_always_kills_ends_the_run() -> None:
    class Deadly(Players):
        def wait(self) -> Sequence[Ended[int]]:
            position = self.lines["w0"].popleft()
            report = None if position == 3 else position
            return [Ended("w0", position, report, died=report is None)]

    tiles = tiles_of(9)
    with pytest.raises(SchedulerError, match=f"died {ATTEMPTS} times over tile {tiles.id_of(3)}"):
        list(drive(tiles, Deadly(1, 0)))


def test_a_tile_with_many_pairs_that_kill_goes_on_as_long_as_they_are_found() -> None:
    class Deadly(Players):
        left = 3 * (ATTEMPTS - 2)

        def wait(self) -> Sequence[Ended[int]]:
            position = self.lines["w0"].popleft()
            if position != 3 or not self.left:
                return [Ended("w0", position, position)]
            self.left -= 1
            settled = 3 - self.left // (ATTEMPTS - 2) - 1
            return [Ended("w0", position, None, died=True, settled=settled)]

    tiles = tiles_of(9)
    assert sorted(drive(tiles, Deadly(1, 0))) == list(range(len(tiles)))
    Deadly.left = 100
    with pytest.raises(SchedulerError, match="E_WORKER"):
        list(drive(tiles, Deadly(1, 0)))


def test_pairs_that_kill_one_after_the_other_end_the_run_unless_others_succeed() -> None:
    class Deadly(Players):
        good = False

        def wait(self) -> Sequence[Ended[int]]:
            position = self.lines["w0"].popleft()
            if self.given[position] <= 3:
                return [Ended("w0", position, None, died=True)]
            return [Ended("w0", position, position, in_vain=not (self.good and position % 5 == 0))]

    tiles = tiles_of(9)
    assert len(tiles) > 11
    with pytest.raises(SchedulerError, match="died 33 times over tiles in a row, the last"):
        list(drive(tiles, Deadly(1, 0)))
    Deadly.good = True
    assert sorted(drive(tiles, Deadly(1, 0))) == list(range(len(tiles)))


def test_a_stopped_run_gives_out_nothing_more() -> None:
    tiles, crew, done = tiles_of(12), Players(2, 1), []
    crew.deaths = 5
    done.extend(drive(tiles, crew, lambda: sum(crew.given.values()) >= 8))
    assert 8 <= len(done) == sum(crew.given.values()) < 8 + 2 * IN_FLIGHT


def test_workers_start_with_equal_shares_and_then_help_each_other() -> None:
    dispatch = Dispatch(np.full(100, 10))
    dispatch.share_out(["a", "b"])
    assert [dispatch.next_for("b"), dispatch.next_for("a"), dispatch.next_for("b")] == [50, 0, 51]
    while (position := dispatch.next_for("a")) != 49:  # all of its own run
        assert position is not None
    assert dispatch.next_for("a") == 76  # the second half of what b has left
    given = {dispatch.next_for(name) for name in "ab" * 50}
    assert len(given - {None}) == 47
    assert dispatch.is_empty


def test_what_a_lost_worker_had_goes_to_the_others() -> None:
    dispatch = Dispatch(np.ones(10, dtype=int))
    dispatch.share_out(["a", "b"])
    assert dispatch.next_for("a") == 0
    dispatch.again(0)
    dispatch.forget("a")
    assert [dispatch.next_for("b") for _ in range(11)] == [0, *range(5, 10), *range(1, 5), None]


@pytest.mark.parametrize(("workers", "at_hand"), [(1, 10), (3, 10), (3, 40)])
def test_simulated_time_adds_up(workers: int, at_hand: int) -> None:
    tiles = tiles_of(40, 4, panel_width(40, workers, at_hand))
    costs = Costs(pair_s=1.0, prepare_s=2.0, read_s=0.5, tile_s=0.25, subject_bytes=100)
    played = simulate(tiles, workers, costs, at_hand)
    work = tiles.n_pairs + 2.0 * played.subjects_read + 0.25 * len(tiles)
    assert played.elapsed_s >= work / workers
    assert played.elapsed_s * workers <= work + played.waiting_s + workers * 40
    assert played.efficiency == pytest.approx(tiles.n_pairs / workers / played.elapsed_s)
    assert played.subjects_read >= 40
    assert played.bytes_read == 100 * played.subjects_read


def test_more_at_hand_means_less_to_read() -> None:
    read = [
        simulate(tiles_of(60, 3, panel_width(60, 1, fit)), 1, Costs(pair_s=1), fit).subjects_read
        for fit in (6, 15, 30, 60)
    ]
    assert read == sorted(read, reverse=True)
    assert read[-1] == 60


def test_a_slow_store_makes_workers_wait() -> None:
    costs = Costs(pair_s=0.001, subject_bytes=1e6, machine_bytes_s=1e6)
    slow = simulate(tiles_of(40, 4), 2, costs, 10)
    assert slow.waiting_s > 0.5 * slow.elapsed_s
    assert slow.elapsed_s > 20
