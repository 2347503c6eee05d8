"""F4: two drivers on one run; locks of the dead, of other machines, and where flock is not."""

import errno
import fcntl
import json
import os
import time
from pathlib import Path

import polars as pl
import pytest
from fault_runs import assert_whole, ended, parts, planned, start, wait_until

from cohort.data.store import CohortStore
from cohort.engine import lock
from cohort.engine.lock import only_driver
from cohort.engine.run import DriverOptions, run
from cohort.errors import RunActiveError, StorageError

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("stub")]


@pytest.mark.slow
def test_a_second_driver_is_refused_and_a_thief_loses_nothing(
    twelve: CohortStore, undisturbed: pl.DataFrame, tmp_path: Path
) -> None:
    run_dir = planned(tmp_path / "run", twelve)
    first = start(twelve, run_dir, slow=(0.1, 0.2))
    wait_until(lambda: parts(run_dir))
    with pytest.raises(RunActiveError, match=f"worked on by process {first.pid} on .* since 20"):
        run(run_dir, twelve)
    report = run(run_dir, twelve, options=DriverOptions(steal=True))
    code, err = ended(first)
    assert code == 3, err
    assert f"was taken over by process {os.getpid()}" in err
    assert report.pairs < 132
    assert_whole(run_dir, undisturbed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def held_by(folder: Path, age_s: float = 0.0, **facts: object) -> Path:
    path = folder / "run.lock"
    path.write_text(json.dumps({"host": "node7", "pid": 1, "since": "2026", **facts}))
    os.utime(path, (time.time() - age_s, time.time() - age_s))
    return path


def test_each_driver_has_an_epoch_of_its_own(folder: Path) -> None:
    epochs = []
    for _ in range(3):
        with only_driver(folder) as lease:
            epochs.append(lease.epoch)
    (folder / "epoch").write_bytes(b"\0")  # damaged
    with only_driver(folder) as lease:
        epochs.append(lease.epoch)
    assert epochs[:3] == [1, 2, 3]
    assert epochs[3] > 10**9


def test_the_lock_of_another_machine_expires(folder: Path) -> None:
    held_by(folder, age_s=200, boot_id="another")
    with pytest.raises(RunActiveError, match=r"process 1 on node7.*expires in \d+ s"):
        only_driver(folder).__enter__()
    held_by(folder, age_s=301, boot_id="another")
    with only_driver(folder):
        pass
    held_by(folder, boot_id="another", free=True)
    with only_driver(folder) as lease:
        assert not lease.stolen


def test_without_flock_the_process_of_this_machine_is_looked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with (
        only_driver(folder),
        pytest.raises(RunActiveError, match=f"process {os.getpid()} on"),
    ):
        only_driver(folder).__enter__()
    with only_driver(folder):
        pass
    dead = {**lock._myself(), "pid": 2**22 + 1}
    held_by(folder, **dead)
    with only_driver(folder):
        pass


def test_a_heartbeat_keeps_the_lock_young(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_HEARTBEAT_S", 0.02)
    with only_driver(folder):
        os.utime(folder / "run.lock", (0, 0))
        wait_until(lambda: time.time() - (folder / "run.lock").stat().st_mtime < 60, 2)


def test_a_driver_whose_lock_was_taken_knows(folder: Path) -> None:
    with only_driver(folder) as first:
        first.check()
        with only_driver(folder, steal=True) as second:
            assert (second.epoch, second.stolen) == (first.epoch + 1, True)
            with pytest.raises(RunActiveError, match="was taken over by process"):
                first.check()
            second.check()
        with pytest.raises(RunActiveError):
            first.check()
    with only_driver(folder) as third:  # the first did not free what is no longer its own
        assert third.epoch == 3


def test_a_folder_that_cannot_be_written_is_said(folder: Path, monkeypatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", refused)
    with pytest.raises(StorageError, match="Read-only file system"):
        only_driver(folder).__enter__()
