"""Rows on disk: written once, whole or not at all, and read with checksums."""

import errno
import os
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_run import part_names

from cohort.engine import results
from cohort.engine.results import (
    SCHEMA,
    commit_part,
    committed_tiles,
    pair_key,
    part_path,
    read_rows,
    read_table,
)
from cohort.engine.summary import MEASURES, read_summary, summarise
from cohort.errors import StorageError


def row(fixed: str, moving: str, **values: Any) -> dict[str, Any]:
    return {"fixed": fixed, "moving": moving, "status": "ok", "elapsed_s": 0.5} | values


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    return tmp_path


def test_rows_come_back_as_they_were_sorted_by_pair(run_dir: Path) -> None:
    scores = [(1, 0.5), (65535, 1 / 3)]
    commit_part(run_dir, "2", [row("b", "a", dice=scores, dice_mean=0.1 + 0.2)])
    commit_part(run_dir, "1", [row("b", "c"), row("a", "b", status="E_OOM", message="no memory")])
    rows = read_rows(run_dir)
    assert rows.columns == SCHEMA.names
    assert rows.select("fixed", "moving").rows() == [("a", "b"), ("b", "a"), ("b", "c")]
    assert rows["message"].to_list() == ["no memory", None, None]
    assert rows["dice_mean"].to_list() == [None, 0.1 + 0.2, None]
    entries = rows["dice"].cast(pl.List(pl.Struct({"key": pl.Int32, "value": pl.Float64})))
    assert [tuple(entry.values()) for entry in entries[1]] == scores
    assert committed_tiles(run_dir) == {"1", "2"}


def test_a_run_without_parts_has_no_rows(run_dir: Path) -> None:
    assert read_rows(run_dir).shape == (0, len(SCHEMA))
    assert committed_tiles(run_dir) == set()


def test_the_first_writer_wins(run_dir: Path) -> None:
    assert commit_part(run_dir, "t", [row("a", "b", worker="first")])
    before = part_path(run_dir, "t").stat()
    assert not commit_part(run_dir, "t", [row("a", "b", worker="second")])
    assert read_rows(run_dir)["worker"].to_list() == ["first"]
    assert part_path(run_dir, "t").stat().st_mtime_ns == before.st_mtime_ns
    assert part_names(run_dir) == ["t.parquet"]


def test_a_link_whose_answer_was_lost_is_a_success(run_dir: Path, monkeypatch) -> None:
    link = os.link

    def lossy(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))

    monkeypatch.setattr(os, "link", lossy)
    assert commit_part(run_dir, "t", [row("a", "b")])
    assert part_names(run_dir) == ["t.parquet"]


@pytest.mark.parametrize("function", ["fsync", "link"])
def test_a_full_disk_leaves_nothing_half_written(run_dir: Path, monkeypatch, function: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, function, full)
        with pytest.raises(StorageError, match=r"No space left on device; \d+ bytes are free") as e:
            commit_part(run_dir, "t", [row("a", "b")])
    assert (e.value.code, e.value.exit_code) == ("E_STORAGE", 4)
    assert str(part_path(run_dir, "t")) in e.value.message
    assert part_names(run_dir) == []
    assert commit_part(run_dir, "t", [row("a", "b")])


@pytest.mark.parametrize("damage", ["cut off", "flipped bit", "empty", "other file"])
def test_a_damaged_part_is_named(run_dir: Path, damage: str) -> None:
    commit_part(run_dir, "good", [row("a", "b")])
    commit_part(run_dir, "bad", [row(f"{i:03d}", "b", ncc=i / 7) for i in range(200)])
    path = part_path(run_dir, "bad")
    content = bytearray(path.read_bytes())
    if damage == "flipped bit":
        content[200] ^= 0xFF
    broken = {"cut off": content[:-20], "empty": b"", "other file": b"fixed,moving\n"}
    path.write_bytes(broken.get(damage, content))
    with pytest.raises(
        StorageError, match=r"is damaged .*; `cohort repair .*` moves it away"
    ) as caught:
        read_rows(run_dir)
    assert caught.value.code == "E_PART"
    assert str(path) in caught.value.message


