"""Whether `cohort plan` foretells the time of a run: three sizes of a real cohort, two workers.

    python benchmarks/plan_accuracy.py ../shared/data/ixi_t1_2mm

Ingests the first 8, 16 and 24 brains at 96 x 112 x 96, 2 mm, plans all ordered pairs with the
default settings after a trial in two processes, registers them on two workers, and compares: both
times are from the start of the workers to the last commit. Rows are appended to
``benchmarks/results/plan_accuracy.csv``.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cohort.data.ingest import IngestSettings, ingest
from cohort.data.store import CohortStore
from cohort.engine.budgets import subjects_at_hand
from cohort.engine.calibrate import calibrate
from cohort.engine.choices import PlanSettings
from cohort.engine.doctor import warm
from cohort.engine.estimate import estimate
from cohort.engine.plan import open_run, tiles_of
from cohort.engine.run import run
from cohort.engine.team import Team
from cohort.studies.bench.machine import cpu_name

RESULTS = Path(__file__).parent / "results" / "plan_accuracy.csv"
WORKERS = 2
COLUMNS = [
    "data", "subjects", "pairs", "tiles", "trial_s", "trial_pairs", "pair_s", "start_s",
    "predicted_s", "measured_s", "ratio", "cpu", "date",
]  # fmt: skip


def measure(store: CohortStore, run_dir: Path) -> dict[str, Any]:
    start = time.perf_counter()
    measured = calibrate(store, PlanSettings(workers=WORKERS), Team(WORKERS))
    trial_s = time.perf_counter() - start
    spec = open_run(run_dir, store, PlanSettings(workers=WORKERS, measured=measured))
    fit = subjects_at_hand(measured, WORKERS)
    predicted = estimate(tiles_of(run_dir, spec), WORKERS, measured, fit)
    took = run(run_dir, store, team=Team(WORKERS)).elapsed_s
    return {
        "subjects": len(spec.subject_ids),
        "pairs": spec.n_pairs,
        "tiles": spec.n_tiles,
        "trial_s": f"{trial_s:.1f}",
        "trial_pairs": measured.pairs,
        "pair_s": f"{measured.pair_s:.4f}",
        "start_s": f"{measured.start_s:.1f}",
        "predicted_s": f"{predicted.elapsed_s:.1f}",
        "measured_s": f"{took:.1f}",
        "ratio": f"{predicted.elapsed_s / took:.3f}",
    }


def some_of(source: Path, folder: Path, names: Sequence[str]) -> Path:
    """A source with the files of some subjects."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
        for name in names:
            shutil.copy(source / kind / name, folder / kind / name)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scans", type=Path, help="the folder ixi_t1_2mm")
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 24])
    asked = parser.parse_args()
    for name, seconds, _ in warm():
        print(f"compiled for {name} in {seconds:.1f} s")
    about = {
        "data": asked.scans.name,
        "cpu": cpu_name(threads=WORKERS),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    names, rows = sorted(path.name for path in (asked.scans / "images").iterdir()), []
    with tempfile.TemporaryDirectory() as folder:
        for size in asked.sizes:
            source = some_of(asked.scans, Path(folder) / f"source{size}", names[:size])
            path = Path(folder) / f"{size}.zarr"
            settings = IngestSettings(grid="96x112x96@2mm", align="center")
            ingest(source, path, settings, workers=WORKERS)
            rows.append({**about, **measure(CohortStore.open(path), Path(folder) / f"run{size}")})
            print(rows[-1], flush=True)
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not file.tell():
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
