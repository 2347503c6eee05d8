"""Signals that end a process: who of several answers them, and what they wait for."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ctrl_c_held() -> Iterator[None]:
    """Answer Ctrl-C only after the block; threads and processes that it starts never hear it.

    Ctrl-C reaches every process of a terminal; only the one that drives the others answers it.
    Processes that are interrupted while they start leave their parent waiting, and tracebacks.
    """
    resource_tracker.ensure_running()  # its start, with the first process, would undo the mask
    pressed: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    if in_main:
        signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what children inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main:
            signal.signal(signal.SIGINT, handler)
    if pressed:
        raise KeyboardInterrupt


@contextmanager
def endings_unwound() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, by an exception: ``SystemExit(128 + N)``.

    Outside the main thread, where none can be heard, it does nothing.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        sys.exit(128 + number)

    with _answered((signal.SIGTERM, signal.SIGHUP), end):
        yield


@contextmanager
def endings_held() -> Iterator[None]:
    """Answer Ctrl-C, SIGTERM and SIGHUP only after the block, the first of them as without it.

    For what must be done whole or not at all. It does nothing outside the main thread.
    """
    came: list[int] = []
    with _answered(ENDING, lambda number, _: came.append(number)):
        yield
    if came:
        signal.raise_signal(came[0])


@contextmanager
def _answered(
    numbers: tuple[signal.Signals, ...], answer: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    # what nohup has this process ignore stays ignored; None is a handler that is not Python's
    taken = {one: how for one, how in before.items() if how not in (None, signal.SIG_IGN)}
    for number in taken:
        signal.signal(number, answer)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
