"""What a run's safety costs: crumbs, the watchdog and the stop file a pair; parts and their lists.

    PYTHONPATH=. python benchmarks/run_overhead.py

``pair_us`` is what a worker spends beside each pair, ``commit_ms`` a part of 64 rows with all its
checksums made durable, ``seal_us`` the check of that part's own checksum, ``listed_s`` and
``swept_s`` the two looks that a driver takes at 50,000 parts before it begins, ``compacted_ms``
each part that is merged. Medians of five; rows are appended to
``benchmarks/results/run_overhead.csv``.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cohort.engine.breadcrumbs import Breadcrumbs
from cohort.engine.compaction import compact
from cohort.engine.leftovers import sweep_run
from cohort.engine.results import commit_part, committed_tiles, part_path
from cohort.engine.seal import seal_fault
from cohort.engine.stop import is_stopped
from cohort.engine.watchdog import Watchdog
from cohort.studies.bench.machine import cpu_name

RESULTS = Path(__file__).parent / "results" / "run_overhead.csv"
PAIRS, PARTS, COMMITS, REPEATS = 5_000, 50_000, 50, 5


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def beside_pairs(run_dir: Path, watchdog: Watchdog) -> None:
    crumbs = Breadcrumbs(run_dir, "00000-00000", epoch=1)
    for _ in range(PAIRS):
        is_stopped(run_dir)
        with crumbs.around([("sub-00001", "sub-00002")]), watchdog.watching(1, lambda: None):
            pass
    crumbs.close()


def commits(run_dir: Path) -> None:
    row = {"fixed": "a", "moving": "b", "status": "ok", "ncc": 0.5,
           "dice": [(label, 0.5) for label in range(36)]}  # fmt: skip
    for number in range(COMMITS):
        tile = f"{number:05d}-00000"
        commit_part(run_dir, tile, [{**row, "tile": tile} for _ in range(64)])


def measured(folder: Path, watchdog: Watchdog) -> dict[str, float]:
    small, large = folder / "small", folder / "large"
    for run_dir in (small, large):
        (run_dir / "parts").mkdir(parents=True)
    for number in range(PARTS):
        (large / "parts" / f"{number:05d}-00000.parquet").touch()
    found = {
        "pair_us": 1e6 * seconds(lambda: beside_pairs(small, watchdog)) / PAIRS,
        "commit_ms": 1e3 * seconds(lambda: commits(small)) / COMMITS,
    }
    content = part_path(small, "00000-00000").read_bytes()
    found["seal_us"] = 1e6 * seconds(lambda: seal_fault(content))
    found["listed_s"] = seconds(lambda: committed_tiles(large))
    found["swept_s"] = seconds(lambda: sweep_run(large))
    found["compacted_ms"] = 1e3 * seconds(lambda: compact(small, 0)) / COMMITS
    return found


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    watchdog, all_ = Watchdog(), []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            all_.append(measured(Path(folder), watchdog))
    row = {name: f"{statistics.median(one[name] for one in all_):.3g}" for name in all_[0]}
    row |= {"cpu": cpu_name(), "date": datetime.date.today().isoformat()}
    is_new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    print(row)


if __name__ == "__main__":
    main()
