"""What a run is planned to do, and when a run that is there is the one that is asked for."""

import errno
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import ellipsoids, tiny_cohort

from cohort.config.method import method_config
from cohort.data.store import CohortStore, Subject
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import make_plan, open_run, tiles_of
from cohort.engine.spec import RunSpec
from cohort.errors import StorageError, UsageError

SUBJECTS = 4
ALL = {
    (f"sub-{fixed:02d}", f"sub-{moving:02d}")
    for fixed in range(SUBJECTS)
    for moving in range(SUBJECTS)
    if fixed != moving
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    return tiny_cohort(tmp_path_factory.mktemp("plan") / "cohort.zarr", SUBJECTS)


def other_subject(subject_id: str, shift: float) -> Subject:
    labels = ellipsoids((16, 18, 20), (shift, 0, 0))
    return Subject(subject_id, (100 * labels).astype(np.float32), labels=labels)


def test_the_same_settings_give_the_same_plan(store: CohortStore) -> None:
    settings = PlanSettings(pairs="random:5", seed=1, tile_size=2)
    (first, pairs), (second, again) = make_plan(store, settings), make_plan(store, settings)
    assert first.plan_digest == second.plan_digest
    assert pairs.digest == again.digest
    assert first.n_pairs == pairs.n_pairs == 5


def test_the_defaults_are_all_pairs_by_voxelopt(store: CohortStore) -> None:
    spec, pairs = make_plan(store, PlanSettings())
    assert (spec.pairs, spec.seed, spec.method.name) == ("all", 0, "voxelopt")
    assert spec.n_pairs == pairs.n_pairs == len(ALL)
    assert spec.has_labels
    assert not spec.has_truth
    assert spec.store == str(store.path.resolve())
    assert spec.subject_digests[1] == store.subject_digest("sub-01")


@pytest.mark.parametrize(
    "changed",
    [
        {"pairs": "unordered"},
        {"pairs": "random:5", "seed": 2},
        {"tile_size": 3},
        {"method": method_config("voxelopt", None, ["radius=2"])},
    ],
    ids=["pairs", "seed", "tile size", "method"],
)
def test_every_choice_changes_the_digest(store: CohortStore, changed: dict) -> None:
    settings = PlanSettings(pairs="random:5", seed=1, tile_size=2)
    digests = {make_plan(store, one)[0].plan_digest for one in (settings, PlanSettings(**changed))}
    assert len(digests) == 2


def test_a_store_is_read_once_for_a_plan(store: CohortStore, monkeypatch) -> None:
    read, record = Counter(), CohortStore.record

    def counted(self: CohortStore, subject_id: str) -> dict:
        read[subject_id] += 1
        return record(self, subject_id)

    monkeypatch.setattr(CohortStore, "record", counted)
    make_plan(store, PlanSettings())
    assert read == Counter(store.subject_ids)


def test_a_run_opens_again_as_it_was_planned(store: CohortStore, tmp_path: Path) -> None:
    settings = PlanSettings(method_config("voxelopt", None, ["radius=2"]), "random:5", 3, 2)
    spec = open_run(tmp_path / "run", store, settings)
    assert RunSpec.load(tmp_path / "run") == spec
    for said in (settings, PlanSettings(), replace(settings, seed=None), PlanSettings(pairs=None)):
        assert open_run(tmp_path / "run", store, said) == spec


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"pairs": "unordered"}, "pairs was all, now unordered"),
        ({"seed": 7}, "seed was 0, now 7"),
        ({"tile_size": 1}, "tile_size was 2, now 1"),
        (
            {"method": method_config("voxelopt", None, ["radius=2", "window=1,99"])},
            r"window was not given, now \(1.0, 99.0\); radius was not given, now 2",
        ),
        ({"method": method_config("voxelopt", None, ["preset=paper"])}, "now paper"),
        ({"method": method_config("dio", None, [])}, "method was voxelopt, now dio"),
    ],
    ids=["pairs", "seed", "tile size", "settings", "preset", "method"],
)
def test_another_plan_is_refused_by_what_differs(
    store: CohortStore, tmp_path: Path, asked: dict, message: str
) -> None:
    run_dir = tmp_path / "run"
    open_run(run_dir, store, PlanSettings(tile_size=2))
    before = (run_dir / "run.json").read_bytes()
    with pytest.raises(UsageError, match=message) as caught:
        open_run(run_dir, store, PlanSettings(**asked))
    assert caught.value.code == "E_PLAN_MISMATCH"
    assert str(run_dir) in caught.value.message
    assert (run_dir / "run.json").read_bytes() == before


@pytest.mark.parametrize("subject_id", ["sub-01", "sub-new"], ids=["changed", "added"])
def test_another_content_of_the_store_names_the_subject(tmp_path: Path, subject_id: str) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", 3)
    open_run(tmp_path / "run", store, PlanSettings())
    store.commit(other_subject(subject_id, 1.0), {"source": None})
    with pytest.raises(UsageError, match=f"other subjects or another content: {subject_id}"):
        open_run(tmp_path / "run", store, PlanSettings())


def test_a_store_that_has_moved_is_the_same_store(tmp_path: Path) -> None:
    spec = open_run(tmp_path / "run", tiny_cohort(tmp_path / "here", 2), PlanSettings())
    moved = CohortStore.open((tmp_path / "here").rename(tmp_path / "there"))
    assert open_run(tmp_path / "run", moved, PlanSettings()) == spec


