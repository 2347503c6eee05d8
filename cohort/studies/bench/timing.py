"""Times by one protocol: the device waited for, wall and processor, median and quartiles."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch


class Spread(NamedTuple):
    """Of repeats: the middle one, and the quarters below and above (linear between two)."""

    median: float
    q1: float
    q3: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles.

    Raises:
        ValueError: if there are none.
    """
    if not values:
        raise ValueError("spread: needs at least one repeat, got none")
    low, median, high = np.quantile(np.array(values, dtype=np.float64), [0.25, 0.5, 0.75])
    return Spread(float(median), float(low), float(high))


@dataclass
class Stopwatch:
    """Seconds of each kind of work, a list a kind; the device is waited for at both ends.

    Attributes:
        device: that works.
        wall, processor: seconds of each time, by kind; processor time is of all threads.
    """

    device: torch.device
    wall: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Note the time spent inside."""
        wait_for(self.device)
        start, start_cpu = time.perf_counter(), time.process_time()
        yield
        wait_for(self.device)
        self.wall.setdefault(kind, []).append(time.perf_counter() - start)
        self.processor.setdefault(kind, []).append(time.process_time() - start_cpu)


def repeated(call: Callable[[], object], device: torch.device, repeats: int) -> Stopwatch:
    """Times of a call, kind ``call``, after one that is apart: it may compile or load."""
    call()
    watch = Stopwatch(device)
    for _ in range(repeats):
        with watch.timed("call"):
            call()
    return watch


def wait_for(device: torch.device) -> None:
    """Until all that was asked of a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
