"""F8: files of a run that are damaged: verify names each, repair and register restore the rows."""

import random
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from fault_runs import assert_whole, decided, parts, planned
from stub_method import install, stub_cohort

from cohort.config.method import MethodConfig
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.compaction import compact
from cohort.engine.displacements import keep, packed, read_kept
from cohort.engine.lock import only_driver
from cohort.engine.manifest import load_manifest, manifest_path
from cohort.engine.plan import open_run
from cohort.engine.repair import repair
from cohort.engine.results import SCHEMA, commit_part, commit_table, part_path, read_rows
from cohort.engine.run import run
from cohort.engine.spec import RunSpec
from cohort.engine.verify import verify
from cohort.errors import StorageError, UsageError

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("stub")]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    return stub_cohort(tmp_path_factory.mktemp("four") / "cohort.zarr", 4)


@pytest.fixture
def whole(four: CohortStore, tmp_path: Path) -> Path:
    return made_whole(tmp_path / "whole", four)


def made_whole(run_dir: Path, four: CohortStore) -> Path:
    """A run with parts, a manifest and compacted files."""
    planned(run_dir, four, 1)
    run(run_dir, four)
    with only_driver(run_dir):
        first, second, *_ = parts(run_dir)
        aside = {path: path.read_bytes() for path in (first, second)}
        first.unlink()
        second.unlink()
        compact(run_dir, most_parts=0, file_bytes=2 * len(aside[first]))
        for path, content in aside.items():
            path.write_bytes(content)
    assert len(load_manifest(run_dir).files) == 2
    return run_dir


@pytest.fixture
def good(whole: Path) -> pl.DataFrame:
    return decided(whole)


def damaged(path: Path, source: random.Random) -> str:
    """Change a file in one of the ways that disks and people do; returns which."""
    content = bytearray(path.read_bytes())
    kind = source.choices(["bit", "cut", "empty", "zeros"], [12, 3, 1, 2])[0]
    if kind == "bit":
        content[source.randrange(len(content))] ^= 1 << source.randrange(8)
    elif kind == "cut":
        del content[source.randrange(1, len(content)) :]
    elif kind == "empty":
        content.clear()
    else:
        start = source.randrange(len(content) - 16)
        content[start : start + 16] = bytes(16)
    changed = bytes(content) != path.read_bytes()
    path.write_bytes(content)
    return kind if changed else ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
def test_damage_is_named_and_undone(
    seed: int, four: CohortStore, damage_base: tuple[Path, pl.DataFrame], tmp_path: Path
) -> None:
    base, good = damage_base
    run_dir, source = tmp_path / "run", random.Random(seed)
    shutil.copytree(base, run_dir)
    files = [
        *parts(run_dir),
        *run_dir.glob("compacted/*.parquet"),
        manifest_path(run_dir),
        run_dir / "run.json",
        run_dir / "run.copy.json",
    ]
    path = source.choice(sorted(files))
    kind = damaged(path, source)
    print(f"seed {seed}: {kind} in {path.name}")  # noqa: T201
    if not kind:
        return
    found = verify(run_dir)
    assert str(path) in {one.path for one in found.findings}
    assert repair(run_dir).findings
    run(run_dir, four)
    assert_whole(run_dir, good)
    assert not verify(run_dir, deep=True).findings


@pytest.fixture(scope="module")
def damage_base(
    four: CohortStore, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, pl.DataFrame]:
    """A run as ``whole`` is, made once."""
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MethodConfig, "build", MethodConfig.build)
        install()
        run_dir = made_whole(folder / "run", four)
    return run_dir, decided(run_dir)


def test_a_run_that_is_whole_has_no_findings(whole: Path, four: CohortStore) -> None:
    seen = verify(whole, deep=True)
    assert (seen.findings, seen.left, seen.rows, seen.subjects) == ([], 0, 12, 4)
    assert seen.tiles == 6
    done = repair(whole)
    assert (done.findings, done.moved, done.left) == ([], [], 0)


def test_parts_in_the_wrong_place_are_found(
    whole: Path, four: CohortStore, good: pl.DataFrame
) -> None:
    first, second = parts(whole)
    content = first.read_bytes()
    shutil.copy(second, first)  # whole files, in each other's place
    second.write_bytes(content)
    stray = part_path(whole, "00090-00091")
    shutil.copy(first, stray)
    found = {one.path: (one.code, one.sentence) for one in verify(whole).findings}
    assert found.keys() == {str(first), str(second), str(stray)}
    assert found[str(first)] == ("E_ROWS", f"its rows are of other tiles than {first.stem}")
    assert found[str(stray)] == ("E_ROWS", "the plan has no tile 00090-00091")
    assert repair(whole).left == 2
    assert len(list(whole.glob("bad/*"))) == 3
    run(whole, four)
    assert_whole(whole, good)


