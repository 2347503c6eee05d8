"""What a plan is asked to say beyond what it decides: time, memory and money, after a trial."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from cohort import terminal
from cohort.data.store import CohortStore
from cohort.engine.atlas import atlas_file
from cohort.engine.budgets import subjects_at_hand
from cohort.engine.calibrate import calibrate
from cohort.engine.choices import PlanSettings
from cohort.engine.estimate import Estimate, estimate
from cohort.engine.pairs import neighbours_asked, select_pairs
from cohort.engine.plan import check_first_plan, tiles_of
from cohort.engine.room import size_text
from cohort.engine.spec import RunSpec
from cohort.engine.team import Team
from cohort.engine.voxel_caution import voxel_caution
from cohort.errors import UsageError

WORKERS = (1, 8, 64, 512)
_WORTH_IT = 2000  # pairs; fewer are done before a trial would have told how long they take


def with_trial(
    run_dir: Path, store: CohortStore, settings: PlanSettings, team: Team, *, quiet: bool
) -> PlanSettings:
    """Settings with what a trial found, for a run that is not planned yet; else as they are, as
    with fewer than two subjects to try.

    Args:
        run_dir: of the run.
        store: the cohort.
        settings: what was asked for.
        team: that tries them.
        quiet: say nothing meanwhile.

    Raises:
        UsageError: what planning would refuse of the pairs, the atlas, the folder and what is kept.
        Stopped: if a signal came during the trial.
    """
    if (run_dir / "run.json").exists() or settings.measured is not None:
        return settings
    check_first_plan(run_dir, store, settings)
    if len(store.subject_ids) < 2:
        return settings
    with terminal.waiting("trying some pairs, up to a minute", quiet=quiet):
        return replace(settings, measured=calibrate(store, settings, team))


def is_worth_a_trial(store: CohortStore, settings: PlanSettings) -> bool:
    """Whether a run is long enough that its tiles should be cut by the time they take."""
    design = settings.pairs or "all"
    if settings.tile_size or atlas_file(design):
        return False
    names = store.subject_ids
    neighbours = neighbours_asked(design, len(names))
    if neighbours:
        return len(names) * neighbours >= _WORTH_IT
    return select_pairs(design, names, settings.seed or 0).n_pairs >= _WORTH_IT


def estimates_of(run_dir: Path, spec: RunSpec, here: int) -> list[Estimate]:
    """What the run takes with so many workers ``here``, and with 1, 8, 64 and 512.

    Raises:
        UsageError: ``E_MEMORY`` if workers here would need more memory than there is, ``E_SPACE``
            if the rows would fill the disk; both say what would do.
    """
    assert spec.measured is not None
    tiles, fit = tiles_of(run_dir, spec), subjects_at_hand(spec.measured, max(here, 1))
    found = {
        workers: estimate(tiles, workers, spec.measured, fit)
        for workers in sorted({*WORKERS, max(here, 1)})
    }
    _refuse_what_cannot_fit(run_dir, found[max(here, 1)])
    return list(found.values())


def _refuse_what_cannot_fit(run_dir: Path, own: Estimate) -> None:
    free = psutil.virtual_memory().available
    if own.workers * own.host_bytes > free:
        fitting = int(free // own.host_bytes)
        advice = f"use --workers {fitting}" if fitting else "no worker fits: a coarser grid would"
        raise UsageError(
            "E_MEMORY",
            f"{own.workers} workers of {own.host_bytes / 2**30:.1f} GiB need"
            f" {own.workers * own.host_bytes / 2**30:.1f} GiB and {free / 2**30:.1f} are free here;"
            f" {advice}",
        )
    disk = shutil.disk_usage(run_dir).free
    if own.written_bytes > 0.9 * disk:
        raise UsageError(
            "E_SPACE",
            f"the rows of {run_dir} will take {own.written_bytes / 1e9:,.1f} GB and"
            f" {disk / 1e9:,.1f} GB are free; use another disk, or fewer --pairs",
        )


def say_cautions(spec: RunSpec, store: CohortStore) -> None:
    """What is doubtful about a run, if anything is.

    Raises:
        UsageError: ``E_WEIGHTS`` if a file of weights is of no use.
    """
    said = voxel_caution(spec.method.settings, store.grid.spacing_mm)
    if said is not None:
        terminal.caution(said)


def plan_rows(spec: RunSpec) -> dict[str, object]:
    """What a run is going to do, for people."""
    settings = spec.method.settings.model_dump(exclude_none=True)
    told = ", ".join(f"{name}={value}" for name, value in settings.items())
    rows: dict[str, object] = {
        "store": spec.store,
        "subjects": len(spec.subject_ids),
        "pairs": f"{spec.n_pairs:,} ({spec.pairs})",
        "tiles": f"{spec.n_tiles:,} of at most {spec.tile_size} x {spec.tile_size} subjects",
        "method": f"{spec.method.name}: {told}",
        "fingerprint": spec.fingerprint,
    }
    if spec.kept_bytes is not None:
        size = size_text(spec.kept_bytes)
        rows["displacements"] = f"{spec.keep_displacements}, about {size}"
    return rows


def estimate_rows(
    estimates: list[Estimate], hourly_price: float | None
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Titles and rows of a table for people."""
    titles = ("workers", "time", "worker hours", "in pairs", "reads", "memory each")
    if hourly_price is not None:
        titles += ("cost",)
    rows = []
    for one in estimates:
        memory = one.device_bytes or one.host_bytes
        row = (
            f"{one.workers}",
            _duration(one.elapsed_s),
            f"{one.worker_s / 3600:,.2f}",
            f"{one.efficiency:.1%}",
            f"{one.read_bytes / 1e9:,.2f} GB",
            f"{memory / 2**30:,.1f} GiB",
        )
        if hourly_price is not None:
            row += (f"{one.worker_s / 3600 * hourly_price:,.2f}",)
        rows.append(row)
    return titles, rows


def estimate_facts(estimates: list[Estimate], hourly_price: float | None) -> list[dict[str, Any]]:
    """The same for machines."""
    facts: list[Mapping[str, Any]] = [vars(one) for one in estimates]
    if hourly_price is None:
        return [dict(one) for one in facts]
    return [{**one, "cost": one["worker_s"] / 3600 * hourly_price} for one in facts]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.1f} days"