def test_some_columns_are_read_alone(run_dir: Path) -> None:
    commit_part(run_dir, "2", [row("b", "a", ncc=0.5)])
    commit_part(run_dir, "1", [row("a", "b", dice=[(1, 0.25)])])
    table = read_table(run_dir, ["moving", "ncc", "dice", "epe_mm"])
    assert table.schema.names == ["moving", "ncc", "dice", "epe_mm"]
    assert table.to_pydict() == {
        "moving": ["b", "a"],
        "ncc": [None, 0.5],
        "dice": [[(1, 0.25)], None],
        "epe_mm": [None, None],
    }
    assert read_table(run_dir, ["ncc"]).to_pydict() == {"ncc": [None, 0.5]}


def test_a_part_of_an_older_version_lacks_what_was_not_measured_then(run_dir: Path) -> None:
    old = pa.table({"fixed": ["a"], "moving": ["b"], "ncc": [0.5]})
    pq.write_table(old, part_path(run_dir, "old"))
    commit_part(run_dir, "new", [row("a", "c", dice_mean=0.25)])
    rows = read_rows(run_dir)
    assert rows.columns == SCHEMA.names
    assert rows.select("moving", "ncc", "dice_mean").rows() == [
        ("b", 0.5, None),
        ("c", None, 0.25),
    ]


def test_a_part_whose_columns_hold_something_else_is_damaged(run_dir: Path) -> None:
    pq.write_table(pa.table({"fixed": ["a"], "ncc": ["much"]}), part_path(run_dir, "odd"))
    with pytest.raises(StorageError, match=r"odd\.parquet is damaged"):
        read_rows(run_dir)


def test_a_disk_that_cannot_be_read_is_not_called_damage(run_dir: Path, monkeypatch) -> None:
    commit_part(run_dir, "t", [row("a", "b")])

    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("cohort.engine.parts.pq.ParquetFile", broken)
    with pytest.raises(StorageError, match="Input/output error") as caught:
        read_rows(run_dir)
    assert caught.value.code == "E_STORAGE"


def test_a_summary_reads_no_scores_of_structures(run_dir: Path, monkeypatch) -> None:
    commit_part(run_dir, "1", [row("b", "a", dice_mean=0.5, dice=[(1, 0.5)], elapsed_s=1.0)])
    commit_part(run_dir, "2", [row("a", "b", dice_mean=0.7, dice=[(1, 0.7)], elapsed_s=1.0)])
    read = []

    def noted(run_dir: Path, columns: list[str] | None = None) -> pa.Table:
        read.append(columns)
        return read_table(run_dir, columns)

    monkeypatch.setattr(results, "read_table", noted)
    assert read_summary(run_dir) == summarise(read_rows(run_dir))
    assert "dice" not in read[0]
    assert {"dice_mean", "status"} <= set(read[0])
    assert read_rows(run_dir, ("ncc",)).columns == ["fixed", "moving", "ncc"]


def test_the_summary_is_the_mean_of_the_pairs_that_succeeded(run_dir: Path) -> None:
    measured = dict.fromkeys(MEASURES, 0.25)
    rows = [
        row("a", "b", **measured),
        row("a", "c", **measured | {"dice_mean": 0.75, "epe_mm": None}),
        row("b", "c", status="E_CORRUPT", elapsed_s=None),
    ]
    commit_part(run_dir, "t", rows)
    summary = summarise(read_rows(run_dir))
    assert (summary.pairs, summary.ok, summary.failed) == (3, 2, 1)
    assert summary.dice_mean == 0.5
    assert summary.epe_mm == summary.ncc == 0.25
    assert summary.busy_s == 1.0


def test_the_summary_of_nothing_has_no_means(run_dir: Path) -> None:
    summary = summarise(read_rows(run_dir))
    assert (summary.pairs, summary.ok, summary.failed, summary.busy_s) == (0, 0, 0, 0.0)
    assert all(getattr(summary, name) is None for name in MEASURES)


def test_a_pair_key_depends_on_everything_that_the_result_depends_on() -> None:
    keys = {
        pair_key("print", "cpu", "a", "b"),
        pair_key("other print", "cpu", "a", "b"),
        pair_key("print", "cuda", "a", "b"),
        pair_key("print", "cpu", "c", "b"),
        pair_key("print", "cpu", "a", "c"),
        pair_key("print", "cpu", "b", "a"),
    }
    assert len(keys) == 6
    assert pair_key("print", "cpu", "a", "b") in keys
