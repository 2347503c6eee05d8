"""What a worker does with a tile: every pair becomes a row, whatever happens to it."""

import errno
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
import torch
from helpers import pretend_a_card, tiny_cohort
from small_run import damage, decided, part_names, planned

from cohort.data.store import CohortStore
from cohort.engine.plan import tiles_of
from cohort.engine.regenerate import regenerate_pair
from cohort.engine.results import pair_key, part_path, read_rows
from cohort.engine.subjects import Budgets
from cohort.engine.tile import run_tile
from cohort.engine.tiles import Tile
from cohort.engine.workbench import Workbench
from cohort.errors import StorageError, SubjectError
from triton_reg import Result


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    return tiny_cohort(tmp_path / "cohort.zarr", 3)


@pytest.fixture
def run_dir(tmp_path: Path, store: CohortStore) -> Path:
    return planned(tmp_path / "run", store, tile_size=3)


def only_tile(run_dir: Path) -> Tile:
    (tile,) = tiles_of(run_dir, Workbench.open(run_dir).spec)
    return tile


def work(run_dir: Path) -> pl.DataFrame:
    run_tile(Workbench.open(run_dir), only_tile(run_dir))
    return read_rows(run_dir)


def failing_for(
    pair: tuple[str, str], error: Exception
) -> Callable[[Workbench, Sequence[tuple[str, str]]], list[Result]]:
    register_many = Workbench.register_many

    def patched(self: Workbench, pairs: Sequence[tuple[str, str]]) -> list[Result]:
        if pair in pairs:
            raise error
        return register_many(self, pairs)

    return patched


def test_a_tile_becomes_a_part_with_a_row_a_pair(run_dir: Path) -> None:
    workbench, tile = Workbench.open(run_dir), only_tile(run_dir)
    report = run_tile(workbench, tile, attempt=2)
    assert (report.tile_id, report.pairs, report.failed) == (tile.tile_id, 6, 0)
    rows = read_rows(run_dir)
    assert set(rows.select("fixed", "moving").rows()) == set(tile.pairs)
    assert set(rows["status"]) == {"ok"}
    assert set(rows["attempt"]) == {2}
    assert set(rows["fingerprint"]) == {workbench.spec.fingerprint}
    spec = workbench.spec
    keys = {pair_key(spec.fingerprint, "cpu", workbench.digests[f], workbench.digests[m])
            for f, m in tile.pairs}  # fmt: skip
    assert set(rows["pair_key"]) == keys
    assert rows["dice_mean"].is_between(0, 1).all()
    assert (rows["elapsed_s"] >= rows["register_s"]).all()
    kinds = {"read_s", "prepare_s", "register_s", "metrics_s", "commit_s"}
    assert report.seconds.keys() == kinds
    assert sum(report.seconds.values()) <= report.elapsed_s


def test_a_committed_tile_is_left_alone(run_dir: Path, monkeypatch) -> None:
    work(run_dir)
    before = part_path(run_dir, only_tile(run_dir).tile_id).stat().st_mtime_ns
    monkeypatch.setattr(Workbench, "register_many", lambda *_: pytest.fail("registered again"))
    report = run_tile(Workbench.open(run_dir), only_tile(run_dir))
    assert (report.pairs, report.failed, report.seconds) == (6, 0, {})
    assert part_path(run_dir, report.tile_id).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("no such voxel"), "E_METHOD", "ValueError: no such voxel"),
        (ZeroDivisionError(), "E_METHOD", "ZeroDivisionError"),
        (MemoryError(), "E_OOM", "not enough memory"),
        (SubjectError("E_ODD", "odd subject"), "E_ODD", "odd subject"),
    ],
    ids=["method", "no message", "memory", "subject"],
)
def test_a_pair_that_fails_is_a_row_and_the_others_go_on(
    run_dir: Path, monkeypatch, error: Exception, status: str, message: str
) -> None:
    pair = ("sub-00", "sub-02")
    monkeypatch.setattr(Workbench, "register_many", failing_for(pair, error))
    rows = work(run_dir)
    (failed,) = rows.filter(pl.col("status") != "ok").iter_rows(named=True)
    assert (failed["fixed"], failed["moving"], failed["status"]) == (*pair, status)
    assert message in failed["message"]
    assert failed["dice_mean"] is failed["ncc"] is failed["elapsed_s"] is None
    assert len(rows) == 6


