"""Multi-atlas segmentation: atlases registered to targets by a run, then fused target by target.

``OUT/run`` is an ordinary run that keeps its displacements; ``OUT/targets/ID.json`` says that a
target is done. The same call goes on with what is not; any number of workers gives the same bytes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from cohort.data.processes import in_processes
from cohort.data.storage import storage_error, write_atomic
from cohort.data.store import CohortStore
from cohort.engine.plan import PlanSettings, open_run
from cohort.engine.results import read_table
from cohort.engine.run import DriverOptions, RunReport, run
from cohort.engine.spec import Device, RunSpec
from cohort.engine.team import PLAIN, Team
from cohort.errors import SubjectError, UsageError
from cohort.studies.fusion_plan import RUN, FusionTask, open_fusion, write_pairs
from cohort.studies.fusion_scores import dice_table, target_table
from cohort.studies.fusion_target import NATIVE, RECORDS, WORKING, Job, fuse_target, is_done


@dataclass(frozen=True, eq=False)
class FusionReport:
    """What one call of :func:`fuse` did.

    Attributes:
        done: targets that are segmented, now and before.
        now: how many of them were segmented by this call.
        failed: targets with a code and a sentence each.
        table: see :func:`cohort.studies.fusion_scores.target_table`.
    """

    done: tuple[str, ...]
    now: int
    failed: dict[str, SubjectError]
    table: pl.DataFrame


def register_atlases(
    store: CohortStore,
    out: Path,
    task: FusionTask,
    settings: PlanSettings | None = None,
    *,
    team: Team | Callable[[Device], Team] = PLAIN,
    options: DriverOptions | None = None,
    progress: Callable[[RunReport, int], None] | None = None,
) -> Path:
    """Register every atlas of a task to every target, in ``OUT/run``; returns its path.

    Args:
        store: the cohort.
        out: folder of the fusion.
        task: who is registered to whom.
        settings: method and device; pairs and what is kept are the task's.
        team: who works on it, or who does on the run's kind of device.
        options: what else is asked of the driver.
        progress: as :func:`cohort.engine.run.run` takes it.

    Raises:
        UsageError: ``E_PLAN_MISMATCH`` if the folder holds another run or other pairs, ``E_FUSION``
            if it holds something else.
        Stopped, RunActiveError, StorageError, SchedulerError: as :func:`cohort.engine.run.run`.
    """
    pairs = str(write_pairs(out, task))
    settings = replace(settings or PlanSettings(), pairs=pairs, keep_displacements="all")
    spec = open_run(out / RUN, store, settings)
    run(
        out / RUN,
        store,
        team=(team if isinstance(team, Team) else team(spec.device)).no_more_than(spec.n_tiles),
        progress=progress,
        options=options or DriverOptions(),
    )
    return out / RUN


def fuse(
    store: CohortStore,
    run_dir: Path,
    out: Path,
    task: FusionTask,
    *,
    workers: int = 1,
    progress: Callable[[int, int, int], None] | None = None,
) -> FusionReport:
    """Fuse the atlases of every target that is not segmented yet, and score them all.

    Writes ``OUT/labels`` (targets' own grids), ``OUT/working`` (working grid), ``OUT/dice.csv`` and
    ``OUT/targets.csv``.

    Args:
        store: the cohort.
        run_dir: a run that kept the displacements of the task's pairs.
        out: folder of the fusion.
        task: who is fused onto whom, and how.
        workers: processes that share the targets.
        progress: called with how many targets are done, how many there are, how many failed.

    Raises:
        UsageError: ``E_PLAN_MISMATCH`` if the folder holds another fusion; ``E_FUSION`` if it holds
            something else, or the run keeps no displacements.
        StorageError: if the file system refuses.
        SchedulerError: if a worker process dies.
    """
    spec = RunSpec.load(run_dir)
    if spec.keep_displacements != "all":
        raise UsageError(
            "E_FUSION",
            f"{run_dir} keeps displacements of {spec.keep_displacements} pairs; need a run with"
            " --keep-displacements all",
        )
    open_fusion(out, store, spec, task)
    for name in (NATIVE, WORKING, RECORDS):
        try:
            (out / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(out / name, error) from error
    jobs, failed = _jobs(run_dir, store, out, task)
    waiting = [job for job in jobs if not is_done(job, spec.plan_digest)]
    total = len(task.targets)
    done = len(jobs) - len(waiting)
    for outcome in in_processes(fuse_target, waiting, workers):
        if outcome.code:
            failed[outcome.target] = SubjectError(outcome.code, outcome.message)
        else:
            done += 1
        if progress is not None:
            progress(done, total, len(failed))
    kept = [job for job in jobs if job.target not in failed]
    table = _write_scores(out, store, task, kept)
    now = len([job for job in waiting if job.target not in failed])
    return FusionReport(tuple(job.target for job in kept), now, failed, table)


def _jobs(
    run_dir: Path, store: CohortStore, out: Path, task: FusionTask
) -> tuple[list[Job], dict[str, SubjectError]]:
    """The targets with their atlases, the likest first; and those for which there are none."""
    columns = ["fixed", "moving", "status", "ncc"]
    rows = read_table(run_dir, columns).to_pylist()
    found: dict[str, list[tuple[str, float]]] = {target: [] for target in task.targets}
    wanted = set(task.pairs)
    for row in rows:
        usable = row["status"] == "ok" and row["ncc"] is not None
        if usable and (row["fixed"], row["moving"]) in wanted:
            found[row["fixed"]].append((row["moving"], row["ncc"]))
    jobs, failed = [], {}
    for target, likeness in found.items():
        likeness.sort(key=lambda one: (-one[1], one[0]))
        votes = min(task.select or len(likeness), len(likeness))
        if not votes:
            failed[target] = SubjectError("E_FUSION", f"{run_dir} has no atlas for {target}")
            continue
        given = store.address, out.resolve(), target, tuple(likeness), votes
        jobs.append(Job(run_dir.resolve(), *given, task.settings, task.confidence))
    return jobs, failed


def _write_scores(out: Path, store: CohortStore, task: FusionTask, jobs: list[Job]) -> pl.DataFrame:
    records = [json.loads(job.record.read_bytes()) for job in jobs]
    names = store.settings.get("structures") or {}
    dice = dice_table(records, task.settings.rule, names)
    table = target_table(records)
    write_atomic(out / "dice.csv", dice.write_csv().encode())
    write_atomic(out / "targets.csv", table.write_csv().encode())
    return table
