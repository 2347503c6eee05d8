"""F18: a scheduler that others started, and that dies: the driver says so and ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fault_runs import assert_whole, ended, parts, planned, start, wait_until

from cohort.data.store import CohortStore
from cohort.engine.run import run

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("stub")]
_STUB = Path(__file__).with_name("stub_driver.py")


@contextmanager
def scheduler_and_worker(folder: Path, **stub: object) -> Iterator[subprocess.Popen[bytes]]:
    """Dask's own commands, on the loopback address alone; yields the scheduler."""
    file = folder / "scheduler.json"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    where = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    paths = os.pathsep.join([str(_STUB.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "STUB": json.dumps(stub), "PYTHONPATH": paths}
    quiet["start_new_session"] = True
    scheduler = subprocess.Popen([*dask, "scheduler", *where, "--port", "0"], **quiet)
    options = ["--nthreads", "1", "--preload", str(_STUB), "--death-timeout", "10"]
    worker = subprocess.Popen([*dask, "worker", *where, *options], env=environment, **quiet)
    try:
        wait_until(file.exists)
        yield scheduler
    finally:
        for process in (scheduler, worker):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_scheduler_that_dies_ends_the_run_with_5(
    twelve: CohortStore, undisturbed: pl.DataFrame, tmp_path: Path
) -> None:
    run_dir = planned(tmp_path / "run", twelve)
    with scheduler_and_worker(tmp_path, slow=(0.1, 0.2)) as scheduler:
        file = tmp_path / "scheduler.json"
        driver = start(twelve, run_dir, "--scheduler-file", file, workers=None)
        wait_until(lambda: parts(run_dir))
        os.killpg(scheduler.pid, signal.SIGKILL)
        code, err = ended(driver, 60)
    assert code == 5, err
    assert "E_SCHEDULER" in err
    assert "the same command goes on from here" in err
    run(run_dir, twelve)
    assert_whole(run_dir, undisturbed)
