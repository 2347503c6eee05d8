"""How far a run is, and how that is told again and again."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from command_line import Cohort
from small_cohort import write_cohort
from small_run import damage, planned

from cohort import terminal
from cohort.data.ingest import IngestSettings, ingest
from cohort.data.store import CohortStore
from cohort.engine import progress
from cohort.engine.plan import tiles_of
from cohort.engine.progress import progress_of
from cohort.engine.results import SCHEMA, read_rows
from cohort.engine.run import run
from cohort.engine.spec import RunSpec
from cohort.engine.tile import run_tile
from cohort.engine.workbench import Workbench


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    settings = IngestSettings(grid="16x16x16@2mm", align="center")
    ingest(write_cohort(tmp_path / "source"), tmp_path / "cohort.zarr", settings)
    return CohortStore.open(tmp_path / "cohort.zarr")


def test_a_run_before_during_and_after(store: CohortStore, tmp_path: Path) -> None:
    run_dir = planned(tmp_path / "run", store)
    before = progress_of(run_dir)
    assert (before.planned, before.done, before.left) == (6, 0, 6)
    assert before.pairs_per_hour is before.time_left_s is None
    assert before.slowest == before.failures == {}
    run_tile(Workbench.open(run_dir), tiles_of(run_dir, RunSpec.load(run_dir)).tile(0))
    during = progress_of(run_dir)
    assert 0 < during.done < 6
    assert during.done + during.left == 6
    run(run_dir, store)
    after = progress_of(run_dir)
    assert (after.done, after.left, after.time_left_s) == (6, 0, None)
    assert after.pairs_per_hour
    assert set(after.slowest) == {"a", "b", "c"}
    assert list(after.slowest.values()) == sorted(after.slowest.values(), reverse=True)
    assert after.run_bytes > before.run_bytes
    assert after.free_bytes > 0


def test_no_scores_of_structures_are_read(
    store: CohortStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = planned(tmp_path / "run", store)
    read = []

    def noted(run_dir: Path, columns: tuple[str, ...] | None = None) -> pl.DataFrame:
        read.extend(SCHEMA.names if columns is None else columns)
        return read_rows(run_dir, columns)

    monkeypatch.setattr(progress, "read_rows", noted)
    progress_of(run_dir)
    assert "ncc" in read
    assert "dice" not in read


def test_a_run_whose_pairs_all_failed_has_no_throughput(
    store: CohortStore, tmp_path: Path, cohort: Cohort
) -> None:
    for name in store.subject_ids:
        damage(store, name)
    run_dir = planned(tmp_path / "run", store)
    shown = cohort("register", store.path, run_dir)
    assert "6 pairs in " in shown.out
    assert "0 ok, 6 failed" in shown.out
    told = (shown, cohort("status", run_dir), cohort("report", run_dir))
    assert not any("throughput" in one.out for one in told)
    assert cohort("report", run_dir, "--json").json["pairs_per_hour"] is None
    assert "Throughput</h2>" not in (run_dir / "report" / "index.html").read_text()


def test_what_workers_take_away_meanwhile_is_no_fault(
    store: CohortStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = planned(tmp_path / "run", store)
    before = progress_of(run_dir).run_bytes
    (run_dir / "parts" / "there").write_bytes(b"1234")
    walk = os.walk

    def walk_while_others_work(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for number in range(3):
            (run_dir / f".tmp-{number}" / "c").mkdir(parents=True)
            (run_dir / f".tmp-{number}" / "c" / "0").touch()
        for where, folders, names in walk(folder):
            yield where, folders, [*names, ".tmp-gone"]
            for one in run_dir.glob(".tmp-*"):
                shutil.rmtree(one)

    monkeypatch.setattr("cohort.engine.progress.os.walk", walk_while_others_work)
    assert progress_of(run_dir).run_bytes == before + 4


def test_watching_ends_with_the_run(
    store: CohortStore, tmp_path: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = planned(tmp_path / "run", store)
    slept: list[float] = []

    def work_meanwhile(seconds: float) -> None:
        slept.append(seconds)
        run(run_dir, store)

    monkeypatch.setattr(terminal.time, "sleep", work_meanwhile)
    shown = cohort("status", run_dir, "--watch")
    assert shown.code == 0
    assert len(slept) == 1
    assert "6 of 6 pairs" in shown.out
    assert "GiB free" in shown.out


def test_watching_and_json_do_not_go_together(tmp_path: Path, cohort: Cohort) -> None:
    shown = cohort("status", tmp_path, "--watch", "--json")
    assert shown.code == 2
    assert "--watch is for people, --json for machines" in shown.err
