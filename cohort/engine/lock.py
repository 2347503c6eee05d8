"""One driver a run: a lock that the system lets go of, and that expires where it does not.

``run.lock`` names its holder. Its holder has locked it with ``flock`` and touches it every 30 s:
the first ends with the process, the second is what other machines and file systems without
``flock`` have. Two drivers would lose nothing and commit nothing twice, as parts are exclusive, but
they would do all work twice.
"""

import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import psutil

from cohort.data.storage import TEMPORARY, storage_error, write_atomic
from cohort.errors import RunActiveError

_HEARTBEAT_S = 30.0
_EXPIRES_S = 300.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}


@dataclass(frozen=True, eq=False)
class Lease:
    """The right to drive a run.

    Attributes:
        run_dir: the run.
        epoch: a number that no other driver of the run has.
        stolen: whether it was taken from a driver that may still be alive.
    """

    run_dir: Path
    epoch: int
    stolen: bool
    _file: TextIOWrapper

    def check(self) -> None:
        """Raise ``RunActiveError``, ``E_ACTIVE``, if another driver has taken over."""
        path = self.run_dir / "run.lock"
        if not _is_at(self._file, path):
            holder = _holder(_read(path))
            message = f"{self.run_dir} was taken over by {holder}; this driver leaves it"
            raise RunActiveError("E_ACTIVE", message)


@contextmanager
def only_driver(
    run_dir: Path, *, steal: bool = False, advice: str | None = None
) -> Iterator[Lease]:
    """Hold the run's lock inside; its end, or that of this process, lets go of it.

    Args:
        run_dir: the run.
        steal: take it from a driver that holds it; that one stops when it notices.
        advice: what to do about one that holds it; None for what can be done about a run's.

    Raises:
        RunActiveError: ``E_ACTIVE`` if another driver holds it.
        StorageError: if the lock cannot be written.
    """
    path = run_dir / "run.lock"
    try:
        file, stolen = _taken(path, steal=steal, advice=advice)
        epoch = _next_epoch(run_dir)
        _write(file, {**_myself(), "epoch": epoch})
    except OSError as error:
        raise storage_error(path, error) from error
    with file:
        lease, over = Lease(run_dir, epoch, stolen, file), threading.Event()
        threading.Thread(target=_beat, args=(file, over), name="heartbeat", daemon=True).start()
        try:
            yield lease
        finally:
            over.set()
            if _is_at(file, path):
                _write(file, {**_myself(), "epoch": epoch, "free": True})


def _taken(path: Path, *, steal: bool, advice: str | None) -> tuple[TextIOWrapper, bool]:
    """The lock's file, held by this process, and whether somebody else was made to let go."""
    while True:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("a+"))
            got = _flock(file)
            if not _is_at(file, path):  # replaced since it was opened
                continue
            record = _read(path)
            left_s = _EXPIRES_S - _age_s(path)
            active = _is_active(got, record, left_s)
            if active and not steal:
                raise RunActiveError("E_ACTIVE", _refusal(path.parent, record, left_s, advice))
            if not active and got is not False:
                stack.pop_all()
                return file, False
        return _replaced(path), True


def _is_active(got: bool | None, record: dict[str, Any], left_s: float) -> bool:
    """Whether the holder that a lock names is at work.

    ``got`` says whether ``flock`` was granted; None where there is no such thing.
    """
    is_here = record.get("boot_id") == _boot_id() and record.get("host") == socket.gethostname()
    if got is False:
        return is_here or "boot_id" not in record or left_s > 0
    if record.get("free") or "boot_id" not in record:
        return False
    if not is_here:  # on some network file systems flock does not reach other machines
        return left_s > 0 and (got is None or record["boot_id"] != _boot_id())
    return got is None and _is_alive(record)


def _refusal(run_dir: Path, record: dict[str, Any], left_s: float, advice: str | None) -> str:
    advice = (
        advice or f"wait for it, end it with `cohort stop {run_dir}`, or take over with --steal"
    )
    if record.get("boot_id", _boot_id()) != _boot_id():
        advice += f" (if it is gone, its lock expires in {max(left_s, 0):.0f} s)"
    return f"{run_dir} is being worked on by {_holder(record)}; {advice}"


def _holder(record: dict[str, Any]) -> str:
    if "pid" not in record:
        return record.get("text") or "another process"
    return f"process {record['pid']} on {record['host']} since {record['since']}"


def _replaced(path: Path) -> TextIOWrapper:
    """A new lock in the place of one whose holder cannot be asked to let go."""
    fresh = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    file = fresh.open("a+")
    _flock(file)
    _write(file, _myself())  # before: whoever held it may look at any time
    fresh.replace(path)
    return file


def _flock(file: TextIOWrapper) -> bool | None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return None
        raise
    return True


def _is_at(file: TextIOWrapper, path: Path) -> bool:
    """Whether an open file is the one at ``path``; one that was deleted has no new owner."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return os.fstat(file.fileno()).st_nlink == 0


def _beat(file: TextIOWrapper, over: threading.Event) -> None:
    while not over.wait(_HEARTBEAT_S):
        try:
            os.utime(file.fileno())
        except (OSError, ValueError):  # the driver itself will meet the fault
            continue


def _age_s(path: Path) -> float:
    """Since the last heartbeat, by the clock of the file system."""
    probe = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink()


def _write(file: TextIOWrapper, record: dict[str, Any]) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(record) + "\n")
    file.flush()


def _read(path: Path) -> dict[str, Any]:
    text = path.read_text(errors="replace").strip()
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    return record if isinstance(record, dict) else {"text": text}


def _next_epoch(run_dir: Path) -> int:
    path = run_dir / "epoch"
    try:
        last = int(path.read_bytes())
    except FileNotFoundError:
        last = 0
    except ValueError:  # damaged: a number that no count reaches
        last = int(time.time())
    write_atomic(path, f"{last + 1}\n".encode())
    return last + 1


def _myself() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "boot_id": _boot_id(),
        "process_start": psutil.Process().create_time(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _is_alive(record: dict[str, Any]) -> bool:
    try:
        return psutil.Process(record["pid"]).create_time() == record["process_start"]
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def _boot_id() -> str:
    """Which start of which machine this is."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"
