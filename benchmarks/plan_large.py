"""What a plan of a hundred million pairs takes: time, and memory above the imports.

    python benchmarks/plan_large.py

A store of 10,001 subjects is played by their records alone, which is all that a plan reads. The
run is planned for 64 workers without a trial, opened again, and its tiles put in order. Appends a
row to ``benchmarks/results/plan_large.csv``.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from cohort.config.method import MethodConfig
from cohort.data.geometry import Grid
from cohort.data.store import CohortStore, Subject
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run, tiles_of
from cohort.engine.spec import RunSpec
from cohort.studies.bench.machine import cpu_name, forget_peak, peak_bytes

RESULTS = Path(__file__).parent / "results" / "plan_large.csv"
SUBJECTS, WORKERS, AT_HAND = 10_001, 64, 900
COLUMNS = ["subjects", "pairs", "tiles", "plan_s", "open_again_s", "tiles_s", "memory_mb", "cpu",
           "date"]  # fmt: skip


def played_store(folder: Path) -> CohortStore:
    """A store of one subject, and of many that have its record."""
    grid = Grid.axis_aligned((16, 16, 16), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    store = CohortStore.create(folder, grid, settings={})
    store.commit(Subject("s00000", np.ones(grid.shape, np.float32)), {"source": None})
    record = (folder / "subjects" / "s00000" / "commit.json").read_text()
    for number in range(1, SUBJECTS):
        own = folder / "subjects" / f"s{number:05d}"
        own.mkdir()
        (own / "commit.json").write_text(record)
    return store


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    MethodConfig().build()  # imports what a method needs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        played_store(folder / "cohort.zarr")
        before, start = forget_peak(), time.perf_counter()
        store, settings = CohortStore.open(folder / "cohort.zarr"), PlanSettings(workers=WORKERS)
        spec = open_run(folder / "run", store, settings)
        planned = time.perf_counter()
        open_run(folder / "run", store, PlanSettings())
        again = time.perf_counter()
        tiles = tiles_of(folder / "run", RunSpec.load(folder / "run"), AT_HAND)
        ordered = time.perf_counter()
        row = {
            "subjects": len(spec.subject_ids),
            "pairs": spec.n_pairs,
            "tiles": len(tiles),
            "plan_s": f"{planned - start:.2f}",
            "open_again_s": f"{again - planned:.2f}",
            "tiles_s": f"{ordered - again:.2f}",
            "memory_mb": f"{(peak_bytes() - before) / 2**20:.0f}",
            "cpu": cpu_name(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
    print(json.dumps(row))
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not file.tell():
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
