"""What a plan says of a run: from a trial, for any number of workers, and what cannot fit."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Cohort
from helpers import tiny_cohort
from small_cohort import write_cohort, write_subject
from small_run import QUICK, damage

from cohort.commands.planning import estimates_of, is_worth_a_trial
from cohort.data.ingest import IngestSettings, ingest
from cohort.data.store import CohortStore
from cohort.engine import nearest
from cohort.engine.calibrate import calibrate
from cohort.engine.choices import PlanSettings
from cohort.engine.estimate import estimate
from cohort.engine.measured import Measured
from cohort.engine.nearest import nearest_pairs
from cohort.engine.pairs import select_pairs
from cohort.engine.plan import open_run
from cohort.engine.run import RunReport
from cohort.engine.spec import RunSpec
from cohort.engine.stop import Stopped
from cohort.engine.team import PLAIN
from cohort.engine.tiles import Tiles, tile_side
from cohort.errors import UsageError

MEASURED = Measured(
    pair_s=0.25, prepare_s=0.03, read_s=0.02, tile_s=0.02, start_s=10.0, subject_bytes=40_000_000,
    stored_bytes=10_000_000, row_bytes=100.0, worker_bytes=500_000_000, processes=1, pairs=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    return tiny_cohort(tmp_path_factory.mktemp("planning") / "cohort.zarr", 5)


def tiles_of(subjects: int, workers: int) -> Tiles:
    names = tuple(f"s{number:05d}" for number in range(subjects))
    pairs = select_pairs("all", names, 0)
    return Tiles.of(pairs, names, tile_side(pairs, subjects, 0.25, workers))


def test_a_trial_measures_what_a_run_does(store: CohortStore) -> None:
    found = calibrate(store, PlanSettings(QUICK), PLAIN)
    assert found.pairs == 20
    assert found.processes == 1
    assert 0 < found.pair_s < 1
    assert 0 < found.prepare_s < 1
    assert found.stored_bytes == 16 * 18 * 20 * (4 + 2)
    assert found.subject_bytes > found.stored_bytes
    assert found.worker_bytes > 50e6
    assert 20 < found.row_bytes < 20_000
    assert found.start_s > 0


def test_a_trial_in_which_nothing_succeeds_says_so(tmp_path: Path) -> None:
    tiny = tiny_cohort(tmp_path / "cohort.zarr", 2)
    for subject_id in tiny.subject_ids:
        damage(tiny, subject_id)
    with pytest.raises(UsageError, match="none of 2 pairs that were tried succeeded") as caught:
        calibrate(tiny, PlanSettings(QUICK), PLAIN)
    assert caught.value.code == "E_CALIBRATION"


def test_more_workers_take_less_time_and_no_less_work() -> None:
    found = [estimate(tiles_of(100, 8), workers, MEASURED, 50) for workers in (1, 8, 64)]
    times = [one.elapsed_s for one in found]
    assert times == sorted(times, reverse=True)
    assert [one.worker_s for one in found] == sorted(one.worker_s for one in found)
    assert found[0].elapsed_s == pytest.approx(10 + 9900 * 0.25, rel=0.03)
    assert found[1].elapsed_s == pytest.approx(10 + 9900 * 0.25 / 8, rel=0.06)
    assert found[0].written_bytes == 990_000
    assert all(one.host_bytes <= 5e8 + 50 * 4e7 for one in found)


def test_sums_and_the_simulation_agree(monkeypatch) -> None:
    tiles = tiles_of(300, 8)
    played = estimate(tiles, 8, MEASURED, 300)
    monkeypatch.setattr("cohort.engine.estimate._PLAYED", 0)
    assert estimate(tiles, 8, MEASURED, 300).elapsed_s == pytest.approx(played.elapsed_s, rel=0.03)


def test_what_does_not_fit_is_refused_with_what_would(
    store: CohortStore, tmp_path: Path, monkeypatch
) -> None:
    spec = open_run(tmp_path / "run", store, PlanSettings(QUICK, measured=MEASURED))
    assert RunSpec.load(tmp_path / "run").measured == MEASURED
    assert {one.workers for one in estimates_of(tmp_path / "run", spec, 2)} == {1, 2, 8, 64, 512}
    large = spec.model_copy(
        update={"measured": MEASURED.model_copy(update={"worker_bytes": 10**14})}
    )
    with pytest.raises(UsageError, match=r"2 workers of .* GiB need .* no worker fits") as caught:
        estimates_of(tmp_path / "run", large, 2)
    assert caught.value.code == "E_MEMORY"
    wide = spec.model_copy(update={"measured": MEASURED.model_copy(update={"row_bytes": 1e15})})
    with pytest.raises(UsageError, match=r"the rows of .* GB are free") as caught:
        estimates_of(tmp_path / "run", wide, 2)
    assert caught.value.code == "E_SPACE"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("--pairs no.csv", "E_PAIRS"),
        ("--pairs atlas:x", "E_PAIRS"),
        ("--pairs knn:9", "E_PAIRS"),
        ("--keep-displacements some", "E_KEEP"),
        ("--pairs to:no.nii.gz", "E_ATLAS"),
        ("--atlas-labels no.nii.gz", "E_ATLAS"),
        ("", "E_RUN"),
    ],
)
def test_what_cannot_be_planned_is_refused_before_a_trial(
    store: CohortStore, tmp_path: Path, cohort: Cohort, monkeypatch, options: str, code: str
) -> None:
    def tried(*_: object) -> None:
        pytest.fail("pairs were tried")

    monkeypatch.setattr("cohort.commands.planning.calibrate", tried)
    if code == "E_RUN":
        (tmp_path / "notes.txt").touch()
    shown = cohort("plan", store.path, tmp_path, *options.split())
    assert shown.code == 2
    assert f"{code}: " in shown.err


def test_nearest_subjects_are_read_together_a_few_at_a_time(
    store: CohortStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, each = [], CohortStore.each

    def noted(store: CohortStore, work: Callable, names: Sequence[str]) -> list:
        asked.append(tuple(names))
        return each(store, work, names)

    whole = nearest_pairs(store, 2).pairs
    monkeypatch.setattr(CohortStore, "each", noted)
    monkeypatch.setattr(nearest, "_AT_ONCE", 2)
    assert nearest_pairs(store, 2).pairs.tolist() == whole.tolist()
    blocks = [names for names in asked if set(names) <= set(store.subject_ids)]
    assert sum(map(len, blocks)) == len(store.subject_ids)
    assert max(map(len, blocks)) == 2


def test_short_runs_and_runs_with_a_tile_size_are_not_tried(
    store: CohortStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_worth_a_trial(store, PlanSettings())
    assert not is_worth_a_trial(store, replace(PlanSettings(), pairs="knn:2"))
    monkeypatch.setattr("cohort.commands.planning._WORTH_IT", 20)  # as many as there are
    assert is_worth_a_trial(store, PlanSettings())
    assert not is_worth_a_trial(store, PlanSettings(tile_size=2))
    assert not is_worth_a_trial(store, PlanSettings(pairs="unordered"))


def test_the_plan_tells_people_and_machines(
    store: CohortStore, tmp_path: Path, cohort: Cohort
) -> None:
    options = ["--set", "features=intensity", "--workers", "0", "--hourly-price", "2"]
    told = cohort("plan", store.path, tmp_path / "run", *options)
    assert "expected, from 20 pairs tried here" in told.out
    assert "worker hours" in told.out
    assert "cost" in told.out
    again = cohort("plan", store.path, tmp_path / "run", "--json").json
    assert again["measured"]["pairs"] == 20
    assert [one["workers"] for one in again["estimates"]][:1] == [1]
    plain = cohort("plan", store.path, tmp_path / "other", "--no-trial")
    assert "expected" not in plain.out


@pytest.mark.parametrize(
    ("elapsed_s", "stop", "goes_on"),
    [
        (60, Stopped(), True),
        (1, Stopped(), False),
        (1, Stopped(15), False),
        (60, Stopped(15), False),
    ],
    ids=["its time is up", "Ctrl-C", "SIGTERM", "SIGTERM when its time is up"],
)
def test_only_its_own_stop_ends_a_trial_well(
    store: CohortStore, monkeypatch, elapsed_s: float, stop: Stopped, goes_on: bool
) -> None:
    def stopped_run(*_: object, progress, **__: object) -> None:
        progress(RunReport(elapsed_s=elapsed_s), 20)
        raise stop

    monkeypatch.setattr("cohort.engine.calibrate.run", stopped_run)
    monkeypatch.setattr("cohort.engine.calibrate._summed_up", lambda *_: MEASURED)
    if goes_on:
        assert calibrate(store, PlanSettings(QUICK), PLAIN) == MEASURED
    else:
        with pytest.raises(Stopped) as caught:
            calibrate(store, PlanSettings(QUICK), PLAIN)
        assert caught.value.exit_code == stop.exit_code


def test_a_trial_passes_over_a_damaged_record(tmp_path: Path) -> None:
    tiny = tiny_cohort(tmp_path / "cohort.zarr", 3)
    (tiny.path / "subjects" / "sub-00" / "commit.json").write_text("{")
    found = calibrate(tiny, PlanSettings(QUICK), PLAIN)
    assert found.stored_bytes == 16 * 18 * 20 * (4 + 2)


def test_one_subject_and_an_atlas_are_planned_without_a_trial(
    tmp_path: Path, cohort: Cohort
) -> None:
    source = write_cohort(tmp_path / "source", ("a",))
    ingest(source, tmp_path / "cohort.zarr", IngestSettings(grid="16x16x16@2mm", align="center"))
    write_subject(tmp_path, "mni", 1)
    pairs = f"atlas:{tmp_path / 'images' / 'mni.nii.gz'}"
    shown = cohort("plan", tmp_path / "cohort.zarr", tmp_path / "run", "--pairs", pairs)
    assert shown.code == 0, shown.err
    assert RunSpec.load(tmp_path / "run").n_pairs == 1


def test_a_plan_that_is_refused_does_not_stay(
    store: CohortStore, tmp_path: Path, cohort: Cohort, monkeypatch
) -> None:
    large = MEASURED.model_copy(update={"worker_bytes": 10**14})
    monkeypatch.setattr("cohort.commands.planning.calibrate", lambda *_: large)
    (tmp_path / "pairs.csv").write_text("fixed,moving\nsub-00,sub-01\n")
    refused = ("plan", store.path, tmp_path / "run", "--pairs", tmp_path / "pairs.csv")
    for _ in range(2):
        shown = cohort(*refused)
        assert shown.code == 2
        assert "E_MEMORY" in shown.err
        assert not (tmp_path / "run").exists()
    open_run(tmp_path / "there", store, PlanSettings(QUICK, measured=large))
    assert cohort("plan", store.path, tmp_path / "there").code == 2
    assert RunSpec.load(tmp_path / "there").measured == large
