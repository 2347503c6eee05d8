"""F1, F2: worker processes and drivers that are killed at random, again and again."""

import random
import time
from pathlib import Path

import polars as pl
import psutil
import pytest
from fault_runs import assert_whole, ended, planned, start, wait_until, workers_of

from cohort.data.store import CohortStore
from cohort.engine.events import read_events
from cohort.engine.verify import verify

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("stub")]
_WORKERS = 4  # killed, of each seed


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_killed_every_pair_has_one_row_and_the_same_bits(
    twelve: CohortStore, undisturbed: pl.DataFrame, tmp_path: Path, seed: int
) -> None:
    run_dir, source = planned(tmp_path / "run", twelve), random.Random(seed)
    drivers = workers = starts = 0
    while True:
        driver = start(twelve, run_dir, slow=(0.005, 0.02))
        starts += 1
        wait_until(lambda driver=driver: driver.poll() is not None or workers_of(driver))
        ends = time.monotonic() + source.uniform(5, 9) if drivers < 1 + seed % 2 else float("inf")
        strikes = time.monotonic() + source.uniform(4, 7)
        while driver.poll() is None:
            time.sleep(0.02)
            if time.monotonic() > ends:
                driver.kill()
                drivers += 1
                break
            if time.monotonic() > strikes and workers < _WORKERS:
                workers += _kill_one(workers_of(driver), source)
                strikes = time.monotonic() + source.uniform(0.5, 2)
        code, err = ended(driver)
        if code == 0:
            break
        # one that is killed before it has started is told as such, and the command goes on
        assert code == -9 or (code == 5 and "cannot be started" in err), err
        assert starts < 10
    print(f"seed {seed}: {drivers} drivers and {workers} workers killed")  # noqa: T201
    assert workers
    assert_whole(run_dir, undisturbed)
    assert not verify(run_dir).findings
    assert {event["epoch"] for event in read_events(run_dir) if event["event"] == "run_started"}


def _kill_one(found: list[psutil.Process], source: random.Random) -> int:
    if not found:
        return 0
    source.choice(found).kill()
    return 1
