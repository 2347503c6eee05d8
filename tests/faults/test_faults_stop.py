"""F17, F18: runs that are asked to stop, by a signal or a file, and workers that are suspended."""

import json
import os
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar

import polars as pl
import pytest
from command_line import Cohort
from fault_runs import assert_whole, ended, gone, parts, planned, start, wait_until, workers_of

from cohort.data.store import CohortStore
from cohort.engine.cluster.local import closed_in_time
from cohort.engine.events import read_events
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.engine.stop import Stopped, request_stop, stop_path
from cohort.engine.verify import verify

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("stub")]
_SAID = "stopped; the same command goes on from here"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "whole_group"),
    [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGTERM, False), (signal.SIGHUP, True)],
    ids=["Ctrl-C", "scancel", "kill", "terminal closed"],
)
def test_a_signal_ends_the_run_after_the_pairs_at_work(
    twelve: CohortStore,
    undisturbed: pl.DataFrame,
    tmp_path: Path,
    number: signal.Signals,
    whole_group: bool,
) -> None:
    run_dir = planned(tmp_path / "run", twelve)
    driver = start(twelve, run_dir, slow=(0.1, 0.2))
    wait_until(lambda: parts(run_dir))
    workers = workers_of(driver)
    assert workers
    (os.killpg if whole_group else os.kill)(driver.pid, number)
    code, err = ended(driver, 15)
    assert code == 128 + number, err
    assert err.rstrip().endswith(_SAID)
    assert "Traceback" not in err
    assert gone(workers)
    assert 0 < len(parts(run_dir)) < 22
    assert read_events(run_dir)[-1]["event"] == "run_stopped"
    before = {path.name: path.stat().st_mtime_ns for path in parts(run_dir)}
    run(run_dir, twelve)
    after = {path.name: path.stat().st_mtime_ns for path in parts(run_dir)}
    assert after.items() > before.items()
    assert_whole(run_dir, undisturbed)


@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once_though_a_pair_does_not(
    twelve: CohortStore, tmp_path: Path
) -> None:
    run_dir = planned(tmp_path / "run", twelve)
    driver = start(twelve, run_dir, poison={"00 03": "hang"})
    wait_until(lambda: parts(run_dir))
    time.sleep(2)
    workers = workers_of(driver)
    os.killpg(driver.pid, signal.SIGINT)
    time.sleep(1.5)
    assert driver.poll() is None  # it waits for the pair
    os.killpg(driver.pid, signal.SIGINT)
    pressed = time.monotonic()
    code, err = ended(driver, 15)
    assert time.monotonic() - pressed < 5
    assert code == 130, err
    assert _SAID in err
    assert gone(workers)


@pytest.mark.slow
def test_a_suspended_worker_is_no_dead_one(
    twelve: CohortStore, undisturbed: pl.DataFrame, tmp_path: Path
) -> None:
    run_dir = planned(tmp_path / "run", twelve)
    driver = start(twelve, run_dir, "--pair-timeout", 2, slow=(0.02, 0.04))
    wait_until(lambda: parts(run_dir))
    worker = workers_of(driver)[0]
    worker.suspend()
    time.sleep(5)
    worker.resume()
    code, err = ended(driver)
    assert code == 0, err
    assert_whole(run_dir, undisturbed)


@pytest.mark.slow
def test_a_pair_that_holds_pythons_lock_is_ended_from_outside_of_python(
    twelve: CohortStore, tmp_path: Path
) -> None:
    run_dir = planned(tmp_path / "run", twelve)
    code, err = ended(start(twelve, run_dir, "--pair-timeout", 1, poison={"00 03": "hold"}))
    assert code == 1, err
    rows = read_rows(run_dir)
    assert len(rows) == 132
    failed = rows.filter(pl.col("status") != "ok")
    assert failed["status"].to_list() == ["E_CRASH"]
    assert failed["fixed"].to_list() == ["sub-00"]


@pytest.mark.slow
@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_jumped_spoils_neither_the_run_nor_what_is_said_of_it(
    twelve: CohortStore, undisturbed: pl.DataFrame, tmp_path: Path, cohort: Cohort, days: int
) -> None:
    run_dir = planned(tmp_path / "run", twelve)
    run(run_dir, twelve)
    parts(run_dir)[0].unlink()  # a tile that is done after the jump
    jump = timedelta(days=days)
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    for event in events:
        event["time"] = (datetime.fromisoformat(event["time"]) - jump).isoformat()
    (run_dir / "events.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in events))
    then = time.time() - jump.total_seconds()
    for path in run_dir.rglob("*"):
        os.utime(path, (then, then))
    run(run_dir, twelve)
    assert_whole(run_dir, undisturbed)
    assert not verify(run_dir).findings
    status = cohort("status", run_dir)
    assert (status.code, "132" in status.out) == (0, True)
    assert cohort("report", run_dir).code == 0
    assert " -" not in status.out


class NeverCloses:
    """A cluster that waits for ever for a worker, as Dask's may if one died just before."""

    workers: ClassVar[dict[str, object]] = {}
    shutdown_on_close = True

    def close(self, timeout: float) -> None:
        assert 0 < timeout < 20
        raise TimeoutError


@pytest.mark.slow
def test_a_cluster_that_does_not_close_holds_nobody_up() -> None:
    cluster = NeverCloses()
    with closed_in_time(cluster):  # pyright: ignore[reportArgumentType]
        pass
    assert not cluster.shutdown_on_close
    with pytest.raises(KeyboardInterrupt), closed_in_time(cluster):  # pyright: ignore
        raise KeyboardInterrupt


def test_a_stop_file_ends_a_plain_loop_between_two_pairs(
    twelve: CohortStore, undisturbed: pl.DataFrame, tmp_path: Path
) -> None:
    run_dir = planned(tmp_path / "run", twelve)
    tiles = 0

    def stop_after_two(*_: object) -> None:
        nonlocal tiles
        tiles += 1
        if tiles == 3:
            request_stop(run_dir)

    with pytest.raises(Stopped) as stopped:
        run(run_dir, twelve, progress=stop_after_two)
    assert stopped.value.exit_code == 130
    assert len(parts(run_dir)) == 2
    assert stop_path(run_dir).exists()
    run(run_dir, twelve)
    assert not stop_path(run_dir).exists()
    assert_whole(run_dir, undisturbed)