@pytest.mark.parametrize("fault", ["missing", "twice", "other key", "other method"])
def test_rows_that_are_not_those_planned_are_found(whole: Path, fault: str) -> None:
    path = parts(whole)[0]
    rows = pq.read_table(path).to_pylist()
    path.unlink()
    if fault == "missing":
        del rows[0]
    elif fault == "twice":
        rows[0] = rows[1]
    elif fault == "other key":
        rows[0]["pair_key"] = rows[1]["pair_key"]
    else:
        rows[0]["fingerprint"] = "another"
    commit_part(whole, path.stem, rows)
    (finding,) = verify(whole).findings
    assert (finding.code, finding.path, finding.tile) == ("E_ROWS", str(path), path.stem)


def test_good_rows_of_a_damaged_large_file_stay(
    whole: Path, four: CohortStore, good: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cohort.engine.compaction._GROUP_ROWS", 1)
    repair(whole, merge=True)  # the two loose parts into a file of a row group for each
    path = max(whole.glob("compacted/*.parquet"))
    content = bytearray(path.read_bytes())
    keys = pq.read_metadata(path).row_group(0).column(SCHEMA.names.index("pair_key"))
    content[(keys.dictionary_page_offset or 0) + keys.total_compressed_size - 2] ^= 1
    path.write_bytes(content)
    tiles = len(next(one for one in load_manifest(whole).files if one.name == path.name).tiles)
    done = repair(whole)
    assert (done.saved, done.left) == (tiles - 1, 1)
    assert str(path) in done.moved
    run(whole, four)
    assert_whole(whole, good)


def test_a_lost_manifest_loses_no_row(whole: Path, four: CohortStore, good: pl.DataFrame) -> None:
    manifest_path(whole).unlink()
    assert {one.code for one in verify(whole).findings} == {"E_MANIFEST"}
    done = repair(whole)
    assert (done.saved, done.left) == (4, 0)
    assert run(whole, four).pairs == 0
    assert_whole(whole, good)


def test_a_damaged_manifest_is_no_empty_one(whole: Path, four: CohortStore) -> None:
    manifest_path(whole).write_bytes(b"{}")
    for read in (lambda: read_rows(whole), lambda: run(whole, four)):
        with pytest.raises(StorageError, match="cohort repair") as refused:
            read()
        assert refused.value.code == "E_MANIFEST"


def test_what_is_beyond_use_is_said(whole: Path, tmp_path: Path) -> None:
    for name in ("run.json", "run.copy.json"):
        (whole / name).write_bytes(b"{")
    for call in (verify, repair):
        with pytest.raises(StorageError, match=r"run\.json is damaged") as refused:
            call(whole)
        assert refused.value.exit_code == 4
    for call in (verify, repair):
        with pytest.raises(UsageError, match="is no run"):
            call(tmp_path)
    assert not (tmp_path / "run.lock").exists()


def test_a_lost_run_json_comes_back(whole: Path, good: pl.DataFrame) -> None:
    before = (whole / "run.json").read_bytes()
    (whole / "run.json").unlink()
    (finding,) = verify(whole).findings
    assert (finding.code, finding.path) == ("E_RUN", str(whole / "run.json"))
    repair(whole)
    assert (whole / "run.json").read_bytes() == before
    assert decided(whole).equals(good)


def test_events_that_are_unreadable_are_found_and_the_others_kept(whole: Path) -> None:
    path = whole / "events.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], '{"time": "2026', *lines[1:], ""]))  # a driver died
    assert not verify(whole).findings
    path.write_text("\n".join([lines[0], *(line[:20] for line in lines[1:-1]), lines[-1], ""]))
    (finding,) = verify(whole).findings
    assert (finding.code, finding.path) == ("E_EVENTS", str(path))
    repair(whole)
    assert path.read_text().splitlines()[:2] == [lines[0], lines[-1]]
    assert not verify(whole).findings


def test_a_store_that_is_another_is_found(whole: Path, tmp_path: Path) -> None:
    other = stub_cohort(tmp_path / "other.zarr", 5)
    other.remove("sub-01")
    subject = other.read("sub-02")
    subject.volume[1, 1, 1] += 1
    other.commit(subject, {"source": None})
    shard = other.path / "subjects" / "sub-03" / "image" / "c" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    codes = [one.code for one in verify(whole, other.path).findings]
    assert codes == ["E_UNKNOWN_SUBJECT", "E_CHANGED"]
    codes = [one.code for one in verify(whole, other.path, deep=True).findings]
    assert codes == ["E_UNKNOWN_SUBJECT", "E_CHANGED", "E_CORRUPT"]
    assert not verify(whole, with_store=False).findings
    assert [one.code for one in verify(whole, tmp_path / "none").findings] == ["E_STORE"]


def test_leftovers_are_swept(whole: Path) -> None:
    for name in ("parts/.tmp-1", "compacted/.tmp-2", ".tmp-3"):
        (whole / name).write_bytes(b"half")
    (whole / "crumbs").mkdir(exist_ok=True)
    tile = parts(whole)[0].stem
    (whole / "crumbs" / f"{tile}.jsonl").write_bytes(b"")
    merged = load_manifest(whole).files[0].tiles[0]
    table = pq.read_table(parts(whole)[0], schema=SCHEMA)
    commit_table(whole, merged, table)  # a part whose rows a compacted file holds
    assert not verify(whole).findings
    assert repair(whole).swept == 5
    assert len(parts(whole)) == 2


def test_what_is_kept_beside_rows_and_gone_is_told_and_made_again(
    four: CohortStore, good: pl.DataFrame, tmp_path: Path
) -> None:
    run_dir = tmp_path / "kept"
    asked = PlanSettings(
        MethodConfig(), tile_size=1, keep_displacements="all", keep_uncertainty=True
    )
    open_run(run_dir, four, asked)
    run(run_dir, four)
    compact(run_dir, most_parts=0)
    assert not verify(run_dir).findings
    first, second = sorted((run_dir / "displacements.zarr").iterdir())[:2]
    shutil.rmtree(first)
    npz = run_dir / "uncertainty" / f"{second.name}.npz"
    npz.unlink()
    found = {(one.code, one.path, one.tile) for one in verify(run_dir).findings}
    assert found == {
        ("E_KEPT", str(first), first.name),
        ("E_UNCERTAINTY", str(npz), second.name),
    }
    assert repair(run_dir).left == 2
    run(run_dir, four)
    assert not verify(run_dir).findings
    assert decided(run_dir).equals(good)


def test_of_what_is_kept_no_pair_may_be_missing(four: CohortStore, tmp_path: Path) -> None:
    run_dir = tmp_path / "kept"
    asked = PlanSettings(
        MethodConfig(), tile_size=4, keep_displacements="all", keep_uncertainty=True
    )
    open_run(run_dir, four, asked)
    run(run_dir, four)
    (tile,) = (run_dir / "displacements.zarr").iterdir()
    (npz,) = (run_dir / "uncertainty").iterdir()
    spec = RunSpec.load(run_dir)
    one = spec.subject_ids[0], spec.subject_ids[1]
    kept = packed(read_kept(run_dir, spec, *one).displacement, (1, 1, 1))
    assert kept is not None
    keep(run_dir, tile.name, {one: kept})
    np.savez(npz, fixed=np.array(one[:1]), moving=np.array(one[1:]))
    found = verify(run_dir).findings
    assert [(one.code, "has nothing of" in one.sentence) for one in found] == [
        ("E_UNCERTAINTY", True),
        ("E_KEPT", True),
    ]


def test_what_is_kept_beside_rows_is_checked_and_done_again_with_them(
    four: CohortStore, good: pl.DataFrame, tmp_path: Path
) -> None:
    run_dir = tmp_path / "kept"
    open_run(run_dir, four, PlanSettings(MethodConfig(), tile_size=1, keep_displacements="all"))
    run(run_dir, four)
    assert not verify(run_dir).findings
    first, second = sorted((run_dir / "displacements.zarr").iterdir())[:2]
    shard = next(path for path in first.rglob("*") if path.is_file() and path.name == "0")
    shard.write_bytes(shard.read_bytes()[:-3])
    (run_dir / "uncertainty").mkdir()
    npz = run_dir / "uncertainty" / f"{second.name}.npz"
    npz.write_bytes(b"PK")
    found = {(one.code, one.path, one.tile) for one in verify(run_dir).findings}
    assert found == {
        ("E_KEPT", str(first), first.name),
        ("E_UNCERTAINTY", str(npz), second.name),
    }
    done = repair(run_dir)
    assert done.left == 2
    assert {str(first), str(npz), str(part_path(run_dir, first.name))} < set(done.moved)
    run(run_dir, four)
    assert not verify(run_dir).findings
    assert decided(run_dir).equals(good)
