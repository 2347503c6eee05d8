"""A pair that does not come to its end ends its process; one that is only slow does not."""

import threading
import time

from cohort.engine.watchdog import EXIT_CODE, Watchdog


class Ends:
    """What a watchdog did, in the place of the end of the process."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.put_off: list[float | None] = []
        self.done = threading.Event()

    def mark(self) -> None:
        self.said.append("mark")

    def deaf(self, within_s: float | None) -> None:
        self.put_off.append(within_s)

    def end(self, code: int) -> None:
        self.said.append(code)
        self.done.set()


def test_a_pair_that_takes_too_long_is_marked_and_then_the_process_ends() -> None:
    ends = Ends()
    dog = Watchdog(0.1, ends.end, ends.deaf)
    with dog.watching(1, ends.mark):
        assert ends.done.wait(5)
    assert ends.said == ["mark", EXIT_CODE]


def test_pairs_in_time_and_the_time_between_them_are_nobodys_end() -> None:
    ends = Ends()
    dog = Watchdog(0.3, ends.end, ends.deaf)
    for _ in range(5):
        with dog.watching(1, ends.mark):
            time.sleep(0.1)
    time.sleep(0.5)
    assert ends.said == []


def test_a_batch_has_the_time_of_all_its_pairs() -> None:
    ends = Ends()
    dog = Watchdog(0.2, ends.end, ends.deaf)
    with dog.watching(4, ends.mark):
        time.sleep(0.5)
    assert ends.said == []


def test_the_timer_outside_of_python_is_put_off_while_this_thread_runs_and_stopped_after() -> None:
    ends = Ends()
    dog = Watchdog(20, ends.end, ends.deaf)
    with dog.watching(3, ends.mark):
        while len(ends.put_off) < 2:  # by its thread
            time.sleep(0.05)
    *before, last = ends.put_off
    assert set(before) == {60}
    assert last is None


def test_the_limit_follows_the_pairs_before_it() -> None:
    dog = Watchdog()
    assert dog.limit_s == 120
    dog._seconds.extend([1.0, 10.0, 100.0])
    assert dog.limit_s == 200
    assert Watchdog(7).limit_s == 7
