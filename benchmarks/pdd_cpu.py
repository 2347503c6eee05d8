"""PDD-Net's dense match on one CPU core: the compiled kernels beside the definitions, in one run.

    taskset -c 0 python -m benchmarks.pdd_cpu                 (Linux, a quarter of an hour)

Features are those of a volume of 192 x 160 x 256 voxels over 3: 64 x 53 x 85. The cases are the
stages of a match of 29³ control points, 11³ labels and 24 channels, whole matches of the three
published sizes, 50 steps of the fit, and forward and backward passes as in training, there also on
a grid as small as that of a hippocampus. Each kernel is first compared with its definition. Rows
are appended to ``benchmarks/results/pdd_cpu.csv``; a definition of minutes runs once.

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
from torch import Tensor

from benchmarks.pdd_cases import GROUPS, Call, Case
from benchmarks.voxelopt_cpu import milliseconds, peak_extra_mib
from cohort.studies.bench.machine import Rates, cpu_name, measured_rates

RESULTS = Path(__file__).parent / "results" / "pdd_cpu.csv"
# fmt: off
COLUMNS = [
    "case", "implementation", "runs", "median_ms", "p20_ms", "p80_ms", "peak_extra_mib",
    "floor_ms", "over_floor", "cpu", "torch", "numba", "date",
]
# fmt: on


def timed(call: Call, runs: int) -> tuple[list[float], Tensor]:
    results: list[Tensor] = []
    times = []
    for _ in range(runs):
        results.clear()
        times.append(milliseconds(lambda: results.append(call())))
    return times, results[0]


def check_parity(name: str, expected: Tensor, actual: Tensor, tolerance: float) -> None:
    error = (expected.double() - actual.double()).abs().max() / expected.abs().max()
    if not error <= tolerance:
        raise SystemExit(f"{name}: they differ by {error:.2g} of the largest value")


def rows_of(name: str, case: Case, runs: int, rates: Rates) -> list[dict[str, str]]:
    """Compare, time and measure the memory of one case."""
    floor = 1e3 * max(case.bytes / rates.bytes, case.operations / rates.operations)
    rows: list[dict[str, str]] = []
    case.kernel()
    times, actual = timed(case.kernel, runs)
    spent, memory = {"kernel": times}, {"kernel": peak_extra_mib(case.kernel)}
    if (reference := case.reference) is not None:
        found: list[tuple[list[float], Tensor]] = []

        def first_run() -> Tensor:
            found.append(timed(reference, 1))
            return found[0][1]

        memory["reference"] = peak_extra_mib(first_run)
        times, expected = found[0]
        if case.alike is not None:
            expected, actual = case.alike[0](), case.alike[1]()
        check_parity(name, expected, actual, case.tolerance)
        spent["reference"] = times if case.long else times + timed(reference, 1)[0]
    for implementation, times in spent.items():
        low, median, high = np.quantile(times, [0.2, 0.5, 0.8])
        row = {"case": name, "implementation": implementation, "runs": str(len(times))}
        row |= {"median_ms": f"{median:.1f}", "p20_ms": f"{low:.1f}", "p80_ms": f"{high:.1f}"}
        row |= {"peak_extra_mib": f"{memory[implementation]:.0f}", "floor_ms": f"{floor:.1f}"}
        rows.append({**row, "over_floor": f"{median / floor:.1f}"})
        print(" ".join(f"{value:>10}" for value in rows[-1].values()), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each kernel")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
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
    for group in options.groups:
        for name, case in GROUPS[group]().items():
            rows = rows_of(name, case, options.runs, rates)
            with RESULTS.open("a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if not file.tell():
                    writer.writeheader()
                writer.writerows({**row, **about} for row in rows)


if __name__ == "__main__":
    main()
