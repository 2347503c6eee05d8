"""The tables of a study, from what is kept: CSV files, and one document for machines."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cohort.data.storage import to_json, write_atomic
from cohort.studies.bench.kept import CELLS, KERNELS, RUNS, Kept, Row, write_table
from cohort.studies.bench.settings import BenchSettings


def write_tables(out: Path, kept: Kept, settings: BenchSettings) -> dict[str, Any]:
    """``cells.csv``, ``kernels.csv``, ``end_to_end.csv`` and ``bench.json`` of all that is kept.

    Rows of earlier calls in the folder stay, whatever this one asks for.
    """
    compiled = {row["variant"]: row.get("first_extra_s") for row in kept.all("compile")}
    cells = [
        {**row, "compile_s": compiled.get(row["variant"])} for row in _sorted(kept.all("cell"))
    ]
    kernels = _once(one for row in kept.all("kernels") for one in row.get("rows", []))
    runs = _with_efficiency(_sorted(kept.all("run")))
    for name, columns, rows in (
        ("cells", CELLS, cells), ("kernels", KERNELS, kernels), ("end_to_end", RUNS, runs),
    ):  # fmt: skip
        write_table(out / f"{name}.csv", columns, rows)
    # a kernel is a row of what was measured together, and a compilation a column of a cell: what
    # failed of them has no row
    left_out = {
        kind: [row for row in kept.all(kind) if row["status"] != "ok"]
        for kind in ("kernels", "compile")
    }
    document = {
        "machine": json.loads((out / "machine.json").read_bytes()),
        "settings": json.loads(json.dumps(asdict(settings), default=str)),
        "cells": cells,
        "kernels": kernels,
        "end_to_end": runs,
        "left_out": left_out,
    }
    write_atomic(out / "bench.json", to_json(document))
    return document


def _once(kernels: Iterable[Row]) -> list[Row]:
    """Each kernel once, though two sets of methods may both have had it measured."""
    found = {(row["method"], row["kernel"], row["shape"], row["device"]): row for row in kernels}
    return list(found.values())


def _sorted(rows: list[Row]) -> list[Row]:
    """By volume, then by method, batch and workers."""
    return sorted(
        rows,
        key=lambda row: (
            row["voxels"], row["shape"], row["variant"], row["device"],
            row.get("batch", 0), row.get("workers", 0),
        ),
    )  # fmt: skip


def _with_efficiency(runs: list[Row]) -> list[Row]:
    """Time of one worker a pair over that of each of several; start-up is in neither."""
    alone = {
        (row["variant"], row["shape"], row["device"]): row["busy_s"]
        for row in runs
        if row["workers"] == 1 and row["status"] == "ok"
    }
    told = []
    for row in runs:
        one = alone.get((row["variant"], row["shape"], row["device"]))
        share = one / row["busy_s"] if one and row["status"] == "ok" else None
        told.append({**row, "efficiency": share})
    return told


def read_tables(out: Path) -> dict[str, Any]:
    """What :func:`write_tables` wrote last."""
    return json.loads((out / "bench.json").read_bytes())
