"""Whole runs: each pair once, the same bits whoever works on it, and on from where they stopped."""

import fcntl
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers import smooth_volume, tiny_cohort
from small_run import QUICK, damage, decided, part_names, planned

from cohort.config.method import MethodConfig
from cohort.config.voxelopt import VoxelOptSettings
from cohort.data.geometry import Grid
from cohort.data.interrupts import ctrl_c_held
from cohort.data.store import CohortStore, Subject
from cohort.engine.choices import PlanSettings
from cohort.engine.compaction import compact
from cohort.engine.events import read_events
from cohort.engine.manifest import load_manifest
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows
from cohort.engine.run import RunReport, run
from cohort.engine.summary import summarise
from cohort.engine.team import Team
from cohort.errors import RunActiveError, SchedulerError, UsageError

ALL = [f"sub-{fixed:02d} sub-{moving:02d}" for fixed in range(4) for moving in range(4)
       if fixed != moving]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    return tiny_cohort(tmp_path / "cohort.zarr")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The rows of a plain loop over single pairs of the tiny cohort."""
    folder = tmp_path_factory.mktemp("reference")
    store = tiny_cohort(folder / "cohort.zarr")
    run_dir = planned(folder / "run", store, tile_size=1)
    run(run_dir, store)
    return decided(run_dir)


def stopped_after(tiles: int):
    """A progress that presses Ctrl-C when so many tiles are done."""
    calls = 0

    def progress(report: RunReport, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls > tiles:  # the first call is before the first tile
            raise KeyboardInterrupt

    return progress


def stamps(run_dir: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (run_dir / "parts").iterdir()}


def test_a_run_has_a_row_for_every_pair(store: CohortStore, tmp_path: Path) -> None:
    run_dir = planned(tmp_path / "run", store)
    seen: list[tuple[int, int]] = []
    report = run(run_dir, store, progress=lambda r, total: seen.append((r.pairs, total)))
    assert (report.pairs, report.failed, report.already_done) == (12, 0, 0)
    assert seen[0] == (0, 12)
    assert seen[-1] == (12, 12)
    rows = read_rows(run_dir)
    assert [f"{f} {m}" for f, m in rows.select("fixed", "moving").iter_rows()] == ALL
    assert set(rows["status"]) == {"ok"}
    assert rows["epe_mm"].null_count() == 12  # no truth is known


@pytest.mark.parametrize("tile_size", [3, 8])
def test_rows_do_not_depend_on_the_tile_size(
    store: CohortStore, tmp_path: Path, reference: pl.DataFrame, tile_size: int
) -> None:
    run_dir = planned(tmp_path / "run", store, tile_size=tile_size)
    run(run_dir, store)
    assert decided(run_dir).equals(reference)


@pytest.mark.slow
@pytest.mark.parametrize("tile_size", [1, 3, 8])
@pytest.mark.parametrize("workers", [1, 2])
def test_rows_do_not_depend_on_the_workers(
    store: CohortStore, tmp_path: Path, reference: pl.DataFrame, workers: int, tile_size: int
) -> None:
    run_dir = planned(tmp_path / "run", store, tile_size=tile_size)
    report = run(run_dir, store, team=Team(workers))
    assert decided(run_dir).equals(reference)
    assert report.pairs == 12
    assert read_rows(run_dir)["worker"].n_unique() <= workers


def test_a_stopped_run_goes_on_and_does_no_pair_twice(
    store: CohortStore, tmp_path: Path, reference: pl.DataFrame
) -> None:
    run_dir = planned(tmp_path / "run", store)
    with pytest.raises(KeyboardInterrupt):
        run(run_dir, store, progress=stopped_after(2))
    before = stamps(run_dir)
    assert len(before) == 2
    done = len(read_rows(run_dir))
    report = run(run_dir, store)
    assert (report.already_done, report.pairs) == (done, 12 - done)
    assert stamps(run_dir).items() >= before.items()
    assert decided(run_dir).equals(reference)


def test_a_run_that_is_stopped_again_and_again_merges_its_parts(
    store: CohortStore,
    tmp_path: Path,
    reference: pl.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cohort.engine.run.compact", partial(compact, most_parts=1))
    run_dir = planned(tmp_path / "run", store, tile_size=1)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(run_dir, store, progress=stopped_after(2))
    assert len(load_manifest(run_dir).files) == 1
    assert len(part_names(run_dir)) == 2
    run(run_dir, store)
    assert decided(run_dir).equals(reference)


def test_a_plain_loop_loads_its_kernels_before_its_first_pair(
    store: CohortStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, loaded = planned(tmp_path / "run", store), []
    monkeypatch.setattr("cohort.engine.run.warm", lambda one: loaded.append(part_names(run_dir)))
    run(run_dir, store)
    run(run_dir, store)  # nothing is left to do
    assert loaded == [[]]


def test_parts_that_are_lost_are_made_again(
    store: CohortStore, tmp_path: Path, reference: pl.DataFrame
) -> None:
    run_dir = planned(tmp_path / "run", store)
    run(run_dir, store)
    for name in part_names(run_dir)[::2]:
        (run_dir / "parts" / name).unlink()
    before = stamps(run_dir)
    run(run_dir, store)
    assert stamps(run_dir).items() >= before.items()
    assert decided(run_dir).equals(reference)


def test_a_run_that_is_done_does_nothing(store: CohortStore, tmp_path: Path) -> None:
    run_dir = planned(tmp_path / "run", store)
    run(run_dir, store)
    before, events = stamps(run_dir), read_events(run_dir)
    report = run(run_dir, store, team=Team(2))  # and starts no workers
    assert (report.pairs, report.already_done, report.pairs_per_hour) == (0, 12, None)
    assert stamps(run_dir) == before
    assert read_events(run_dir) == events


def test_a_subject_that_broke_after_planning_fails_its_pairs_alone(
    store: CohortStore, tmp_path: Path, reference: pl.DataFrame
) -> None:
    run_dir = planned(tmp_path / "run", store)
    damage(store, "sub-02")
    assert run(run_dir, store).failed == 6
    rows = decided(run_dir)
    touched = (pl.col("fixed") == "sub-02") | (pl.col("moving") == "sub-02")
    assert set(rows.filter(touched)["status"]) == {"E_CORRUPT"}
    assert rows.filter(~touched).equals(reference.filter(~touched))


@pytest.mark.parametrize("change", ["committed anew", "removed"])
def test_a_subject_that_changed_after_planning_fails_its_pairs_alone(
    store: CohortStore, tmp_path: Path, change: str
) -> None:
    run_dir = planned(tmp_path / "run", store)
    if change == "removed":
        store.remove("sub-02")
    else:
        changed = replace(store.read("sub-02"), labels=None)
        store.commit(changed, {"source": None})
    run(run_dir, store)
    code = "E_UNKNOWN_SUBJECT" if change == "removed" else "E_CHANGED"
    failed = read_rows(run_dir).filter(pl.col("status") != "ok")
    assert set(failed["status"]) == {code}
    assert len(failed) == 6
    assert all("sub-02" in message for message in failed["message"])


def test_two_drivers_do_not_work_on_one_run(store: CohortStore, tmp_path: Path) -> None:
    run_dir = planned(tmp_path / "run", store)
    with (run_dir / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 1 on elsewhere")
        lock.flush()
        with pytest.raises(RunActiveError, match="worked on by process 1 on elsewhere; wait") as e:
            run(run_dir, store)
    assert (e.value.code, e.value.exit_code) == ("E_ACTIVE", 3)
    assert str(run_dir) in e.value.message
    assert part_names(run_dir) == []
    assert run(run_dir, store).pairs == 12


def test_the_lock_names_its_holder_and_is_let_go(store: CohortStore, tmp_path: Path) -> None:
    run_dir = planned(tmp_path / "run", store)

    def second_driver(report: RunReport, total: int) -> None:
        with pytest.raises(RunActiveError, match=f"process {os.getpid()} on "):
            run(run_dir, store)

    run(run_dir, store, progress=second_driver)
    run(run_dir, store)


def test_what_dead_writers_left_is_swept(store: CohortStore, tmp_path: Path) -> None:
    run_dir = planned(tmp_path / "run", store, tile_size=8)
    (run_dir / "parts" / ".tmp-0123").write_bytes(b"half a part")
    run(run_dir, store)
    assert part_names(run_dir) == ["00000-00000.parquet"]


def translated_cohort(path: Path) -> CohortStore:
    """Two subjects that are a template moved by 2 and by -1 voxels of 2 mm along the first axis."""
    shape = (24, 18, 20)
    store = CohortStore.create(path, Grid.axis_aligned(shape, (2, 2, 2), (0, 0, 0)), settings={})
    template = 100 * smooth_volume(shape, 7)[0, 0].numpy()
    for subject_id, step in (("a", 2), ("b", -1)):
        to_template = np.zeros((3, *shape), np.float32)
        to_template[0] = -step
        subject = Subject(
            subject_id,
            np.roll(template, step, axis=0),
            to_template=to_template,
            from_template=-to_template,
        )
        store.commit(subject, {"source": None})
    return store


def test_where_the_truth_is_known_the_endpoint_error_is_measured(tmp_path: Path) -> None:
    store = translated_cohort(tmp_path / "cohort.zarr")
    mind = MethodConfig(settings=VoxelOptSettings(features="mind"))
    open_run(tmp_path / "run", store, PlanSettings(mind))
    run(tmp_path / "run", store)
    rows = read_rows(tmp_path / "run")
    assert rows["epe_before_mm"].to_list() == pytest.approx([6, 6])  # 3 voxels of 2 mm
    assert (rows["epe_mm"] < 3).all()
    assert (rows["ncc"] > rows["ncc_before"]).all()
    assert rows["dice_mean"].null_count() == 2  # there are no labels


def test_a_halved_run_measures_on_the_halved_grid(tmp_path: Path) -> None:
    shape = (32, 34, 36)
    store = CohortStore.create(
        tmp_path / "cohort.zarr", Grid.axis_aligned(shape, (1, 1, 1), (0, 0, 0)), settings={}
    )
    for seed, subject_id in enumerate("ab"):
        volume = 100 * smooth_volume(shape, seed)[0, 0].numpy()
        labels = (volume > 50).astype(np.uint16)
        labels[0] = 0
        labels[1, 1, 1] = 9  # between the voxels of the halved grid
        store.commit(Subject(subject_id, volume, labels=labels), {"source": None})
    halved = MethodConfig(settings=QUICK.settings.model_copy(update={"downsample": 2}))
    open_run(tmp_path / "run", store, PlanSettings(halved))
    run(tmp_path / "run", store)
    rows = read_rows(tmp_path / "run")
    assert set(rows["status"]) == {"ok"}
    structures = rows["dice"].cast(pl.List(pl.Struct({"key": pl.Int32, "value": pl.Float64})))
    assert [[entry["key"] for entry in entries] for entries in structures] == [[1], [1]]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_grid_too_small_for_the_method_is_told_in_each_row(
    tmp_path: Path, workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    grid = Grid.axis_aligned((12, 12, 12), (1, 1, 1), (0, 0, 0))
    store = CohortStore.create(tmp_path / "cohort.zarr", grid, settings={})
    for seed, subject_id in enumerate("ab"):
        volume = smooth_volume((12, 12, 12), seed)[0, 0].numpy()
        store.commit(Subject(subject_id, volume), {"source": None})
    run_dir = planned(tmp_path / "run", store)
    assert run(run_dir, store, team=Team(workers)).failed == 2
    rows = read_rows(run_dir)
    assert set(rows["status"]) == {"E_METHOD"}
    assert all("at least 16 voxels" in message for message in rows["message"])
    assert summarise(rows).reasons == {"E_METHOD": rows["message"][0]}
    assert "Traceback" not in capfd.readouterr().err


def test_what_is_no_run_is_refused(store: CohortStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run"):
        run(tmp_path, store)
    assert not (tmp_path / "run.lock").exists()


def test_ctrl_c_while_workers_start_is_answered_when_they_have() -> None:
    handler, started = signal.getsignal(signal.SIGINT), []

    def start() -> None:
        with ctrl_c_held():
            os.kill(os.getpid(), signal.SIGINT)
            started.append("all of them")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert started
    assert signal.getsignal(signal.SIGINT) is handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.slow
def test_a_tile_that_kills_its_workers_stops_the_run(
    store: CohortStore, tmp_path: Path, monkeypatch
) -> None:
    run_dir = planned(tmp_path / "run", store, "unordered", tile_size=8)
    monkeypatch.setattr("cohort.engine.cluster.crew.run_tile_here", _die)
    monkeypatch.setattr("cohort.engine.dispatch._ATTEMPTS_IN_ALL", 3)  # it takes seconds each
    with pytest.raises(SchedulerError, match="died 3 times over tile 00000-00000") as caught:
        run(run_dir, store, team=Team(1))
    assert (caught.value.code, caught.value.exit_code) == ("E_WORKER", 5)
    assert "sub-00, sub-01" in caught.value.message


def _die(*_: object) -> None:
    os._exit(1)
