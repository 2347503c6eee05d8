"""The benchmarks start, and their tables change only when all is measured."""

import csv
import importlib
from pathlib import Path

import pytest
from helpers import PROJECT

from benchmarks.results_table import renewed

NAMES = sorted(path.stem for path in (PROJECT / "benchmarks").glob("*.py"))
COLUMNS = ("case", "measure", "value")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_can_be_imported(name: str) -> None:
    if name.endswith(("_gpu", "_gpu_cases")) or name.startswith("gpu_"):
        pytest.importorskip("triton", reason="triton has no package for this platform")
    if name == "atlas_ants":
        pytest.importorskip("ants", reason="it runs where make peers has put ANTsPy")
    importlib.import_module(f"benchmarks.{name}")


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_rows_take_the_place_of_those_of_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with renewed(path, COLUMNS) as add:
        add(("a", "first", 1))
        add(("a", "second", 2))
        add(("b", "first", 3))
    with renewed(path, COLUMNS) as add:
        add(("a", "first", 4))
    assert rows_of(path) == [list(COLUMNS), ["b", "first", "3"], ["a", "first", "4"]]
    with renewed(path, COLUMNS, keys=2) as add:
        add(("b", "second", 5))
    assert len(rows_of(path)) == 4


def test_what_fails_changes_no_table(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with renewed(path, COLUMNS) as add:
        add(("a", "first", 1))
    before = path.read_bytes()

    def fail() -> None:
        with renewed(path, COLUMNS) as add:
            add(("a", "first", 2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
