"""F3: a process that is killed at every step of planning, committing, compacting and retrying."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from fault_runs import assert_whole, decided, planned
from killed_at import survives
from stub_method import stub_cohort

from cohort.data.store import CohortStore
from cohort.engine.compaction import compact
from cohort.engine.lock import only_driver
from cohort.engine.results import read_rows
from cohort.engine.run import DriverOptions, run
from cohort.engine.verify import verify

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("stub")]
RETRY = DriverOptions(retry_failed=True)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    return stub_cohort(tmp_path_factory.mktemp("three") / "cohort.zarr", 3)


@pytest.fixture
def good(three: CohortStore, tmp_path: Path) -> pl.DataFrame:
    run(planned(tmp_path / "good", three, 2), three)
    return decided(tmp_path / "good")


def killed_everywhere(
    before: Path | None, folder: Path, work: Callable[[Path], object], check: Callable[[Path], None]
) -> int:
    """Do ``work`` on a copy of a run, killed at each of its steps; returns how many there are."""
    fatal = 0
    while True:
        fatal += 1
        run_dir = folder / f"{fatal}"
        if before:
            shutil.copytree(before, run_dir)
        ended = survives(lambda run_dir=run_dir: work(run_dir), fatal)
        try:
            check(run_dir)
        except Exception as error:
            raise AssertionError(f"killed at step {fatal}") from error
        shutil.rmtree(run_dir)
        if ended:
            return fatal - 1


@pytest.mark.slow
def test_killed_at_any_step_of_a_run_it_goes_on(
    three: CohortStore, good: pl.DataFrame, tmp_path: Path
) -> None:
    def work(run_dir: Path) -> None:
        run(planned(run_dir, three, 2), three)

    def check(run_dir: Path) -> None:
        work(run_dir)
        assert_whole(run_dir, good)
        assert not verify(run_dir).findings

    assert killed_everywhere(None, tmp_path / "killed", work, check) > 40


@pytest.mark.slow
def test_killed_at_any_step_of_compaction_every_row_counts_once(
    three: CohortStore, good: pl.DataFrame, tmp_path: Path
) -> None:
    def work(run_dir: Path) -> None:
        with only_driver(run_dir):
            compact(run_dir, most_parts=0, file_bytes=1)

    def check(run_dir: Path) -> None:
        assert decided(run_dir).equals(good)  # as it was left
        assert not verify(run_dir).findings
        assert run(run_dir, three).pairs == 0
        work(run_dir)
        run(run_dir, three)
        assert not list(run_dir.glob("parts/*"))
        assert_whole(run_dir, good)

    assert killed_everywhere(tmp_path / "good", tmp_path / "killed", work, check) > 10


@pytest.mark.slow
@pytest.mark.parametrize("is_compacted", [False, True])
def test_killed_at_any_step_of_a_retry_nothing_is_lost(
    three: CohortStore,
    good: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_compacted: bool,
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("STUB", json.dumps({"poison": {"00 01": "raise", "02 00": "memory"}}))
        failed = planned(tmp_path / "failed", three, 2)
        run(failed, three)
        assert sorted(read_rows(failed)["status"].to_list())[:3] == ["E_METHOD", "E_OOM", "ok"]
    if is_compacted:
        with only_driver(failed):
            compact(failed, most_parts=0)

    def work(run_dir: Path) -> None:
        run(run_dir, three, options=RETRY)

    def check(run_dir: Path) -> None:
        run(run_dir, three)  # what was set aside is done again in any case
        run(run_dir, three, options=RETRY)
        assert_whole(run_dir, good)
        assert not verify(run_dir).findings
        assert not list(run_dir.glob("replaced/*"))

    assert killed_everywhere(failed, tmp_path / "killed", work, check) > 10
