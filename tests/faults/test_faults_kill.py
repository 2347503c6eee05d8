"""F1, F2: worker processes and drivers that are killed at random, again and again."""

import random
from pathlib import Path

import polars as pl
import pytest
from fault_runs import assert_whole, drawn_strikes, ended, planned, start, strike

from cohort.data.store import CohortStore
from cohort.engine.events import read_events
from cohort.engine.verify import verify

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("stub")]


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_killed_every_pair_has_one_row_and_the_same_bits(
    twelve: CohortStore, undisturbed: pl.DataFrame, tmp_path: Path, seed: int
) -> None:
    run_dir, source = planned(tmp_path / "run", twelve), random.Random(seed)
    strikes = drawn_strikes(source, workers=4, drivers=1 + seed % 2)
    print(f"seed {seed}: to be killed after so many parts: {strikes}")  # noqa: T201
    for _ in range(10):
        driver = start(twelve, run_dir, slow=(0.02, 0.08))
        strike(driver, run_dir, strikes, source)
        code, err = ended(driver)
        if code == 0:
            break
        # one that is killed before it has started is told as such, and the command goes on
        assert code == -9 or (code == 5 and "cannot be started" in err), err
    assert not strikes
    assert_whole(run_dir, undisturbed)
    assert not verify(run_dir).findings
    epochs = [one["epoch"] for one in read_events(run_dir) if one["event"] == "run_started"]
    assert epochs
    assert len(set(epochs)) == len(epochs)  # each driver has its own
