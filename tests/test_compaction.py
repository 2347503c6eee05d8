"""Parts as larger files: the same rows, read alike; and tens of thousands of parts, listed."""

from pathlib import Path

import pyarrow as pa
import pytest

from cohort.engine.compaction import compact
from cohort.engine.manifest import load_manifest
from cohort.engine.results import (
    SCHEMA,
    commit_part,
    commit_table,
    committed_tiles,
    part_path,
    read_rows,
    read_table,
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
