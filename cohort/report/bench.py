"""``OUT/bench.md``: what a throughput study found, as tables, with how it was measured."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cohort.data.storage import storage_error, write_atomic
from cohort.report.bench_figures import write_figures
from cohort.report.publish import markdown

_PROTOCOL = """\
Each row of methods is a process of its own, on one core where it runs on a CPU. Its first turn is
apart; the device is waited for at both ends of each time; `s` is the median of the turns after it,
with quartiles. Pairs per hour have features at hand, as within a cohort; a cold pair's two
subjects are read and prepared for it alone, with whatever the file system's cache holds. MiB are
the most that the process held beyond what it began with, its kernels included. `processor s` is
below `s` where something else had the core. Compilation is that of a process that finds no compiled
kernels. Clocks and power are read and never set.
"""
_RUNS = """\
Whole runs of the engine, all pairs once: pairs per hour count the start of the workers, all seconds
are of a worker a pair. Those of `register` are the median of the pairs, those of other work means.
Efficiency is the time of one worker a pair over that of each of several, without their start.
`processor_s` of `end_to_end.csv` is a pair's share of all processor time: of workers and driver,
their start included.
"""
_FLOORS = """\
The floor is the longer of two times: of a kernel's bytes at the rate of a sum over much more than
a cache holds, and of its operations at the rate of a product of float32 matrices, both measured in
the same process. Bytes and operations are counted from the kernel's definition.
"""
_PEERS = """\
Separate programs, run beside the methods on the same pairs, each in a process of its own on one
thread, and never part of this package. Seconds are of the call alone, without imports and
conversions; nothing is prepared, so pairs per hour count all of it. MiB are all that the process
held, libraries and scans too. Displacements are measured by the same code as those above.
"""
Row = Mapping[str, Any]


def write_bench(out: Path, hourly_price: float | None = None) -> Path:
    """Write ``bench.md`` and the pictures beside ``bench.json``; returns the page.

    Raises:
        StorageError: if that cannot be read, or they cannot be written.
    """
    try:
        document = json.loads((out / "bench.json").read_bytes())
        pictures = write_figures(out, document["cells"], hourly_price)
    except OSError as error:
        raise storage_error(out, error) from error
    page = out / "bench.md"
    write_atomic(page, bench_markdown(document, pictures).encode())
    return page


def bench_markdown(document: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The page of a study's ``bench.json``."""
    machine = list(document["machine"].items())
    parts = ["# Throughput\n", markdown(["machine", ""], machine), _PROTOCOL]
    left_out = document.get("left_out", {})  # not in those of older versions
    parts += _methods(document["cells"])
    parts += _left_out(left_out.get("compile", ()), ("variant", "shape"), "not compiled apart")
    parts += [f"![{name}]({name}.png)\n" for name in pictures]
    parts += _kernels(document)
    parts += _left_out(left_out.get("kernels", ()), ("methods", "shape", "device"))
    parts += _runs(document["end_to_end"])
    if not any(cell["device"] == "cuda" for cell in document["cells"]):
        parts += ["## GPU\n", "No rows: nothing was measured on a GPU.\n"]
    return "\n".join(parts)


def _methods(cells: Sequence[Row]) -> Iterator[str]:
    good = [cell for cell in cells if cell["status"] == "ok"]
    if good:
        yield "## Methods\n"
        titles = [
            "method", "voxels", "device", "at once", "pairs per hour", "s", "quartiles",
            "processor s", "features s", "cold s", "compile s", "MiB", "Dice", "EPE mm",
            "folding %", "sd ln det J",
        ]  # fmt: skip
        yield markdown(titles, [_method_row(cell) for cell in good])
    measured = [cell for cell in good if cell.get("power_w") or cell.get("device_mib")]
    if measured:
        titles = ["method", "voxels", "at once", "device MiB", "MHz", "W", "J a pair"]
        columns = ("device_mib", "clock_mhz", "power_w", "joules_a_pair")
        rows = [
            [cell["variant"], cell["shape"], cell["batch"], *(_number(cell, c) for c in columns)]
            for cell in measured
        ]
        yield markdown(titles, rows)
    peers = [cell for cell in good if cell.get("version")]
    if peers:
        yield "### Other tools\n"
        yield _PEERS
        rows = [[cell["variant"], cell["version"], cell["settings"]] for cell in peers]
        yield markdown(["tool", "version", "settings"], rows)
    yield from _left_out(cells, ("variant", "shape", "device", "batch"))


def _method_row(cell: Row) -> list[Any]:
    quartiles = f"{cell['register_q1_s']:.3g} to {cell['register_q3_s']:.3g}"
    return [
        cell["variant"],
        cell["shape"],
        cell["device"],
        str(cell["batch"]),
        f"{cell['pairs_per_hour']:,.0f}",
        f"{cell['register_s']:.3g}",
        quartiles,
        *(_number(cell, name) for name in ("register_cpu_s", "prepare_s", "cold_s", "compile_s")),
        f"{cell['peak_mib']:,.0f}",
        _number(cell, "dice_mean"),
        _number(cell, "epe_mm"),
        "" if cell.get("folding") is None else f"{100 * cell['folding']:.3f}",
        _number(cell, "sdlogj"),
    ]


def _kernels(document: Mapping[str, Any]) -> Iterator[str]:
    if not document["kernels"]:
        return
    yield "## Kernels over their floors\n"
    yield _FLOORS
    titles = [
        "method", "kernel", "voxels", "device", "ms", "quartiles", "processor ms", "GB/s",
        "GFLOP/s", "floor ms", "bound", "ms / floor",
    ]  # fmt: skip
    rows = [
        [
            row["method"], row["kernel"], row["shape"], row["device"], f"{row['median_ms']:.3g}",
            f"{row['q1_ms']:.3g} to {row['q3_ms']:.3g}", f"{row['processor_ms']:.3g}",
            f"{row['gb_s']:.0f}", f"{row['gflop_s']:.0f}", f"{row['floor_ms']:.3g}", row["bound"],
            f"{row['over_floor']:.1f}",
        ]
        for row in document["kernels"]
    ]  # fmt: skip
    yield markdown(titles, rows)


def _runs(runs: Sequence[Row]) -> Iterator[str]:
    good = [run for run in runs if run["status"] == "ok"]
    if good:
        yield "## Whole runs\n"
        yield _RUNS
        kinds = ("register", "metrics", "prepare", "read", "commit", "other", "waiting")
        titles = ["method", "voxels", "workers", "pairs", "pairs per hour", "efficiency", *kinds]
        rows = [
            [
                run["variant"], run["shape"], str(run["workers"]), str(run["pairs"]),
                f"{run['pairs_per_hour']:,.0f}", _number(run, "efficiency"),
                *(f"{run[f'{kind}_s']:.4f}" for kind in kinds),
            ]
            for run in good
        ]  # fmt: skip
        yield markdown(titles, rows)
    yield from _left_out(runs, ("variant", "shape", "device", "workers"))


def _left_out(
    rows: Sequence[Row], columns: Sequence[str], title: str = "not measured"
) -> Iterator[str]:
    """What was not measured, and why: never left out in silence."""
    bad = [row for row in rows if row["status"] != "ok"]
    if bad:
        lines = [
            [*(str(row.get(name, "")) for name in columns), f"{row['status']}: {row['message']}"]
            for row in bad
        ]
        yield markdown([*columns, title], lines)


def _number(row: Row, name: str) -> str:
    value = row.get(name)
    return "" if value is None else f"{value:.3g}"
