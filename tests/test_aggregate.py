"""The tables of one run, and the files that they become."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from written_runs import PAIRS, SUBJECTS, row_of, write_run

from cohort.engine.results import commit_part
from cohort.errors import StorageError
from cohort.report.aggregate import describe, run_tables
from cohort.report.publish import markdown, write_tables
from cohort.report.run_values import RunValues
from cohort.report.statistics.design import PairDesign
from cohort.report.statistics.intervals import mean_over_pairs

SCORES = 0.6 + 0.3 * np.random.default_rng(0).random(len(PAIRS))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", lambda index: float(SCORES[index]))


@pytest.fixture
def tables(run_dir: Path) -> dict[str, pl.DataFrame]:
    return run_tables(RunValues.of_run(run_dir), {1: "thalamus"})


def test_structures_are_described_measure_by_measure(tables) -> None:
    table = tables["by_structure"]
    assert table.select("measure", "structure", "name", "n").rows() == [
        ("dice", 1, "thalamus", 12),
        ("dice", 7, "structure 7", 6),
        ("dice_structures_before", 1, "thalamus", 12),
        ("hd95_mm", 1, "thalamus", 12),
        ("hd95_mm", 7, "structure 7", 6),
    ]
    values = np.array([SCORES[i] + 0.1 for i, pair in enumerate(PAIRS) if "d" not in pair])
    row = table.row(1, named=True)
    assert row["mean"] == pytest.approx(values.mean())
    assert row["sd"] == pytest.approx(values.std(ddof=1))
    for name, share in (("p05", 5), ("p25", 25), ("median", 50), ("p75", 75), ("p95", 95)):
        assert row[name] == pytest.approx(np.percentile(values, share)), name


def test_intervals_are_those_over_subjects(tables) -> None:
    design = PairDesign.of(pl.DataFrame(PAIRS, ["fixed", "moving"], orient="row"))
    known = mean_over_pairs(SCORES, design)
    row = tables["by_run"].row(0, named=True)
    assert (row["dice_mean_low"], row["dice_mean_high"]) == (
        pytest.approx(known.low),
        pytest.approx(known.high),
    )
    assert (row["run"], row["pairs"], row["failed"], row["units"]) == ("run", 12, 0, 4)
    assert row["seconds_a_pair"] == 2.0


@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_subjects_are_described_in_each_role(tables, role: str) -> None:
    table = tables[f"by_subject_as_{role}"].filter(measure="sdlogj")
    assert table["subject"].to_list() == list(SUBJECTS)
    own = [1 - SCORES[i] for i, pair in enumerate(PAIRS) if pair[role == "moving"] == "b"]
    row = table.row(1, named=True)
    assert (row["n"], row["mean"], row["median"]) == (
        3,
        pytest.approx(np.mean(own)),
        pytest.approx(np.median(own)),
    )


def test_failed_pairs_and_absent_values_count_for_nothing(run_dir: Path) -> None:
    commit_part(run_dir, "3", [
        row_of("a", "x", 0.9, status="E_OOM"), row_of("a", "y", float("nan"), dice=None),
    ])  # fmt: skip
    tables = run_tables(RunValues.of_run(run_dir), {})
    row = tables["by_run"].row(0, named=True)
    assert (row["pairs"], row["failed"]) == (13, 1)
    assert row["dice_mean_mean"] == pytest.approx(SCORES.mean())
    assert tables["by_structure"].row(0, named=True)["n"] == 12


def test_a_run_without_rows_has_empty_tables(tmp_path: Path) -> None:
    tables = run_tables(RunValues.of_run(write_run(tmp_path / "run", lambda _: 0.0, pairs=[])), {})
    assert tables["by_run"]["pairs"].to_list() == [0]
    assert [len(tables[name]) for name in tables if name != "by_run"] == [0, 0, 0]


def test_the_order_of_parts_changes_nothing(run_dir: Path, tmp_path: Path, tables) -> None:
    other = write_run(tmp_path / "other" / "run", lambda index: float(SCORES[index]), PAIRS)
    (other / "parts" / "1.parquet").rename(other / "parts" / "9.parquet")
    for name, table in run_tables(RunValues.of_run(other), {1: "thalamus"}).items():
        assert table.equals(tables[name]), name


def test_structures_follow_the_pairs_that_are_chosen(run_dir: Path) -> None:
    run = RunValues.of_run(run_dir)
    chosen = run.only(np.array([7, 2]))
    whole = run.structures("dice")
    np.testing.assert_equal(
        chosen.structures("dice"), {label: own[[7, 2]] for label, own in whole.items()}
    )
    assert chosen.pairs.rows() == [PAIRS[7], PAIRS[2]]


def test_structures_are_found_whatever_file_names_them_first(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", lambda _: 0.5, pairs=[])
    parts = {"3": ("b", "a", [(9, 0.25)]), "4": ("a", "b", [(2, 0.5), (9, float("inf"))]),
             "5": ("c", "a", None), "6": ("a", "c", [(300, 1.0)])}  # fmt: skip
    for tile, (fixed, moving, scores) in parts.items():
        failed = {"status": "E_OOM"} if (fixed, moving) == ("a", "c") else {}
        assert commit_part(run_dir, tile, [row_of(fixed, moving, 0.5, dice=scores, **failed)])
    run = RunValues.of_run(run_dir)
    assert run.pairs.rows() == [("a", "b"), ("b", "a"), ("c", "a")]
    nan = float("nan")
    known = {"2": [0.5, nan, nan], "9": [nan, 0.25, nan], "300": [nan] * 3}
    np.testing.assert_equal(run.structures("dice"), known)


def test_a_damaged_part_is_named(run_dir: Path) -> None:
    path = run_dir / "parts" / "2.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StorageError, match=r"2\.parquet is damaged"):
        RunValues.of_run(run_dir)


def test_a_column_of_equal_values_has_an_interval_of_no_width() -> None:
    design = PairDesign.of(pl.DataFrame(PAIRS, ["fixed", "moving"], orient="row"))
    row = describe({"x": np.full(12, 0.25)}, design).row(0, named=True)
    assert (row["low"], row["mean"], row["high"], row["sd"]) == (0.25, 0.25, 0.25, 0.0)


def test_tables_are_written_as_csv_parquet_and_markdown(tables, tmp_path: Path) -> None:
    paths = write_tables(tmp_path / "new" / "tables", tables)
    assert len(paths) == 12
    table = tables["by_structure"]
    assert pl.read_parquet(tmp_path / "new/tables/by_structure.parquet").equals(table)
    read = pl.read_csv(tmp_path / "new/tables/by_structure.csv")
    assert read["mean"].to_list() == table["mean"].to_list()
    lines = (tmp_path / "new/tables/by_structure.md").read_text().splitlines()
    assert len(lines) == 2 + len(table)
    assert lines[1].startswith("| --- | ---: | --- | ---: |")


def test_markdown_has_the_head_of_a_long_table(tmp_path: Path) -> None:
    write_tables(tmp_path, {"long": pl.DataFrame({"n": range(1500)})})
    lines = (tmp_path / "long.md").read_text().splitlines()
    assert lines[-3:] == ["| 999 |", "", "500 more rows are in long.csv"]
    assert len(pl.read_csv(tmp_path / "long.csv")) == 1500


def test_markdown_holds_any_text() -> None:
    text = markdown(["a|b", "n"], [["x|y\nz", 1.0], ["back\\slash", None]])
    assert text.splitlines() == [
        "| a\\|b | n |", "| --- | ---: |", "| x\\|y z | 1 |", "| back\\\\slash |  |",
    ]  # fmt: skip
