"""Parts as larger files: the same rows, read alike; and tens of thousands of parts, listed."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cohort.engine import compaction, retry
from cohort.engine.compaction import compact
from cohort.engine.manifest import load_manifest
from cohort.engine.parts import row_groups
from cohort.engine.results import (
    SCHEMA,
    commit_part,
    commit_table,
    committed_tiles,
    filled_columns,
    part_path,
    read_rows,
    read_table,
    read_tables,
)
from cohort.errors import StorageError


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    for number in range(7):
        tile = f"{number:05d}-00000"
        rows = [
            {
                "tile": tile,
                "fixed": f"s{number}",
                "moving": moving,
                "status": "ok",
                "ncc": number / 7,
                "dice": [(1, 0.5), (2, 1 / 3)] if number % 2 else None,
                "stop_reasons": ["converged"],
            }
            for moving in "ab"
        ]
        commit_part(tmp_path, tile, rows)
    return tmp_path


@pytest.mark.parametrize("file_bytes", [1, 30_000, 10**9])
def test_rows_are_the_same_afterwards(run_dir: Path, file_bytes: int) -> None:
    before, tiles = read_rows(run_dir), committed_tiles(run_dir)
    assert compact(run_dir, 6, file_bytes) == 7
    assert not list((run_dir / "parts").iterdir())
    assert read_rows(run_dir).equals(before)
    assert committed_tiles(run_dir) == tiles
    assert read_table(run_dir, ["ncc"]).num_rows == 14
    files = load_manifest(run_dir).files
    assert len(files) == {1: 7, 30_000: 4, 10**9: 1}[file_bytes]
    assert sum(file.rows for file in files) == 14


def test_few_parts_stay_as_they_are(run_dir: Path) -> None:
    assert compact(run_dir, 7) == 0
    assert len(list((run_dir / "parts").iterdir())) == 7
    assert not (run_dir / "compacted").exists()


def test_new_parts_join_older_files(run_dir: Path) -> None:
    compact(run_dir, 0)
    commit_part(run_dir, "00007-00000", [{"tile": "00007-00000", "fixed": "s7", "moving": "a"}])
    assert len(read_rows(run_dir)) == 15
    compact(run_dir, 0)
    assert [file.name for file in load_manifest(run_dir).files] == [
        "000001.parquet",
        "000002.parquet",
    ]
    assert len(read_rows(run_dir)) == 15


@pytest.mark.parametrize("merged_before", [0, 3], ids=["all loose", "some merged"])
def test_rows_that_are_merged_while_they_are_read_are_given_once(
    run_dir: Path, merged_before: int
) -> None:
    for number in range(merged_before):
        compact(run_dir, 0)
        tile = f"{number + 7:05d}-00000"
        commit_part(run_dir, tile, [{"tile": tile, "fixed": f"s{number + 7}", "moving": "a"}])
    known = sorted(read_rows(run_dir)["fixed"])
    reading = read_tables(run_dir, ["fixed", "moving"])
    given = next(reading)["fixed"].to_pylist()
    compact(run_dir, 0)
    given += [name for table in reading for name in table["fixed"].to_pylist()]
    assert sorted(given) == known


def test_columns_that_hold_a_value_are_known_before_and_after(run_dir: Path) -> None:
    filled = {"tile", "fixed", "moving", "status", "ncc", "dice", "stop_reasons"}
    assert filled_columns(run_dir) == filled
    compact(run_dir, 0)
    assert filled_columns(run_dir) == filled


def test_a_part_of_a_tile_that_was_merged_does_not_count(run_dir: Path) -> None:
    path = part_path(run_dir, "00003-00000")
    content = path.read_bytes()
    compact(run_dir, 0)
    path.write_bytes(content)  # of a driver that was killed before it removed it
    assert len(read_rows(run_dir)) == 14


def test_rows_of_a_tile_that_the_manifest_gave_up_do_not_count(run_dir: Path) -> None:
    compact(run_dir, 0)
    load_manifest(run_dir).without({"00003-00000", "00004-00000"}).write(run_dir)
    rows = read_rows(run_dir)
    assert len(rows) == 10
    assert not {"s3", "s4"} & set(rows["fixed"])
    assert read_table(run_dir, ["ncc"]).num_rows == 10


def test_a_part_of_other_tiles_is_not_merged(run_dir: Path) -> None:
    table = pa.Table.from_pylist([{"tile": "another"}], schema=SCHEMA)
    commit_table(run_dir, "00009-00000", table)
    with pytest.raises(StorageError, match="holds rows of other tiles"):
        compact(run_dir, 0)
    assert len(read_rows(run_dir)) == 15


def test_tens_of_thousands_of_parts_are_listed(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for number in range(20_000):
        (tmp_path / "parts" / f"{number:05d}-00000.parquet").touch()
    (tmp_path / "parts" / ".tmp-1.parquet").touch()  # one that was never finished
    assert len(committed_tiles(tmp_path)) == 20_000


def test_merging_many_small_parts_looks_at_each_once(run_dir: Path, monkeypatch) -> None:
    looks = []

    class Part(dict):
        schema = SCHEMA

        def __len__(self) -> int:
            looks.append(self)
            return 1

    def read(path: Path, schema: pa.Schema) -> Part:
        return Part(tile=pa.array([path.stem]))

    monkeypatch.setattr(compaction, "read_part", read)
    monkeypatch.setattr(compaction, "_whole", list)
    monkeypatch.setattr(compaction, "_GROUP_ROWS", 100)
    groups = list(compaction._row_groups(run_dir, [f"{number:05d}-00000" for number in range(250)]))
    assert [sum(1 for _ in group) for group in groups] == [100, 100, 50]
    assert len(looks) < 4 * 250


def test_setting_aside_tiles_of_a_merged_file_reads_it_once(run_dir: Path, monkeypatch) -> None:
    for number in (1, 4, 6):
        tile = f"{number:05d}-00000"
        part_path(run_dir, tile).unlink()
        row = {"tile": tile, "fixed": f"s{number}", "moving": "a", "status": "E_METHOD"}
        commit_part(run_dir, tile, [row])
    compact(run_dir, 0)
    before, read = read_rows(run_dir), []

    def noted(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
        read.append(path.name)
        return row_groups(path, schema)

    def narrow(run_dir: Path, columns: list[str]) -> pa.Table:
        return read_table(run_dir, columns)  # never all columns of the run

    monkeypatch.setattr(retry, "row_groups", noted)
    monkeypatch.setattr(retry, "read_table", narrow)
    assert retry.set_aside_failed(run_dir) == 3
    assert read == ["000001.parquet"]
    kept = [pq.read_table(path) for path in sorted((run_dir / "replaced").iterdir())]
    assert [part["fixed"].to_pylist() for part in kept] == [["s1"], ["s4"], ["s6"]]
    assert read_rows(run_dir).equals(before.filter(status="ok"))
