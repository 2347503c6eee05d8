"""A pair that does not come to its end: a thread that watches, and ends the worker process."""

import faulthandler
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_CODE = 86
_LEAST_S = 120.0  # by default
_TIMES_MEDIAN = 20.0
_REMEMBERED = 101  # pairs
_DEAF_LEAST_S = 10.0  # a process that is suspended for less is not taken for one that is stuck


def end_when_deaf(within_s: float | None) -> None:
    """End this process unless this is called again in time; None ends nothing any more.

    The timer lives outside of Python, and thus also runs where something holds Python's lock. It
    says on stderr where the process was stuck.
    """
    faulthandler.cancel_dump_traceback_later()
    if within_s is not None and sys.__stderr__ is not None:
        faulthandler.dump_traceback_later(within_s, exit=True, file=sys.__stderr__)


class Watchdog:
    """Ends this process when a pair takes far longer than those before it; for workers only.

    Nothing less would do: a thread within a kernel or a loop cannot be stopped. Time in which the
    whole process was suspended does not count, but for one long suspension. A pair that holds
    Python's lock stops this thread too: a timer outside of Python, which this thread puts off,
    then ends the process.

    Args:
        pair_timeout_s: how long a pair may take; None for 20 times the median of those before it,
            and at least 120 s.
        end: what ends the process; tests give another one.
        deaf: what ends it where this thread cannot, see :func:`end_when_deaf`.
    """

    def __init__(
        self,
        pair_timeout_s: float | None = None,
        end: Callable[[int], object] = os._exit,
        deaf: Callable[[float | None], object] = end_when_deaf,
    ) -> None:
        self._pair_timeout_s = pair_timeout_s
        self._end, self._deaf = end, deaf
        self._tick_s = 1.0 if pair_timeout_s is None else min(1.0, pair_timeout_s / 10)
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._lock = threading.Lock()
        self._watched: tuple[float, Callable[[], None]] | None = None
        self._waited_s = 0.0
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @property
    def limit_s(self) -> float:
        """How long the next pair may take."""
        if self._pair_timeout_s is not None:
            return self._pair_timeout_s
        usual = statistics.median(self._seconds) if self._seconds else 0.0
        return max(_LEAST_S, _TIMES_MEDIAN * usual)

    @contextmanager
    def watching(self, pairs: int, on_timeout: Callable[[], None]) -> Iterator[None]:
        """Watch over the work on so many pairs at once; ``on_timeout`` is called before the end."""
        start = time.perf_counter()
        with self._lock:
            self._watched, self._waited_s = (pairs * self.limit_s, on_timeout), 0.0
            self._put_off()
        try:
            yield
        finally:
            with self._lock:
                self._watched = None
                self._put_off()
            self._seconds.append((time.perf_counter() - start) / pairs)

    def _put_off(self) -> None:
        """Set the timer outside of Python again, or stop it; the lock is held."""
        self._deaf(None if self._watched is None else max(self._watched[0], _DEAF_LEAST_S))

    def _watch(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(self._tick_s)
            now = time.monotonic()
            with self._lock:
                # a process that was stopped was not at work
                self._waited_s += min(now - last, 2 * self._tick_s)
                if self._watched is not None and self._waited_s > self._watched[0]:
                    self._watched[1]()
                    self._end(EXIT_CODE)
                    self._watched = None
                if self._watched is not None:
                    self._put_off()
            last = now
