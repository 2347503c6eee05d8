"""F6, F19: disks that are full, and stores and run folders that fail or vanish: no row is made."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from fault_runs import assert_whole, ended, parts, planned, start, wait_until
from stub_method import stub_cohort

from cohort.data.store import CohortStore
from cohort.engine import patience
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.engine.verify import verify
from cohort.errors import StorageError

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("stub")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", folder]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(command).returncode:
        pytest.skip("a small disk needs root and mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_stops_the_run_which_goes_on_with_room(
    twelve: CohortStore, undisturbed: pl.DataFrame, small_disk: Path
) -> None:
    run_dir = planned(small_disk / "run", twelve)
    ballast = small_disk / "ballast"
    free = shutil.disk_usage(small_disk).free
    ballast.write_bytes(bytes(free - 160 * 1024))
    with pytest.raises(StorageError, match=r"No space left on device; \d+ bytes are free") as full:
        run(run_dir, twelve)
    assert full.value.exit_code == 4
    committed = len(parts(run_dir))
    assert 0 < committed < 10
    assert not list(run_dir.glob("parts/.tmp-*"))
    assert not verify(run_dir).findings
    ballast.unlink()
    report = run(run_dir, twelve)
    assert report.already_done > 0
    assert_whole(run_dir, undisturbed)


@pytest.mark.parametrize("what", ["part", "crumbs", "events", "lock"])
def test_no_space_anywhere_in_the_run_is_told_and_leaves_no_wrong_row(
    twelve: CohortStore,
    undisturbed: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    run_dir = planned(tmp_path / "run", twelve)
    with monkeypatch.context() as patch:
        patch.setattr(patience, "_BACK_OFF_S", 0.0)
        if what == "crumbs":
            patch.setattr(os, "write", _full)
        elif what == "part":
            patch.setattr(os, "link", _full)
        else:
            name = {"events": "events.jsonl", "lock": "run.lock"}[what]
            patch.setattr(Path, "open", _full_at(name))
        with pytest.raises(StorageError, match="No space left on device"):
            run(run_dir, twelve)
    run(run_dir, twelve)
    assert_whole(run_dir, undisturbed)


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _full_at(name: str) -> Callable[..., object]:
    open_ = Path.open

    def opened(self: Path, *args: object, **named: object) -> object:
        return _full() if self.name == name else open_(self, *args, **named)  # pyright: ignore

    return opened


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOTCONN])
def test_a_store_that_cannot_be_read_stops_the_run_and_fails_no_pair(
    twelve: CohortStore,
    undisturbed: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    run_dir = planned(tmp_path / "run", twelve)
    calls = 0

    def broken(*_: object) -> None:
        nonlocal calls
        calls += 1
        raise OSError(number, os.strerror(number), "some/file")

    with monkeypatch.context() as patch:
        patch.setattr(patience, "_BACK_OFF_S", 0.0)
        patch.setattr(CohortStore, "record", broken)
        with pytest.raises(StorageError, match=os.strerror(number)) as stopped:
            run(run_dir, twelve)
    assert stopped.value.exit_code == 4
    assert not parts(run_dir)
    run(run_dir, twelve)
    assert_whole(run_dir, undisturbed)


def test_a_store_that_fails_for_a_moment_is_asked_once_more(
    twelve: CohortStore,
    undisturbed: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_dir, read, failures = planned(tmp_path / "run", twelve), CohortStore.read, set()

    def flaky(self: CohortStore, subject_id: str):
        if subject_id not in failures:
            failures.add(subject_id)
            raise StorageError("E_STORAGE", "for a moment")
        return read(self, subject_id)

    monkeypatch.setattr(patience, "_BACK_OFF_S", 0.0)
    monkeypatch.setattr(CohortStore, "read", flaky)
    # two subjects of a pair fail one after the other, which is twice within a pair: stop, go on
    for _ in range(20):
        try:
            run(run_dir, twelve)
        except StorageError:
            continue
        break
    assert len(failures) == 12
    assert_whole(run_dir, undisturbed)


@pytest.mark.slow
def test_a_store_that_is_taken_away_ends_the_run_with_4(
    undisturbed: pl.DataFrame, tmp_path: Path
) -> None:
    store = stub_cohort(tmp_path / "cohort.zarr", 12)
    run_dir = planned(tmp_path / "run", store)
    driver = start(store, run_dir, slow=(0.05, 0.1))
    wait_until(lambda: parts(run_dir))
    store.path.rename(tmp_path / "elsewhere")
    code, err = ended(driver)
    assert code == 4, err
    assert "is it still mounted?" in err
    assert set(read_rows(run_dir)["status"]) == {"ok"}
    (tmp_path / "elsewhere").rename(store.path)
    run(run_dir, store)
    assert_whole(run_dir, undisturbed)
