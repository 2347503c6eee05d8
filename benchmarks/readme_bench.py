"""The README's table of `cohort bench`, from the studies that are kept in the results."""

import json
from pathlib import Path

from benchmarks.markdown_tables import Row, paragraph, rows_of, table, whole

NAMES = {"voxelopt": "VoxelOpt", "pdd_net": "PDD-Net", "dio": "DIO"}


def bench_cells(results: Path) -> list[str]:
    """Pairs per hour of each method at each shape, of every machine that was measured."""
    parts = []
    for folder in sorted(results.glob("bench_*")):
        machine = json.loads((folder / "machine.json").read_bytes())
        cells = [
            row
            for row in rows_of(folder / "cells.csv")
            if row["status"] == "ok" and row["batch"] == "1" and not row["settings"]
        ]
        where = machine.get("card") or f"one core of an {machine['processor']}"
        intro = paragraph(
            f"Pairs per hour on {where}, features at hand, by the clock and in brackets by the "
            "processor's own time, as something else ran beside it (`cohort bench`); synthetic "
            "heads with labels and known displacements. Dice, endpoint error and memory are those "
            "of the largest:"
        )
        parts += [intro, _table(cells)]
    return parts


def _table(cells: list[Row]) -> str:
    """A row a method, a column a shape; Dice, endpoint error and memory at the largest."""
    shapes = list(dict.fromkeys(row["shape"] for row in cells))
    found = {(row["method"], row["shape"]): row for row in cells}
    lines = []
    for method, name in NAMES.items():
        own = [found.get((method, shape)) for shape in shapes]
        known = [row for row in own if row is not None]
        if known:
            last = known[-1]
            measured = f"{float(last['dice_mean']):.3f}".lstrip("0"), f"{float(last['epe_mm']):.2f}"
            rates = ["" if row is None else _rate(row) for row in own]
            lines.append((name, *rates, *measured, whole(last["peak_mib"])))
    titles = " | ".join(shape.replace("x", " x ") for shape in shapes)
    return table(f"| {titles} | Dice | EPE, mm | MiB", lines)


def _rate(row: Row) -> str:
    by_processor = 3600 / float(row["register_cpu_s"])
    return f"{whole(row['pairs_per_hour'])} ({by_processor:,.0f})"
