"""The measured figures of the two README files, made of the committed results.

    make readme

Rewrites what stands between the two marks in ``README.md``, which has what a newcomer asks for, and
``benchmarks/README.md``, which has the rest, by the files of ``benchmarks/results``. A file that is
not there has no table. ``tests/test_readme_table.py`` fails where pages and results differ.
"""

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.markdown_tables import fraction, machine, paragraph, rows_of, table, whole
from benchmarks.readme_bench import bench_cells
from benchmarks.readme_dio import (
    dio_brains,
    dio_kernels,
    dio_quality,
    dio_robustness,
    dio_trained,
)
from benchmarks.readme_peers import headline, peers

PROJECT = Path(__file__).parents[1]
RESULTS = PROJECT / "benchmarks" / "results"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
# rows of voxelopt_quality.csv that are shown, and how they are called there
QUALITY = {
    "published settings, MIND, full grid": "published settings on the full grid, MIND",
    "default level settings, MIND": "`VoxelOpt(features=MindSSC())`",
    "default": "`VoxelOpt()`",
}
# the same of pdd_quality.csv
PDD_QUALITY = {
    "default": "`PDDNet()`",
    "MIND": "`PDDNet(features=MindSSC(), weights=(10, 1, 4, 1))`",
    "pooled min-convolution": "with the published pooled min-convolution",
    "mean field alone": "with the mean field alone",
    "first stage alone": "its first stage alone",
    "two_warp preset, MIND, scale 100": "`PDDNet.two_warp(MindSSC())`, cost times 100",
}
# cases of pdd_cpu.csv that are shown
PDD_CASES = (
    "correlation 29³ x 11³ x 24",
    "round of messages 29³ x 11³",
    "dense match 29³ x 11³ x 24",
    "forward and backward, 12 x 16 x 12, 7³, 16 channels",
    "fit, 50 steps, 29³ x 11³",
)


def kernels(results: Path) -> list[str]:
    """The whole pair of the last run of ``voxelopt_cpu.py``, definition and kernels."""
    pair = {
        row["implementation"]: row
        for row in rows_of(results / "voxelopt_cpu.csv")
        if row["case"].startswith("whole pair")
    }
    if not pair:
        return []
    reference, kernel = pair["reference"], pair["kernel"]
    ratio = float(reference["median_ms"]) / float(kernel["median_ms"])
    intro = paragraph(
        "A pair of 96 x 80 x 128 voxels with 14 channels at the published settings, features "
        f"ready, on one core of an {machine(kernel)} (`benchmarks/voxelopt_cpu.py`):"
    )
    head = "| ms | times as fast | MiB beyond the inputs"
    names = {"plain PyTorch, the definition": reference, "compiled kernels": kernel}
    lines = [
        (name, whole(row["median_ms"]), "1" if row is reference else f"{ratio:.1f}",
         whole(row["peak_extra_mib"]))
        for name, row in names.items()
    ]  # fmt: skip
    return [intro, table(head, lines)]


def quality(results: Path) -> list[str]:
    """What the defaults change, from ``voxelopt_quality.csv``."""
    rows = {row["settings"]: row for row in rows_of(results / "voxelopt_quality.csv")}
    chosen = {name: rows[settings] for settings, name in QUALITY.items() if settings in rows}
    if not chosen:
        return []
    before = fraction(next(iter(chosen.values()))["dice_before"])
    intro = paragraph(
        "Six affinely aligned brain pairs, 96 x 112 x 96 voxels of 2 mm, 148 structures, Dice "
        f"{before} before (`benchmarks/voxelopt_quality.py`):"
    )
    lines = []
    for name, row in chosen.items():
        smooth = fraction(row["dice_mean"]), fraction(row["sdlogj"])
        lines.append((name, *smooth, f"{float(row['time_ratio']):.2f}"))
    return [intro, table("| Dice | sd ln det J | time, published settings 1", lines)]


