"""Measuring in a process of its own: its peak of memory is its own, and a crash is a row."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cohort.engine.memory import is_out_of_memory
from cohort.studies.bench.cell import CellTask, measure_cell
from cohort.studies.bench.ended import end_of
from cohort.studies.bench.machine import one_core
from cohort.studies.bench.peers import PeerTask, measure_peer
from cohort.studies.bench.rooflines import KernelTask, measure_kernels

Task = CellTask | PeerTask | KernelTask


def measured_apart(task: Task, *, fresh_cache: bool = False) -> dict[str, Any]:
    """What was found, with ``status`` ``ok``; or why nothing was: ``status`` and ``message``.

    Args:
        task: what is measured.
        fresh_cache: whether its process finds no compiled kernels, so that the first turn has to
            compile all of them.
    """
    with tempfile.TemporaryDirectory(prefix="cohort-bench-") as folder:
        answer = Path(folder) / "row.json"
        caches = {}
        if fresh_cache:
            caches = dict.fromkeys(("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR"), folder)
        done = subprocess.run(
            [sys.executable, "-m", "cohort.studies.bench.apart", str(answer)],
            input=json.dumps({"kind": type(task).__name__, "task": asdict(task)}),
            env=os.environ | caches,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if answer.is_file():
            return json.loads(answer.read_text())
    return {"status": "E_PROCESS", "message": end_of(done)}


def found_here(task: Task) -> dict[str, Any]:
    """What is found in this process; whatever goes wrong is its status."""
    try:
        found = _measure(task)
    except Exception as error:
        code = getattr(error, "code", "E_OOM" if is_out_of_memory(error) else "E_METHOD")
        message = getattr(error, "message", f"{type(error).__name__}: {error}")
        return {"status": code, "message": message}
    return {"status": "ok", "message": "", **found}


def _measure(task: Task) -> dict[str, Any]:
    if isinstance(task, CellTask):
        return measure_cell(task)
    return measure_peer(task) if isinstance(task, PeerTask) else measure_kernels(task)


def _task_of(told: dict[str, Any]) -> Task:
    """JSON has lists where tasks have tuples."""
    kinds = {one.__name__: one for one in (CellTask, PeerTask, KernelTask)}
    fields: dict[str, Any] = {
        name: tuple(tuple(one) if isinstance(one, list) else one for one in value)
        if isinstance(value, list)
        else value
        for name, value in told["task"].items()
    }
    return kinds[told["kind"]](**fields)


def main() -> None:
    """Measure the task on stdin; what is found goes to the file that is named."""
    task = _task_of(json.load(sys.stdin))
    if task.device == "cpu":
        one_core()
    Path(sys.argv[1]).write_text(json.dumps(found_here(task)))


if __name__ == "__main__":
    main()
