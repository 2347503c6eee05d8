"""F5: pairs that kill their process, never end, take all memory or raise: a row each, no more."""

from pathlib import Path

import polars as pl
import pytest
from fault_runs import assert_whole, decided, ended, planned, start

from cohort.data.store import CohortStore
from cohort.engine.events import read_events
from cohort.engine.results import read_rows

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("stub")]
# a pair of each kind, no two of them in one tile
POISON = {
    "00 01": ("kill", "E_CRASH", "died while it was at work on this pair, three times"),
    "00 04": ("segfault", "E_CRASH", "--retry-failed"),
    "00 07": ("exit", "E_CRASH", "three times"),
    "00 10": ("lost", "E_CRASH", "three times"),
    "03 10": ("hang", "E_TIMEOUT", "longer than a pair may take"),
    "04 05": ("memory", "E_OOM", "not enough memory"),
    "06 07": ("raise", "E_METHOD", "ValueError: no such voxel"),
}


@pytest.mark.slow
def test_a_poison_pair_costs_its_own_row_and_is_tried_again_on_request(
    twelve: CohortStore, undisturbed: pl.DataFrame, tmp_path: Path
) -> None:
    run_dir = planned(tmp_path / "run", twelve)
    poison = {pair: kind for pair, (kind, _, _) in POISON.items()}
    code, err = ended(start(twelve, run_dir, "--pair-timeout", 1.5, poison=poison), 240)
    assert code == 1, err
    rows = read_rows(run_dir)
    failed = rows.filter(pl.col("status") != "ok")
    found = {
        f"{fixed[-2:]} {moving[-2:]}": (status, message)
        for fixed, moving, status, message in failed.select(
            "fixed", "moving", "status", "message"
        ).iter_rows()
    }
    assert found.keys() == POISON.keys()
    for pair, (_, status, words) in POISON.items():
        assert found[pair][0] == status
        assert words in found[pair][1]
    # three deaths of each of four pairs and that of the one which does not end: a tile that is in
    # line beside all of them is given out once more than that
    assert rows["attempt"].max() <= 14
    assert "run_finished" in {event["event"] for event in read_events(run_dir)}
    assert_others_same(run_dir, undisturbed)
    # what killed is gone now, and --retry-failed makes these rows good
    code, err = ended(start(twelve, run_dir, "--retry-failed", workers=1))
    assert code == 0, err
    assert_whole(run_dir, undisturbed)
    assert not list(run_dir.glob("replaced/*"))


def assert_others_same(run_dir: Path, undisturbed: pl.DataFrame) -> None:
    rows = decided(run_dir)
    good = rows.filter(pl.col("status") == "ok")
    assert good.equals(undisturbed.join(good.select("pair_key"), on="pair_key", how="semi"))
    assert len(rows) == len(undisturbed)
