"""The commands that look after runs, as people and programs call them."""

from pathlib import Path

import pytest
from command_line import Cohort
from helpers import tiny_cohort
from small_run import damage, decided, part_names, planned

from cohort.data.store import CohortStore
from cohort.engine import inspection
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.engine.tiles import Tiles
from cohort.engine.verify import verify
from cohort.engine.workbench import Workbench
from cohort.errors import UsageError
from cohort.studies.native_space import pairs_with


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    return tiny_cohort(tmp_path / "cohort.zarr", 3)


@pytest.fixture
def run_dir(tmp_path: Path, store: CohortStore) -> Path:
    run_dir = planned(tmp_path / "run", store, tile_size=1)
    run(run_dir, store)
    return run_dir


def test_a_good_run_is_verified(cohort: Cohort, run_dir: Path) -> None:
    shown = cohort("verify", run_dir, "--deep")
    assert shown.code == 0
    assert "3 of 3 done and good" in shown.out
    told = cohort("verify", run_dir, "--json").json
    assert told == {"findings": [], "tiles": 3, "left": 0, "rows": 6, "subjects": 3}
    assert cohort("verify", run_dir, "--no-store", "--json").json["subjects"] == 0


def test_of_a_large_plan_only_what_is_there_is_checked(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in part_names(run_dir)[1:]:
        (run_dir / "parts" / name).unlink()
    keys, asked = inspection.pair_key, []
    monkeypatch.setattr(inspection, "pair_key", lambda *of: asked.append(of) or keys(*of))
    found = verify(run_dir)
    assert not found.findings
    assert (found.tiles, found.left, found.rows) == (3, 2, 2)
    assert len(asked) == 2


def test_the_moving_subject_of_a_large_run_is_found_among_few_of_its_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = tiny_cohort(tmp_path / "many.zarr", 9)
    workbench = Workbench.open(planned(tmp_path / "all", many, tile_size=1))
    cut, seen = Tiles.tile, []
    monkeypatch.setattr(Tiles, "tile", lambda *of: seen.append(of) or cut(*of))
    expected = [(one, "sub-04") for one in many.subject_ids if one != "sub-04"]
    assert pairs_with(workbench, "sub-04") == expected
    assert len(seen) == 8  # of 36 tiles
    for nobody, asked in ((None, "none was named"), ("x", "got 'x'")):
        seen.clear()
        with pytest.raises(UsageError, match=asked):
            pairs_with(workbench, nobody)
        assert len(seen) < 13


def test_damage_is_told_repaired_and_done_again(
    cohort: Cohort, run_dir: Path, store: CohortStore
) -> None:
    before, part = decided(run_dir), run_dir / "parts" / part_names(run_dir)[1]
    part.write_bytes(part.read_bytes()[:-5])
    shown = cohort("verify", run_dir)
    assert shown.code == 1
    assert f"E_PART {part}: " in shown.out
    (finding,) = cohort("verify", run_dir, "--json").json["findings"]
    assert (finding["code"], finding["path"]) == ("E_PART", str(part))
    shown = cohort("repair", run_dir)
    assert shown.code == 0
    assert "1 to do" in shown.out
    assert cohort("register", store.path, run_dir, "--workers", 0).code == 0
    assert decided(run_dir).equals(before)
    assert cohort("verify", run_dir).code == 0


def test_parts_are_merged_on_request(cohort: Cohort, run_dir: Path) -> None:
    before = read_rows(run_dir)
    assert cohort("repair", run_dir, "--compact", "--json").json["compacted"] == 3
    assert part_names(run_dir) == []
    assert read_rows(run_dir).equals(before)
    assert cohort("verify", run_dir).code == 0
    assert "the run is whole" in cohort("repair", run_dir).out


def test_a_store_that_is_not_what_it_was_is_told(
    cohort: Cohort, run_dir: Path, store: CohortStore
) -> None:
    damage(store, "sub-01")
    assert cohort("verify", run_dir).code == 0  # its record is good
    shown = cohort("verify", run_dir, "--deep")
    assert shown.code == 1
    assert "E_CORRUPT" in shown.out


def test_records_are_looked_up_all_at_once(
    cohort: Cohort, run_dir: Path, store: CohortStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alone(store: CohortStore, subject_id: str) -> str:
        raise AssertionError(f"{subject_id} is looked up alone")

    monkeypatch.setattr(CohortStore, "subject_digest", alone)
    assert cohort("verify", run_dir).code == 0
    (store.path / "subjects" / "sub-01" / "commit.json").write_bytes(b"{}")
    shown = cohort("verify", run_dir)
    assert shown.code == 1
    assert "sub-01" in shown.out


def test_failed_pairs_are_tried_again_on_request(
    cohort: Cohort, tmp_path: Path, store: CohortStore
) -> None:
    run_dir = planned(tmp_path / "broken", store, tile_size=1)
    shard = store.path / "subjects" / "sub-01" / "image" / "c" / "0" / "0" / "0"
    content = shard.read_bytes()
    damage(store, "sub-01")
    assert cohort("register", store.path, run_dir, "--workers", 0).code == 1
    shard.write_bytes(content)
    again = cohort("register", store.path, run_dir, "--workers", 0, "--json").json
    assert (again["pairs"], again["summary"]["failed"]) == (0, 4)
    again = cohort("register", store.path, run_dir, "--workers", 0, "--retry-failed", "--json").json
    assert (again["pairs"], again["summary"]["failed"]) == (4, 0)
    assert not list((run_dir / "replaced").iterdir())


def test_a_run_is_stopped_from_elsewhere(cohort: Cohort, tmp_path: Path) -> None:
    shown = cohort("stop", tmp_path)
    assert shown.code == 2
    assert "is no run" in shown.err
    run_dir = planned(tmp_path / "run", tiny_cohort(tmp_path / "c.zarr", 2))
    assert "stops after the pairs that are at work" in cohort("stop", run_dir).out
    assert (run_dir / "STOP").exists()


def test_what_is_no_run_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    for command in ("verify", "repair"):
        shown = cohort(command, tmp_path)
        assert shown.code == 2
        assert "is no run" in shown.err