def test_a_displacement_that_is_not_finite_is_no_good_row(run_dir: Path, monkeypatch) -> None:
    pair, register_many = ("sub-00", "sub-02"), Workbench.register_many

    def spoiled(self: Workbench, pairs: Sequence[tuple[str, str]]) -> list[Result]:
        results = register_many(self, pairs)
        if pair in pairs:
            results[pairs.index(pair)].displacement.vectors[0, 0, 0, 0, 0] = torch.nan
        return results

    monkeypatch.setattr(Workbench, "register_many", spoiled)
    rows = work(run_dir)
    (failed,) = rows.filter(pl.col("status") != "ok").iter_rows(named=True)
    assert (failed["fixed"], failed["moving"], failed["status"]) == (*pair, "E_METHOD")
    assert "holds NaN or infinity" in failed["message"]


def test_what_is_on_a_card_comes_back_as_arrays(run_dir: Path, monkeypatch) -> None:
    pretend_a_card(monkeypatch)
    monkeypatch.setattr("cohort.engine.regenerate.feature_maps", lambda *_: {})
    images = regenerate_pair(Workbench.open(run_dir), "sub-00", "sub-01")
    assert images.warped.shape == (16, 18, 20)
    assert images.warped_labels is not None


def test_a_broken_file_system_stops_the_tile_and_leaves_nothing(run_dir: Path, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise StorageError("E_STORAGE", "the disk is gone")

    monkeypatch.setattr(CohortStore, "read", broken)
    with pytest.raises(StorageError, match="the disk is gone"):
        work(run_dir)
    assert part_names(run_dir) == []


def test_a_full_disk_stops_the_tile_and_leaves_nothing(run_dir: Path, monkeypatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        work(run_dir)
    assert part_names(run_dir) == []


def test_a_broken_subject_is_read_once_and_fails_all_its_pairs(
    run_dir: Path, store: CohortStore, monkeypatch
) -> None:
    damage(store, "sub-01")
    counted, read = Counter(), CohortStore.read

    def counting(self: CohortStore, subject_id: str):
        counted[subject_id] += 1
        return read(self, subject_id)

    monkeypatch.setattr(CohortStore, "read", counting)
    rows = work(run_dir)
    touched = (pl.col("fixed") == "sub-01") | (pl.col("moving") == "sub-01")
    assert set(rows.filter(touched)["status"]) == {"E_CORRUPT"}
    assert set(rows.filter(~touched)["status"]) == {"ok"}
    assert all("sub-01" in message for message in rows.filter(touched)["message"])
    assert counted == Counter(store.subject_ids)


@pytest.mark.parametrize("cache_bytes", [0, 10**5, 10**9])
def test_rows_do_not_depend_on_how_many_subjects_are_kept(
    run_dir: Path, tmp_path: Path, store: CohortStore, cache_bytes: int
) -> None:
    work(run_dir)
    other = planned(tmp_path / "other", store, tile_size=3)
    workbench = Workbench.open(other)
    workbench.budgets = Budgets(cache_bytes)
    run_tile(workbench, only_tile(other))
    assert decided(other).equals(decided(run_dir))
    assert len(workbench.subjects) == (3 if cache_bytes == 10**9 else 2)


def test_threads_are_given_back(run_dir: Path) -> None:
    torch.set_num_threads(2)
    try:
        run_tile(Workbench.open(run_dir), only_tile(run_dir))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_pair_can_be_made_again_as_pictures(run_dir: Path) -> None:
    rows = work(run_dir)
    images = regenerate_pair(Workbench.open(run_dir), "sub-00", "sub-01")
    assert images.fixed.shape == images.warped.shape == (16, 18, 20)
    assert images.displacement.shape == (3, 16, 18, 20)
    assert images.fixed_labels is not None
    assert images.warped_labels is not None
    inner = images.fixed_labels == 2
    warped = images.warped_labels == 2
    dice = 2 * (inner & warped).sum() / (inner.sum() + warped.sum())
    row = rows.filter(fixed="sub-00", moving="sub-01").row(0, named=True)
    scores = row["dice"]
    assert dice == pytest.approx(
        dict(scores)[2] if isinstance(scores, dict) else scores[1]["value"]
    )
