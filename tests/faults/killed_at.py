"""A process that is killed at the n-th time that it asks the file system for something."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PATIENCE_S = 30.0
_FUNCTIONS = ("write", "fsync", "link", "unlink", "rename", "replace", "mkdir")


def survives(work: Callable[[], object], fatal: int) -> bool:
    """Do ``work`` in a fork of this process that gets SIGKILL instead of its n-th call.

    A write is torn: its first half reaches the file. Returns whether the fork came to its end.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _arm(fatal)
            work()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + _PATIENCE_S
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"call {fatal}: the work did not end within {_PATIENCE_S} s")
        time.sleep(0.005)
    status = done[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, f"call {fatal}: the work failed without being killed"
    return True


def _arm(fatal: int) -> None:
    calls, write = 0, os.write

    def count(tear: Callable[[], object] | None = None) -> None:
        nonlocal calls
        calls += 1
        if calls == fatal:
            if tear:
                tear()
            os.kill(os.getpid(), signal.SIGKILL)

    for name in _FUNCTIONS:
        plain = getattr(os, name)

        def counted(*args: Any, plain: Any = plain, **named: Any) -> Any:
            count()
            return plain(*args, **named)

        setattr(os, name, counted)

    def torn_write(descriptor: int, content: bytes) -> int:
        count(lambda: write(descriptor, content[: len(content) // 2]))
        return write(descriptor, content)

    os.write = torn_write
    open_ = Path.open

    def opened(self: Path, *args: Any, **named: Any) -> Any:
        file = open_(self, *args, **named)
        plain = file.write

        def torn(content: Any) -> int:
            def tear() -> None:
                plain(content[: len(content) // 2])
                file.flush()

            count(tear)
            return plain(content)

        if not file.writable():
            return file
        return _Writing(file, torn)

    Path.open = opened  # pyright: ignore[reportAttributeAccessIssue]


class _Writing:
    """A file whose ``write`` is another one: those of the system take no attributes."""

    def __init__(self, file: Any, write: Callable[[Any], int]) -> None:
        self._file, self.write = file, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Writing":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
