"""A run of the engine from its start to its last row, for a number of workers."""

import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from cohort.config.method import method_config
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.events import pairs_per_hour, seconds_a_pair
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.engine.spec import Device
from cohort.engine.summary import summarise
from cohort.engine.team import Team
from cohort.errors import UsageError
from cohort.studies.bench.population import Pairs
from cohort.studies.bench.settings import Variant, size_text
from cohort.studies.bench.timing import spread

KINDS = ("register", "metrics", "prepare", "read", "commit", "other", "waiting")


@dataclass(frozen=True)
class RunTask:
    """A whole run: who is registered how, and by how many workers."""

    pairs: Pairs
    variant: Variant
    device: Device
    workers: int

    @property
    def key(self) -> str:
        """Name of its file."""
        size = size_text(self.pairs.shape)
        return f"run {self.variant.name} {size} {self.pairs.run} {self.device} {self.workers}"


def measure_run(task: RunTask, folder: Path) -> dict[str, Any]:
    """The row of a whole run; ``folder`` is its run's, which is begun anew and taken away.

    Throughput is told with the start of the workers (``pairs_per_hour``) and without: seconds of a
    worker a pair (``busy_s``), of which ``waiting_s`` are those between its tiles. ``register_s``
    is the median of the pairs, as its quartiles are theirs; other kinds are means. Processor time
    is of the workers and of the driver, their start included.

    Raises:
        UsageError: ``E_BENCH_CORES`` for more workers than cores.
    """
    team = _team(task)
    shutil.rmtree(folder, ignore_errors=True)
    store = CohortStore.open(task.pairs.store)
    method = method_config(task.variant.method, None, list(task.variant.settings))
    plan = PlanSettings(method, task.pairs.run, device=task.device, workers=task.workers)
    open_run(folder, store, plan)
    before = _processor_s()
    report = run(folder, store, team=team)
    processor_s = _processor_s() - before
    rows, split = read_rows(folder), seconds_a_pair(folder)
    good, summary = rows.filter(pl.col("status") == "ok"), summarise(rows)
    if not len(good):
        worst = rows.row(0, named=True)
        return {"status": worst["status"], "message": worst["message"]}
    registered = spread(good["register_s"].to_list())
    found = {
        "pairs": len(rows),
        "failed": report.failed,
        "pairs_per_hour": pairs_per_hour(folder),
        "busy_s": sum(split.values()),
        **{f"{kind}_s": split.get(kind, 0.0) for kind in KINDS},
        "register_s": registered.median,
        "register_q1_s": registered.q1,
        "register_q3_s": registered.q3,
        "processor_s": processor_s / len(rows),
        "dice_mean": summary.dice_mean,
        "epe_mm": summary.epe_mm,
        "sdlogj": summary.sdlogj,
    }
    shutil.rmtree(folder)
    return found


def _team(task: RunTask) -> Team:
    if task.device == "cuda":
        cards = torch.cuda.device_count()
        return Team(gpus=tuple(number % cards for number in range(task.workers)))
    cores = len(os.sched_getaffinity(0))
    if task.workers > cores:
        raise UsageError(
            "E_BENCH_CORES", f"{task.workers} workers of one thread need as many cores, has {cores}"
        )
    return Team(task.workers)


def _processor_s() -> float:
    """Seconds of this process and of all children that are done."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