def test_pairs_of_a_csv_stay_when_the_csv_is_gone(store: CohortStore, tmp_path: Path) -> None:
    path, run_dir = tmp_path / "some.csv", tmp_path / "run"
    path.write_text("fixed,moving\nsub-02,sub-00\nsub-01,sub-03\n")
    spec = open_run(run_dir, store, PlanSettings(pairs=str(path), tile_size=8))
    path.unlink()
    assert open_run(run_dir, store, PlanSettings()) == spec
    (tile,) = tiles_of(run_dir, spec)
    assert set(tile.pairs) == {("sub-02", "sub-00"), ("sub-01", "sub-03")}


def test_another_csv_is_another_plan(store: CohortStore, tmp_path: Path) -> None:
    for name, pair in (("one", "sub-02,sub-00"), ("other", "sub-00,sub-02")):
        (tmp_path / f"{name}.csv").write_text(f"fixed,moving\n{pair}\n")
    one, other = (PlanSettings(pairs=str(tmp_path / f"{n}.csv")) for n in ("one", "other"))
    open_run(tmp_path / "run", store, one)
    with pytest.raises(UsageError, match="the file gives other pairs"):
        open_run(tmp_path / "run", store, other)


def test_damaged_pairs_of_a_run_are_noticed(store: CohortStore, tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text("fixed,moving\nsub-02,sub-00\n")
    spec = open_run(tmp_path / "run", store, PlanSettings(pairs=str(tmp_path / "some.csv")))
    (tmp_path / "run" / "pairs.csv").write_text("fixed,moving\nsub-02,sub-01\n")
    with pytest.raises(StorageError, match="no longer gives the pairs"):
        list(tiles_of(tmp_path / "run", spec))


@pytest.mark.parametrize("tile_size", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("pairs", ["all", "unordered", "random:7"])
def test_tiles_share_out_every_pair_once(
    store: CohortStore, tmp_path: Path, pairs: str, tile_size: int
) -> None:
    spec = open_run(tmp_path / "run", store, PlanSettings(pairs=pairs, tile_size=tile_size))
    tiles = list(tiles_of(tmp_path / "run", spec))
    found = [pair for tile in tiles for pair in tile.pairs]
    whole = make_plan(store, PlanSettings(pairs=pairs))[1].within(0, 0, SUBJECTS)
    planned = [tuple(spec.subject_ids[index] for index in pair) for pair in whole]
    assert sorted(found) == sorted(planned)
    assert len({tile.tile_id for tile in tiles}) == len(tiles) == spec.n_tiles
    assert all(len(tile.pairs) <= 2 * tile_size**2 for tile in tiles)  # both ways


def test_a_plan_that_was_not_finished_is_made_anew(store: CohortStore, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    (run_dir / "parts").mkdir(parents=True)
    (run_dir / "pairs.csv").write_text("fixed,mov")
    (run_dir / ".tmp-1").touch()
    assert open_run(run_dir, store, PlanSettings()).n_pairs == len(ALL)


def test_a_plan_of_another_process_is_kept(store: CohortStore, tmp_path: Path, monkeypatch) -> None:
    first = open_run(tmp_path / "run", store, PlanSettings(pairs="unordered"))
    content = (tmp_path / "run" / "run.json").read_bytes()
    link = os.link

    def late(source: Path, target: Path) -> None:
        (tmp_path / "late" / "run.json").write_bytes(content)
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert open_run(tmp_path / "late", store, PlanSettings(pairs="unordered")) == first
    (tmp_path / "late" / "run.json").unlink()
    with pytest.raises(UsageError, match="pairs was unordered, now all"):
        open_run(tmp_path / "late", store, PlanSettings(pairs="all"))


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ("thesis.tex", r"is no run and not empty \(it holds thesis.tex\)"),
        ("parts/00000-00001.parquet", r"it holds parts/00000-00001.parquet"),
        ("", "is a file; need a new or an empty folder"),
    ],
    ids=["foreign file", "parts of another run", "file"],
)
def test_a_folder_with_something_else_is_left_alone(
    store: CohortStore, tmp_path: Path, there: str, message: str
) -> None:
    path = tmp_path / "run" / there
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(UsageError, match=message) as caught:
        open_run(tmp_path / "run", store, PlanSettings())
    assert caught.value.code == "E_RUN"
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_full_disk_leaves_no_plan(store: CohortStore, tmp_path: Path, monkeypatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"run\.json: No space left on device; \d+ bytes are"):
        open_run(tmp_path / "run", store, PlanSettings())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["parts"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: "{", "is damaged or of another version"),
        (lambda spec: json.dumps(spec | {"run_schema": 3}), "run_schema: Input should be 2"),
        (lambda spec: json.dumps({**spec, "more": 1}), "more: Extra inputs"),
    ],
    ids=["cut off", "newer", "unknown field"],
)
def test_a_plan_that_cannot_be_read_is_named(
    store: CohortStore, tmp_path: Path, change, message: str
) -> None:
    open_run(tmp_path / "run", store, PlanSettings())
    path = tmp_path / "run" / "run.json"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(StorageError, match=message) as caught:
        RunSpec.load(tmp_path / "run")
    assert caught.value.code == "E_RUN"
    assert str(path) in caught.value.message


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_what_is_no_run_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=f"{name} is no run: it has no run.json"):
        RunSpec.load(tmp_path / name)
