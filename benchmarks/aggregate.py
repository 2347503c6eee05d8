"""Seconds and memory to aggregate a run of a million pairs with 36 or 148 structures.

    PYTHONPATH=. python benchmarks/aggregate.py --part-rows 1024 64
    PYTHONPATH=. python benchmarks/aggregate.py --structures 148

Makes the parts of a run of 1,001 subjects in a temporary folder: Dice of structures before and
after, and eight measures of the pair, each a mean with effects of both subjects and noise. Then a
process of its own reads them with all checksums, makes every table with every interval, and writes
them as CSV, Parquet and Markdown. ``read_s`` and ``tables_s`` are its seconds without the start of
Python, ``peak_mib`` its largest resident set. 1,024 rows are the tiles of 32 x 32 pairs that
a plan of a million pairs makes by itself, 64 those of ``--tile-size 8``. Rows are appended to
``benchmarks/results/aggregate.csv``.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cohort.config.method import MethodConfig
from cohort.data.geometry import Grid
from cohort.engine.results import SCHEMA
from cohort.engine.spec import RunSpec
from cohort.report.aggregate import run_tables
from cohort.report.publish import write_tables
from cohort.report.run_values import RunValues
from cohort.studies.bench.machine import cpu_name, peak_bytes

RESULTS = Path(__file__).parent / "results" / "aggregate.csv"
COLUMNS = ["pairs", "structures", "part_rows", "parts", "mib_on_disk", "read_s", "tables_s",
           "total_s", "peak_mib", "cpu", "date"]  # fmt: skip
SUBJECTS, PAIRS, STRUCTURES = 1_001, 1_000_000, 36  # structures: unless told
MEASURED = ("dice_mean", "dice_before", "ncc", "ncc_before", "folding", "sdlogj",
            "displacement_mean_mm", "elapsed_s")  # fmt: skip
SCORES = ("dice", "dice_structures_before")


def subject_names() -> list[str]:
    return [f"sub-{number:05d}" for number in range(SUBJECTS)]


def write_spec(run_dir: Path) -> None:
    (run_dir / "parts").mkdir(parents=True)
    digest = "0" * 64
    spec = RunSpec(
        plan_digest=digest, created_at="", store="", store_digest=digest, pairs_digest=digest,
        grid=Grid.axis_aligned((96, 112, 96), [2.0] * 3, np.zeros(3)).to_json(),
        subject_ids=tuple(subject_names()), subject_digests=(digest,) * SUBJECTS,
        has_labels=True, has_truth=False, pairs="all", seed=0, n_pairs=PAIRS, n_tiles=1,
        tile_size=1, method=MethodConfig(), fingerprint="", versions={},
    )  # fmt: skip
    (run_dir / "run.json").write_text(spec.model_dump_json())


def write_parts(run_dir: Path, part_rows: int, structures: int) -> int:
    """Parts of so many rows; returns their number."""
    rng = np.random.default_rng(0)
    fixed, moving = np.divmod(np.arange(SUBJECTS**2), SUBJECTS)
    apart = np.flatnonzero(fixed != moving)[:PAIRS]
    effects = 0.02 * rng.standard_normal((SUBJECTS, structures))
    names = pa.array(subject_names())
    starts = range(0, PAIRS, part_rows)
    for number, start in enumerate(starts):
        rows = apart[start : start + part_rows]
        noise = 0.01 * rng.standard_normal((len(rows), structures))
        values = 0.7 + effects[fixed[rows]] + effects[moving[rows]] + noise
        table = part(names.take(fixed[rows]), names.take(moving[rows]), values)
        path = run_dir / "parts" / f"{number:05d}.parquet"
        pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    return len(starts)


def part(fixed: pa.Array, moving: pa.Array, values: np.ndarray) -> pa.Table:
    rows, structures = values.shape
    labels = pa.array(np.tile(np.arange(1, structures + 1, dtype=np.int32), rows))
    ends = np.arange(rows + 1, dtype=np.int32) * structures
    given = {"fixed": fixed, "moving": moving, "status": pa.array(["ok"] * rows)}
    given |= {name: pa.array(values[:, index]) for index, name in enumerate(MEASURED)}
    for name in SCORES:
        given[name] = pa.MapArray.from_arrays(ends, labels, pa.array(values.ravel()))
    columns = [given[one.name] if one.name in given else pa.nulls(rows, one.type) for one in SCHEMA]
    return pa.table(columns, schema=SCHEMA)


def aggregate(run_dir: Path) -> None:
    """What the process of its own does; prints its figures."""
    began = time.perf_counter()
    run = RunValues.of_run(run_dir)
    read = time.perf_counter()
    write_tables(run_dir / "tables", run_tables(run, {}))
    done = time.perf_counter()
    figures = {
        "pairs": len(run.pairs),
        "read_s": f"{read - began:.1f}",
        "tables_s": f"{done - read:.1f}",
        "total_s": f"{done - began:.1f}",
        "peak_mib": f"{peak_bytes() / 2**20:.0f}",
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part-rows", type=int, nargs="+", default=[1024, 64])
    parser.add_argument("--structures", type=int, default=STRUCTURES)
    parser.add_argument("--aggregate", type=Path, help="aggregate this run and print the figures")
    asked = parser.parse_args()
    if asked.aggregate:
        return aggregate(asked.aggregate)
    for part_rows in asked.part_rows:
        with tempfile.TemporaryDirectory() as folder:
            run_dir = Path(folder) / "run"
            write_spec(run_dir)
            parts = write_parts(run_dir, part_rows, asked.structures)
            size = sum(path.stat().st_size for path in (run_dir / "parts").iterdir())
            command = [sys.executable, __file__, "--aggregate", str(run_dir)]
            shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row = {
            **json.loads(shown.splitlines()[-1]),
            "structures": asked.structures,
            "part_rows": part_rows,
            "parts": parts,
            "mib_on_disk": f"{size / 2**20:.0f}",
            "cpu": cpu_name(threads=len(os.sched_getaffinity(0))),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
        print(row, flush=True)
        with RESULTS.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if not file.tell():
                writer.writeheader()
            writer.writerow(row)
    return None


if __name__ == "__main__":
    main()
