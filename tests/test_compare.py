"""Runs side by side: on common pairs of the same scans, with tests that know subjects."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import polars as pl
import pytest
from command_line import Cohort
from written_runs import PAIRS, SUBJECTS, row_of, write_run

from cohort.engine.results import commit_part
from cohort.errors import UsageError
from cohort.report.compare import RunComparison, compare_runs
from cohort.report.compare_text import (
    comparison_markdown,
    notes,
    runs_table,
    structures_table,
    structures_title,
)
from cohort.report.run_values import _SCORES
from cohort.report.statistics.paired import holm
from cohort.report.written import _numbers

SCORES = 0.6 + 0.2 * np.random.default_rng(0).random(len(PAIRS))
GAINS = np.random.default_rng(1).normal(0.05, 0.01, len(PAIRS))


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """A run, a better one with other settings, and one like the first."""
    return [
        write_run(tmp_path / "plain", lambda index: float(SCORES[index])),
        write_run(
            tmp_path / "better",
            lambda index: float(SCORES[index] + GAINS[index]),
            features="local",
        ),
        write_run(tmp_path / "again", lambda index: float(SCORES[index])),
    ]


def test_each_run_is_compared_with_the_first(runs: list[Path]) -> None:
    table = compare_runs(runs, {}).measures.filter(measure="dice_mean")
    plain, better, again = table.iter_rows(named=True)
    assert [row["run"] for row in (plain, better, again)] == ["plain", "better", "again"]
    assert plain["difference"] is plain["p"] is plain["p_holm"] is None
    assert better["mean"] == pytest.approx((SCORES + GAINS).mean())
    assert better["difference"] == pytest.approx(GAINS.mean())
    assert better["difference_low"] < GAINS.mean() < better["difference_high"]
    assert (better["units"], better["flips"], better["test"]) == (4, 16, "sign flips")
    assert better["p"] == 2 / 16  # the least that four subjects allow
    assert (again["p"], again["effect_size"]) == (1.0, None)
    assert better["p_holm"] == 2 * better["p"]


def test_structures_are_corrected_for_their_number(runs: list[Path]) -> None:
    table = compare_runs(runs[:2], {1: "thalamus"}).structures
    assert table["measure"].unique(maintain_order=True).to_list() == ["dice", "hd95_mm"]
    dice = table.filter(measure="dice", run="better")
    assert dice["name"].to_list() == ["thalamus", "structure 7"]
    assert dice["n"].to_list() == [12, 6]
    assert dice["p_holm"].to_list() == holm(dice["p"].to_numpy()).tolist()
    assert dice["p_holm"].to_list() != dice["p"].to_list()


def test_runs_are_compared_on_the_pairs_that_all_registered(
    runs: list[Path], tmp_path: Path
) -> None:
    other = write_run(tmp_path / "part", lambda index: 0.9, pairs=PAIRS[2:9])
    commit_part(other, "3", [row_of(*PAIRS[10], 0.1, status="E_OOM")])
    comparison = compare_runs([runs[0], other], {})
    assert [run.pairs.rows() for run in comparison.runs] == [PAIRS[2:9]] * 2
    first = comparison.measures.filter(measure="dice_mean").row(0, named=True)
    assert first["mean"] == pytest.approx(SCORES[2:9].mean())
    expected = "the 7 pairs that every run registered (registered: plain 12)"
    assert expected in notes(comparison)[0]


def test_runs_without_a_common_pair_are_refused(runs: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", lambda _: 0.5, pairs=[("x", "y")])
    with pytest.raises(UsageError, match=r"no pair was registered by all .*: plain 12, other 1"):
        compare_runs([runs[0], other], {})


def test_other_scans_under_the_same_names_are_refused(runs: list[Path], tmp_path: Path) -> None:
    digests = tuple(name * 64 for name in ("a", "b", "0", "d"))
    other = write_run(tmp_path / "other", lambda _: 0.5, subject_digests=digests)
    with pytest.raises(UsageError, match=r"plain and other registered other scans as \(c\)"):
        compare_runs([runs[0], other], {})


def test_a_scan_that_no_common_pair_has_may_differ(runs: list[Path], tmp_path: Path) -> None:
    digests = tuple(name * 64 for name in ("a", "b", "c", "0"))
    pairs = [pair for pair in PAIRS if "d" not in pair]
    other = write_run(tmp_path / "other", lambda _: 0.5, pairs, subject_digests=digests)
    assert len(compare_runs([runs[0], other], {}).runs[0].pairs) == 6


def test_folders_of_one_name_are_told_apart(runs: list[Path], tmp_path: Path) -> None:
    twin = write_run(tmp_path / "elsewhere" / "plain", lambda _: 0.5)
    names = [run.name for run in compare_runs([runs[0], twin], {}).runs]
    assert names == [str(runs[0]), str(twin)]
    with pytest.raises(UsageError, match="a run is named twice: "):
        compare_runs([runs[0], runs[0]], {})


def test_the_table_reads_like_that_of_a_paper(runs: list[Path]) -> None:
    comparison = compare_runs(runs[:2], {})
    titles, rows = runs_table(comparison)
    assert titles == ["Run", "Method", "Pairs", "Dice", "sdlogj", "Seconds a pair"]
    assert [row[1] for row in rows] == ["voxelopt, features=mind", "voxelopt, features=local"]
    number = r"\d\.\d{3}"
    assert re.fullmatch(rf"{number} ± {number} \[{number}, {number}\]", rows[0][3])
    best = rf"\*\*{number}\*\* ± {number} \[{number}, {number}\]; p = 0.125, d \d+\.\d\d"
    assert re.fullmatch(best, rows[1][3])
    assert rows[1][4].startswith("**")  # less is better
    text = comparison_markdown(comparison)
    assert "## HD95 in mm by structure" in text
    assert "## dice_structures_before" not in text


@pytest.mark.parametrize(
    ("measure", "best"), [("hd95_vox", 0), ("assd_mm", 0), ("dice", 1), ("surface_dice", 1)]
)
def test_less_is_better_of_distances_alone(measure: str, best: int) -> None:
    common = {"structure": 1, "name": "thalamus", "n": 9, "measure": measure, "sd": 0.1,
              "low": None, "high": None, "p_holm": None, "effect_size": None}  # fmt: skip
    rows = pl.DataFrame([{**common, "mean": mean} for mean in (0.25, 0.5)])
    runs = [SimpleNamespace(name=name) for name in ("a", "b")]
    comparison = cast(RunComparison, SimpleNamespace(structures=rows, runs=runs))
    _, ((_, _, *cells),) = structures_table(comparison, measure)
    assert [cell.startswith("**") for cell in cells] == [best == 0, best == 1]


def test_runs_of_equal_settings_show_what_else_sets_them_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, lambda _: 0.5, fingerprint=name * 32) for name in ("1", "2")]
    _, rows = runs_table(compare_runs(runs, {}))
    assert [row[1] for row in rows] == [
        "voxelopt, fingerprint=11111111", "voxelopt, fingerprint=22222222",
    ]  # fmt: skip


def test_the_notes_say_which_test_and_why(runs: list[Path], tmp_path: Path) -> None:
    text = " ".join(notes(compare_runs(runs[:2], {})))
    assert "The units are 4 subjects, each in all of its pairs." in text
    assert "flips of the signs of the subjects' scores (all, 16 patterns)" in text
    names = tuple("efghijkl")
    facts = {"subject_ids": names, "subject_digests": names}
    pairs = list(zip(names[::2], names[1::2], strict=True))
    disjoint = [
        write_run(
            tmp_path / name, lambda index, start=start: start + index**2 / 100, pairs, **facts
        )
        for name, start in (("one", 0.3), ("two", 0.4))
    ]
    text = " ".join(notes(compare_runs(disjoint, {})))
    assert "Wilcoxon's signed ranks of the pairs, because no subject recurs" in text
    few = [write_run(tmp_path / name, lambda _: 0.5, PAIRS[:1]) for name in ("three", "four")]
    assert "Nothing was tested" in " ".join(notes(compare_runs(few, {})))


def test_the_command_writes_and_prints_a_comparison(
    runs: list[Path], tmp_path: Path, cohort: Cohort
) -> None:
    shown = cohort("report", *runs[:2])
    folder = runs[0] / "report" / "compare"
    assert shown.code == 0
    for expected in ("better", "features=local", "p = 0.125", "The units are 4 subjects"):
        assert expected in shown.out
    assert {path.name for path in folder.iterdir()} == {
        "index.html", "compare.md", *(f"{table}.{kind}" for table in ("measures", "structures")
                                      for kind in ("csv", "md", "parquet")),
    }  # fmt: skip
    page = (folder / "index.html").read_text()
    assert page.count("<table>") == 3
    assert "**" not in page
    mean = r"<strong>\d\.\d{3}</strong> ± \d\.\d{3}"  # bold, as its notes say
    interval = r"\[\d\.\d{3}, \d\.\d{3}\];"
    parts = [rf'<span class="unbroken">{part}</span>' for part in (mean, interval)]
    assert re.search("<td>" + " ".join(parts), page)
    assert "<h2>Dice by structure</h2>" in page
    assert "<h2>HD95 in mm by structure</h2>" in page
    assert "Registration report" not in page
    assert "<title>Runs compared: plain, better</title>" in page
    assert pl.read_csv(folder / "measures.csv")["run"].unique().sort().to_list() == [
        "better", "plain",
    ]  # fmt: skip
    chosen = cohort("report", *runs, "--out", tmp_path / "chosen", "--json").json
    assert chosen["report"] == str(tmp_path / "chosen" / "index.html")
    assert chosen["pairs"] == 12
    assert len(chosen["measures"]) == 6


def test_a_cell_of_numbers_breaks_between_its_parts_alone() -> None:
    cell = _numbers("**0.618** ± 0.050 [0.601, 0.636]; p < 0.001, d 0.81")
    assert re.findall('<span class="unbroken">(.*?)</span>', cell) == [
        "<strong>0.618</strong> ± 0.050", "[0.601, 0.636];", "p &lt; 0.001, d 0.81",
    ]  # fmt: skip


def test_every_measure_of_structures_has_a_title() -> None:
    after = [measure for measure in _SCORES if "before" not in measure]
    assert all(structures_title(measure)[0].isupper() for measure in after)


def test_one_run_has_no_comparison_but_tables(runs: list[Path], cohort: Cohort) -> None:
    shown = cohort("report", runs[0], "--out", runs[0] / "x")
    assert (shown.code, "name two runs or more" in shown.err) == (2, True)
    tables = Path(cohort("report", runs[0], "--json").json["tables"])
    assert len(list(tables.iterdir())) == 12
    subjects = pl.read_parquet(tables / "by_subject_as_fixed.parquet")["subject"]
    assert subjects.unique().sort().to_list() == list(SUBJECTS)
    (tables / "by_run.csv").unlink()
    cohort("report", runs[0])
    assert (tables / "by_run.csv").exists()


def test_names_cannot_break_the_page(runs: list[Path], tmp_path: Path, cohort: Cohort) -> None:
    hostile = tmp_path / "<script>alert(1)<"
    write_run(hostile, lambda _: 0.5)
    assert cohort("report", runs[0], hostile).code == 0
    page = (runs[0] / "report" / "compare" / "index.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;" in page
