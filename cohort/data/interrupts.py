"""Ctrl-C reaches every process of a terminal; only the one that drives the others answers it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def ctrl_c_held() -> Iterator[None]:
    """Answer Ctrl-C only after the block; threads and processes that it starts never hear it.

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
