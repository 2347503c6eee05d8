"""DIO's iterations on one CPU core: the compiled kernels beside plain torch, in one run.

    taskset -c 0 python -m benchmarks.dio_cpu                 (Linux, a few minutes)

The cases are one iteration of each solver on features of 96 x 112 x 96 voxels, and a force with its
gradient as in training, there against the definition. Results are first compared, then timed in
turn, plain torch and kernels alternating. Rows are appended to ``benchmarks/results/dio_cpu.csv``.

The floor is the longer of two times: of the bytes that must come from or go to memory at this
machine's measured reading rate, and of the operations at the rate of its matrix product; both are
counted in :mod:`cohort.studies.bench.floors`.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
import os
from pathlib import Path

import numba
import numpy as np
import torch

from benchmarks.dio_cases import Case, cases
from benchmarks.pdd_cpu import COLUMNS
from benchmarks.voxelopt_cpu import milliseconds, peak_extra_mib
from cohort.studies.bench.machine import Rates, cpu_name, measured_rates

RESULTS = Path(__file__).parent / "results" / "dio_cpu.csv"


def rows_of(name: str, case: Case, runs: int, rates: Rates) -> list[dict[str, str]]:
    """Compare, time and measure the memory of one case."""
    expected, found = case.alike[0](), case.alike[1]()
    error = float((expected - found).norm() / expected.norm())
    if not error <= case.tolerance:
        raise SystemExit(f"{name}: they differ by {error:.2g}")
    floor = 1e3 * max(case.bytes / rates.bytes, case.operations / rates.operations)
    calls = {"plain torch": case.plain, "kernel": case.kernel}
    memory = {side: peak_extra_mib(call) for side, call in calls.items()}
    spent: dict[str, list[float]] = {side: [] for side in calls}
    for _ in range(runs):
        for side, call in calls.items():
            spent[side] += [milliseconds(call) for _ in range(3 if side == "kernel" else 1)]
    rows: list[dict[str, str]] = []
    for side, times in spent.items():
        low, median, high = np.quantile(times, [0.2, 0.5, 0.8])
        row = {"case": name, "implementation": side, "runs": str(len(times))}
        row |= {"median_ms": f"{median:.1f}", "p20_ms": f"{low:.1f}", "p80_ms": f"{high:.1f}"}
        row |= {"peak_extra_mib": f"{memory[side]:.0f}", "floor_ms": f"{floor:.1f}"}
        rows.append({**row, "over_floor": f"{median / floor:.1f}"})
        print(" ".join(f"{value:>10}" for value in rows[-1].values()), flush=True)
    ratio = np.median(spent["plain torch"]) / np.median(spent["kernel"])
    print(f"{'':>10} {ratio:.1f} times as fast", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=5, help="timed runs of plain torch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if (cores := len(os.sched_getaffinity(0))) > 1:
        raise SystemExit(f"pin this to one core (taskset -c 0 ...): it may use {cores}")
    rates = measured_rates(torch.device("cpu"))
    reads, multiplies = rates.bytes / 1e9, rates.operations / 1e9
    print(f"reads {reads:.1f} GB/s, multiplies matrices at {multiplies:.0f} GFLOP/s")
    about = {
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    for name, case in cases().items():
        rows = rows_of(name, case(), options.runs, rates)
        with RESULTS.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if not file.tell():
                writer.writeheader()
            writer.writerows({**row, **about} for row in rows)


if __name__ == "__main__":
    main()
