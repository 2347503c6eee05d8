"""Ending a run early: a file that drivers and workers look for between pairs, and signals."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cohort.data.interrupts import ctrl_c_held
from cohort.data.storage import storage_error

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BY_FILE = signal.SIGINT  # whoever asks for it, it is a stop by hand


class Stopped(Exception):
    """The run was asked to stop; what is committed is kept, tiles at work are done again later."""

    def __init__(self, number: int = _BY_FILE) -> None:
        super().__init__(number)  # so that a worker can send it through pickle
        self.exit_code = 128 + number


def stop_path(run_dir: Path) -> Path:
    """The file that stops a run by being there."""
    return run_dir / "STOP"


def request_stop(run_dir: Path) -> None:
    """Have all that work on a run stop after the pair that they are at.

    Raises:
        StorageError: if the file cannot be made.
    """
    try:
        stop_path(run_dir).touch()
    except OSError as error:
        raise storage_error(stop_path(run_dir), error) from error


def forget_stop(run_dir: Path) -> None:
    """Take back what stopped an earlier driver."""
    try:
        stop_path(run_dir).unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(stop_path(run_dir), error) from error


def is_stopped(run_dir: Path) -> bool:
    """Whether the run is to stop."""
    return stop_path(run_dir).exists()


@contextmanager
def deaf_children() -> Iterator[None]:
    """Threads and processes that are started inside hear no signal; this process answers later.

    Ctrl-C, a closed terminal and a batch system tell every process of a run, and only its driver
    can end it in order. The children end with it in any case.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        with ctrl_c_held():  # it lets Python's helper process start, which undoes other masks
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def signals_answered(run_dir: Path) -> Iterator[list[int]]:
    """Make the first Ctrl-C, SIGTERM or SIGHUP a request to stop; Ctrl-C again ends at once.

    Yields the signals that came. Outside the main thread, where none can be heard, it does nothing.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def answer(number: int, frame: FrameType | None) -> None:
        del frame
        again = signal.SIGINT in came
        came.append(number)
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        request_stop(run_dir)

    # nohup has its processes ignore that the terminal closes
    is_closing_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    heard = [one for one in _SIGNALS if one != signal.SIGHUP or not is_closing_ignored]
    before = {number: signal.signal(number, answer) for number in heard}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
