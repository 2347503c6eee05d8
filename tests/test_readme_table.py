"""The measured figures of pages are those of the committed results."""

import csv
from pathlib import Path

import pytest

from benchmarks.readme_table import BEGIN, END, PAGES, PROJECT, block, rewritten

README, MEASURED = PROJECT / "README.md", PROJECT / "benchmarks" / "README.md"


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("page", PAGES, ids=["README", "benchmarks"])
def test_pages_say_what_the_results_say(page: Path) -> None:
    text = page.read_text()
    assert rewritten(page, text) == text, "the results have changed: run `make readme`"


@pytest.mark.parametrize("page", PAGES, ids=["README", "benchmarks"])
def test_a_results_file_that_is_absent_has_no_table(page: Path, tmp_path: Path) -> None:
    assert block(page, tmp_path) == f"{BEGIN}\n\n{END}"


def test_the_last_run_counts_and_ratios_are_of_medians(tmp_path: Path) -> None:
    row = {"case": "whole pair, 5 levels", "cpu": "AMD EPYC family 26, 1 thread"}
    runs = [("reference", "9", "1"), ("kernel", "9", "1"), ("reference", "4000", "490.2"),
            ("kernel", "400", "271")]  # fmt: skip
    rows = [
        {**row, "implementation": name, "median_ms": ms, "peak_extra_mib": mib}
        for name, ms, mib in runs
    ]
    write_rows(tmp_path / "voxelopt_cpu.csv", rows)
    made = block(MEASURED, tmp_path)
    assert "| plain PyTorch, the definition | 4,000 | 1 | 490 |" in made
    assert "| compiled kernels | 400 | 10.0 | 271 |" in made
    assert "AMD EPYC family 26 (" in made


def test_a_change_that_a_method_cannot_take_has_an_empty_cell(tmp_path: Path) -> None:
    rows = [
        {"change": change, "method": method, "pairs": "2", "dice_clear": dice,
         "training_min": "45" if method == "amortised" else ""}
        for change, method, dice in (
            ("as they are", "dio", "0.5814"), ("as they are", "amortised", "0.5414"),
            ("other size", "dio", "0.5656"), ("other size", "amortised", ""),
        )
    ]  # fmt: skip
    write_rows(tmp_path / "dio_robustness.csv", rows)
    made = block(MEASURED, tmp_path)
    assert " 45 minutes" in made
    assert "|  | dio | amortised |\n" in made
    assert "| as they are | .581 | .541 |\n| other size | .566 |  |" in made


def peer_rows() -> list[dict[str, str]]:
    """Ours as they come, settings as smooth as greedy, and greedy."""
    row = dict.fromkeys(("version", "settings", "voxelopt_as_smooth", "dio_as_smooth"), "")
    row |= {"dice_before": "0.4795", "features_s": "0.22", "peak_mib": "500", "cpu": "C"}
    names = ("tool", "dice_mean", "sdlogj", "register_cpu_s")
    measured = (
        ("VoxelOpt", "0.6175", "0.3006", "0.21"), ("VoxelOpt, b", "0.6039", "0.2292", "0.22"),
        ("DIO", "0.6461", "0.2702", "2.1"), ("DIO, c", "0.6431", "0.2413", "2.2"),
        ("greedy", "0.6319", "0.2388", "4.95"),
    )  # fmt: skip
    rows = [{**row, **dict(zip(names, one, strict=True))} for one in measured]
    rows[-1] |= {"settings": "NCC", "version": "1.4", "features_s": ""}
    rows[-1] |= {"voxelopt_as_smooth": "VoxelOpt, b", "dio_as_smooth": "DIO, c"}
    return rows


def test_a_peer_stands_beside_ours_at_its_smoothness(tmp_path: Path) -> None:
    write_rows(tmp_path / "peers_ixi6.csv", peer_rows())
    lines = block(MEASURED, tmp_path).splitlines()
    assert "| VoxelOpt |  | defaults | .618 | .301 | 0.21 | 500 |  |  |" in lines
    beside = ".604 / .229 / 0.22 | .643 / .241 / 2.20"
    assert f"| greedy | 1.4 | NCC | .632 | .239 | 4.95 | 500 | {beside} |" in lines
    assert not [line for line in lines if line.startswith(("| VoxelOpt, b", "| DIO, c"))]


def test_the_headline_has_ours_what_of_dio_is_as_smooth_and_peers(tmp_path: Path) -> None:
    write_rows(tmp_path / "peers_ixi6.csv", peer_rows())
    lines = block(README, tmp_path).splitlines()
    assert [line.split(" |")[0] for line in lines if line.startswith("| ")][2:] == [
        "| VoxelOpt", "| DIO", "| DIO, c", "| greedy",
    ]  # fmt: skip
    assert "| DIO, c | .643 | .241 | 2.20 | 500 |" in lines


def test_a_card_shows_whole_pairs_as_the_method_chooses_them(tmp_path: Path) -> None:
    row = {"section": "pair", "shape": "(96, 80, 128)", "batch": "64", "precision": "fast"}
    row |= {"time_us": "1234.5", "pairs_per_s": "810", "peak_mib": "2048", "card": "Card"}
    names = ("default, chosen, graphs", "default, chosen, launches", "default, (1, 1), graphs")
    rows = [{**row, "name": name} for name in names]
    write_rows(tmp_path / "voxelopt_gpu_card.csv", rows)
    lines = block(README, tmp_path).splitlines()
    shown = [line for line in lines if line.startswith("| Card")]
    assert shown == ["| Card | 96 x 80 x 128 | default, fast | 64 | 1.23 | 810 | 2,048 |"]


def test_whole_runs_show_the_last_of_each_number_of_workers(tmp_path: Path) -> None:
    row = {"data": "brains", "pairs": "552", "dice_mean": "0.5482", "sdlogj": "0.39", "cpu": "C"}
    runs = [("1", "1000"), ("2", "1"), ("2", "12345.6")]
    rows = [{**row, "workers": workers, "pairs_per_hour": rate} for workers, rate in runs]
    write_rows(tmp_path / "cohort_run.csv", rows)
    lines = block(README, tmp_path).splitlines()
    shown = [line for line in lines if line.startswith("| brains")]
    assert shown == [
        "| brains | 552 | 1 | 1,000 | .548 | .390 |",
        "| brains | 552 | 2 | 12,346 | .548 | .390 |",
    ]


@pytest.mark.parametrize("text", ["nothing", BEGIN, END + BEGIN, f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_page_without_its_marks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"README.md must have <!-- measured: begin"):
        rewritten(README, text)
