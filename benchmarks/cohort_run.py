"""Whole runs on the 24 raw brains: pairs per hour for one worker and for two, and where time goes.

    python benchmarks/cohort_run.py ../shared/data/ixi_t1_2mm --repeats 3

Ingests the scans at 96 x 112 x 96, 2 mm, centres of intensity matched, then registers and measures
all 552 ordered pairs with the default settings, 148 structures each, for each number of workers in
turn, and that as often as asked: what else the machine does changes from minute to minute, so one
worker and two are compared within each round. Kernels are compiled before. The columns ending in
``_s`` are seconds of a worker a pair, by kind of work, as ``cohort status`` prints them;
``beside_s`` is their sum without the registration. Start-up of the processes is in none of them,
but in the pairs per hour. Rows are appended to ``benchmarks/results/cohort_run.csv``.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
import statistics
import tempfile
from pathlib import Path
from typing import Any

from cohort.data.ingest import IngestSettings, ingest
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.doctor import warm
from cohort.engine.events import pairs_per_hour, seconds_a_pair
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.engine.summary import summarise
from cohort.engine.team import Team
from cohort.studies.bench.machine import cpu_name

RESULTS = Path(__file__).parent / "results" / "cohort_run.csv"
# fmt: off
KINDS = ("register", "metrics", "prepare", "read", "commit", "other", "waiting")
COLUMNS = [
    "data", "pairs", "workers", "pairs_per_hour", *(f"{kind}_s" for kind in KINDS), "beside_s",
    "dice_before", "dice_mean", "sdlogj", "cpu", "date",
]
# fmt: on


def measure(store: CohortStore, run_dir: Path, pairs: str, workers: int) -> dict[str, Any]:
    open_run(run_dir, store, PlanSettings(pairs=pairs))
    run(run_dir, store, team=Team(workers))
    summary, split = summarise(read_rows(run_dir)), seconds_a_pair(run_dir)
    seconds = {f"{kind}_s": f"{split.get(kind, 0.0):.4f}" for kind in KINDS}
    beside = sum(value for kind, value in split.items() if kind != "register")
    return {
        "pairs": summary.ok,
        "workers": workers,
        "pairs_per_hour": f"{pairs_per_hour(run_dir) or 0:.0f}",
        **seconds,
        "beside_s": f"{beside:.4f}",
        "dice_before": f"{summary.dice_before:.4f}",
        "dice_mean": f"{summary.dice_mean:.4f}",
        "sdlogj": f"{summary.sdlogj:.4f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scans", type=Path, help="the folder ixi_t1_2mm")
    parser.add_argument("--pairs", default="all", help="as for cohort register")
    parser.add_argument("--repeats", type=int, default=1, help="rounds of one worker and two")
    asked = parser.parse_args()
    for name, seconds, _ in warm():
        print(f"compiled for {name} in {seconds:.1f} s")
    about = {
        "data": asked.scans.name,
        "cpu": cpu_name(threads=2),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cohort.zarr"
        ingest(asked.scans, path, IngestSettings(grid="96x112x96@2mm", align="center"), workers=1)
        for turn in range(asked.repeats):
            for workers in (1, 2):
                run_dir = Path(folder) / f"run{turn}-{workers}"
                row = measure(CohortStore.open(path), run_dir, asked.pairs, workers)
                rows.append({**about, **row})
                print(row, flush=True)
    rates = [float(str(row["pairs_per_hour"])) for row in rows]
    work = [
        2 * sum(float(str(row[f"{kind}_s"])) for kind in KINDS) / row["workers"] for row in rows
    ]
    for what, found in (("with start-up", rates), ("without", [1 / seconds for seconds in work])):
        gains = [two / one for one, two in zip(found[::2], found[1::2], strict=True)]
        said = ", ".join(f"{gain:.2f}" for gain in gains)
        print(f"two workers over one, {what}: {said}; median {statistics.median(gains):.2f}")
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not file.tell():
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
