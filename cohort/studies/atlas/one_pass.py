"""A pass: a run of the engine whose pairs are (template, subject), and what it is given."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cohort.config.atlas import AtlasSettings
from cohort.data.storage import write_atomic
from cohort.data.store import CohortStore
from cohort.engine.atlas import Template
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.run import DriverOptions, RunReport, run
from cohort.engine.run_folder import as_table
from cohort.engine.team import PLAIN, Team

_MOST_IN_TILE = 32  # subjects; what a tile adds up is a file of its own


@dataclass(frozen=True, eq=False)
class Build:
    """A template in the making, and what it is given to work with.

    Attributes:
        store: the cohort.
        out: the template's folder.
        settings: what it is made of.
        team: who registers.
        options: of their driver.
        on_pass: told of a pass once it is done: its number and its facts.
        on_progress: told which pass it is, of its report, and of its pairs.
    """

    store: CohortStore
    out: Path
    settings: AtlasSettings
    team: Team = PLAIN
    options: DriverOptions = field(default_factory=DriverOptions)
    on_pass: Callable[[int, dict[str, Any]], None] = lambda number, facts: None
    on_progress: Callable[[str, RunReport, int], None] = lambda name, report, pairs: None


def register_to(
    build: Build,
    run_dir: Path,
    name: str,
    subjects: tuple[str, ...],
    template: Template | None,
    *,
    shrink: int,
    detail: bool,
) -> None:
    """Register subjects to a template, or go on with that.

    Raises:
        Stopped, StorageError, SchedulerError: the same call goes on from there.
    """
    settings = build.settings
    table = build.out / f".{run_dir.name}.csv"
    write_atomic(table, as_table((settings.name, one) for one in subjects))
    # a scheduler's workers are not known before they are there
    workers = max(build.team.size, 1) if build.team.scheduler is None else len(subjects)
    tile = math.ceil(len(subjects) / (4 * workers))
    asked = PlanSettings(
        method=settings.method,
        pairs=str(table),
        tile_size=min(_MOST_IN_TILE, tile),
        trust_code=build.options.trust_code,
        keep_displacements="all" if detail else None,
        device=settings.device,
        workers=max(build.team.size, 1),
        shrink=shrink,
        sums=settings.sums(detail=detail),
    )
    if (run_dir / "run.json").exists():
        asked = PlanSettings(shrink=shrink, trust_code=asked.trust_code, sums=asked.sums)
    open_run(run_dir, build.store, asked, template)
    table.unlink(missing_ok=True)
    run(
        run_dir,
        build.store,
        team=build.team,
        progress=lambda report, pairs: build.on_progress(name, report, pairs),
        options=build.options,
    )