def pdd_quality(results: Path) -> list[str]:
    """PDD-Net's defaults and presets, from ``pdd_quality.csv``."""
    rows = {row["settings"]: row for row in rows_of(results / "pdd_quality.csv")}
    chosen = {name: rows[settings] for settings, name in PDD_QUALITY.items() if settings in rows}
    if not chosen:
        return []
    intro = paragraph(
        "PDD-Net on the same pairs; time is again that of VoxelOpt's published settings on each "
        "pair (`benchmarks/pdd_quality.py`):"
    )
    lines = [
        (name, fraction(row["dice_mean"]), fraction(row["sdlogj"]),
         f"{100 * float(row['folding']):.2f}", f"{float(row['time_ratio']):.2f}")
        for name, row in chosen.items()
    ]  # fmt: skip
    return [intro, table("| Dice | sd ln det J | folding, % | time", lines)]


def pdd_kernels(results: Path) -> list[str]:
    """PDD-Net's match and fit, the last run of each in ``pdd_cpu.csv``."""
    last = {(row["case"], row["implementation"]): row for row in rows_of(results / "pdd_cpu.csv")}
    lines = []
    for case in PDD_CASES:
        keys = [(case, name) for name in ("reference", "kernel")]
        if not last.keys() >= set(keys):
            continue
        pair = [last[key] for key in keys]
        slow, fast = (float(row["median_ms"]) for row in pair)
        memory = [whole(row["peak_extra_mib"]) for row in pair]
        lines.append((case, whole(str(slow)), whole(str(fast)), f"{slow / fast:.0f}", *memory))
    if not lines:
        return []
    intro = paragraph(
        "PDD-Net's kernels, control points x displacements x channels, on one core of an "
        f"{machine(next(iter(last.values())))} (`benchmarks/pdd_cpu.py`):"
    )
    head = "| plain PyTorch, ms | compiled, ms | times as fast | MiB | MiB compiled"
    return [intro, table(head, lines)]


def cohorts(results: Path) -> list[str]:
    """Whole runs of ``cohort register``, the last of each kind in ``cohort_run.csv``."""
    last = {(row["data"], row["workers"]): row for row in rows_of(results / "cohort_run.csv")}
    if not last:
        return []
    lines = [
        (row["data"], row["pairs"], row["workers"], whole(row["pairs_per_hour"]),
         fraction(row["dice_mean"]), fraction(row["sdlogj"]))
        for row in last.values()
    ]  # fmt: skip
    intro = paragraph(
        "Whole runs of `cohort register`, reading, registering, measuring and writing, on an "
        f"{machine(next(iter(last.values())))} (`benchmarks/cohort_run.py`):"
    )
    return [intro, table("data | pairs | workers | pairs per hour | Dice | sd ln det J", lines)]


def gpus(results: Path) -> list[str]:
    """Whole pairs on each card that ``voxelopt_gpu.py`` has run on."""
    lines = []
    for path in sorted(results.glob("voxelopt_gpu_*.csv")):
        for row in rows_of(path):
            if row["section"] == "pair" and row["name"].endswith("chosen, graphs"):
                size = " x ".join(re.findall(r"\d+", row["shape"]))
                settings = f"{row['name'].partition(',')[0]}, {row['precision']}"
                each_ms = f"{float(row['time_us']) / 1000:.2f}"
                speed = whole(row["pairs_per_s"]), whole(row["peak_mib"])
                lines.append((row["card"], size, settings, row["batch"], each_ms, *speed))
    if not lines:
        return []
    head = "card | voxels | settings | pairs at once | ms a pair | pairs a second | MiB"
    return ["On a GPU, features ready (`benchmarks/voxelopt_gpu.py`):", table(head, lines)]


# of each page what stands between its marks, in order
PAGES: dict[Path, tuple[Callable[[Path], list[str]], ...]] = {
    PROJECT / "README.md": (headline, bench_cells, cohorts, gpus),
    PROJECT / "benchmarks" / "README.md": (
        kernels, pdd_kernels, dio_kernels, quality, peers, pdd_quality, dio_quality, dio_brains,
        dio_robustness, dio_trained,
    ),
}  # fmt: skip


def block(page: Path, results: Path = RESULTS) -> str:
    """The tables of a page, as they stand between its marks."""
    parts = [part for one in PAGES[page] for part in one(results)]
    return "\n\n".join((BEGIN, *parts, END))


def rewritten(page: Path, text: str, results: Path = RESULTS) -> str:
    """The text of a page with its block made anew.

    Raises:
        ValueError: unless each mark stands in it once, in their order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in after:
        raise ValueError(f"{page} must have {BEGIN} and then {END}, once each")
    return f"{before}{block(page, results)}{after}"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rewritten(page, page.read_text()))
