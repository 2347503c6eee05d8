"""Pass after pass: register everyone to the template, average, remove the mean transform."""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cohort.config.atlas import AtlasSettings
from cohort.data.storage import storage_error, to_json, write_atomic
from cohort.data.store import CohortStore
from cohort.engine.atlas import Template
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows, summarise
from cohort.engine.run import DriverOptions, RunReport, run
from cohort.engine.run_folder import as_table
from cohort.engine.spec import RunSpec
from cohort.engine.team import PLAIN, Team
from cohort.errors import UsageError
from cohort.studies.atlas.passes import (
    FACTS,
    FINAL,
    added_to,
    addition_of,
    facts_of,
    passes_of,
    runs_of,
    sums_of,
)
from cohort.studies.atlas.publish import document_of, publish
from cohort.studies.atlas.reduction import total_of
from cohort.studies.atlas.settings import check_addition, check_same, load_settings, save_settings
from cohort.studies.atlas.start import as_template, check_start, kept_template, start_volume
from cohort.studies.atlas.update import NextTemplate, finer, next_template

_MOST_IN_TILE = 32  # subjects; what a tile adds up is a file of its own
_MEASURED = ("ncc", "ncc_before", "sdlogj", "folding", "failed")


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


def build_template(build: Build, iterations: int) -> dict[str, Any]:
    """Make a template, or go on with one; returns what ``OUT/template.json`` holds.

    Args:
        build: what of, where, by whom.
        iterations: how many passes. Fewer than are there already changes nothing; more go on from
            there.

    Raises:
        UsageError: ``E_PLAN_MISMATCH`` if the folder holds a template of another kind.
        SubjectError: ``E_EMPTY`` if nobody could be registered.
        Stopped, StorageError, SchedulerError: the same call goes on from there.
    """
    existing = load_settings(build.out)
    if existing is None:
        _begin(build)
    else:
        check_same(build.out, existing, build.settings)
    if (build.out / FINAL / "run.json").exists() and passes_of(build.out) + 1 < iterations:
        _reopen(build)
    for number in range(passes_of(build.out) + 1, iterations):
        _one_pass(build, number)
    return _finish(build)


def add_subjects(build: Build, subjects: tuple[str, ...]) -> dict[str, Any]:
    """Add subjects to a finished template; returns what ``OUT/template.json`` holds.

    They are registered to what the last pass registered to, and their sums join those of the
    others: the template is the one, bit by bit, that it would be had they taken part in that pass.

    Args:
        build: with the settings that the template has.
        subjects: those to add.

    Raises:
        UsageError: ``E_ATLAS`` if one of them is part of it already, or it is not finished, or
            others were being added; ``E_PLAN_MISMATCH`` if the settings are others.
        Stopped, StorageError, SchedulerError: the same call goes on from there.
    """
    out, settings = build.out, build.settings
    if not (out / FINAL / FACTS).exists():
        raise UsageError("E_ATLAS", f"{out} is not finished; finish it before adding to it")
    check_addition(out, settings, subjects)
    known = sorted(set(subjects) & set(settings.subjects))
    if known == sorted(subjects) and document_of(out).get("runs") != _names(runs_of(out / FINAL)):
        return _finish(build)  # it was stopped when they were through
    if known:
        raise UsageError("E_ATLAS", f"{', '.join(known)}: part of the template {out} already")
    added = addition_of(out / FINAL, subjects)
    template = kept_template(out / FINAL)
    _register(build, added, "added", subjects, template, shrink=1, detail=True)
    total_of(added, build.team.size)
    write_atomic(added / FACTS, to_json({"added": subjects}))
    grown = replace(build, settings=settings.with_more(subjects))
    save_settings(out, grown.settings)
    return _finish(grown)


def _begin(build: Build) -> None:
    out = build.out
    check_start(build.store, build.settings)
    try:
        if out.exists() and any(not one.name.startswith(".") for one in out.iterdir()):
            raise UsageError(
                "E_ATLAS", f"{out} is no template and not empty; need a new or an empty folder"
            )
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(out, error) from error
    save_settings(out, build.settings)


def _reopen(build: Build) -> None:
    """What was the last pass becomes one of the passes before."""
    _finish(build)  # if it was stopped
    number = passes_of(build.out) + 1
    final = build.out / FINAL
    try:
        for added in added_to(final):
            added.rename(build.out / added.name.replace(FINAL, f"pass-{number}", 1))
        shutil.rmtree(build.out / f"pass-{number}", ignore_errors=True)  # begun and left for fewer
        final.rename(build.out / f"pass-{number}")
    except OSError as error:
        raise storage_error(final, error) from error


def _one_pass(build: Build, number: int) -> None:
    run_dir = build.out / f"pass-{number}"
    shrink = build.settings.shrink_of(number)
    _register_all(build, run_dir, f"pass {number}", number, shrink=shrink, detail=False)
    _conclude(build, run_dir, number, _next(build, run_dir))


def _finish(build: Build) -> dict[str, Any]:
    """The last pass, of which more is kept, and the template's files."""
    run_dir, number = build.out / FINAL, passes_of(build.out) + 1
    if not (run_dir / FACTS).exists():
        _register_all(build, run_dir, f"pass {number}", number, shrink=1, detail=True)
    runs = runs_of(run_dir)
    done = document_of(build.out)
    if done.get("runs") == _names(runs) and len(done["passes"]) == number:
        return done
    found = _next(build, run_dir)
    _conclude(build, run_dir, number, found)
    before = [build.out / f"pass-{one}" for one in range(1, number)]
    passes = [facts_of(one) for one in (*before, run_dir)]
    sums = sums_of(runs, build.team.size)
    return publish(build.out, runs, build.store, build.settings, sums, found, passes)


def _names(runs: list[Path]) -> list[str]:
    return [one.name for one in runs]


def _conclude(build: Build, run_dir: Path, number: int, found: NextTemplate) -> None:
    """Write down what a pass found."""
    summary = vars(summarise(read_rows(run_dir)))
    facts = {"pass": number, "shrink": RunSpec.load(run_dir).shrink, **found.facts}
    facts |= {name: summary[name] for name in _MEASURED}
    write_atomic(run_dir / FACTS, to_json(facts))
    build.on_pass(number, facts)


def _register_all(
    build: Build, run_dir: Path, name: str, number: int, *, shrink: int, detail: bool
) -> None:
    template = None if (run_dir / "run.json").exists() else _template_for(build, number)
    subjects = build.settings.subjects
    _register(build, run_dir, name, subjects, template, shrink=shrink, detail=detail)


def _template_for(build: Build, number: int) -> Template:
    """What pass ``number`` registers to."""
    if number == 1:
        workers = max(build.team.size, 1)
        volume = start_volume(build.out, build.store, build.settings, workers)
    else:
        found = _next(build, build.out / f"pass-{number - 1}")
        volume = finer(found.volume, build.store.grid)
    return as_template(build.settings.name, volume)


def _next(build: Build, run_dir: Path) -> NextTemplate:
    """What a pass gives, with those who were added to it."""
    sums = sums_of(runs_of(run_dir), build.team.size)
    return next_template(sums, build.settings, RunSpec.load(run_dir).coarser(build.store.grid))


def _register(
    build: Build,
    run_dir: Path,
    name: str,
    subjects: tuple[str, ...],
    template: Template | None,
    *,
    shrink: int,
    detail: bool,
) -> None:
    """Register subjects to a template, or go on with that."""
    settings = build.settings
    table = build.out / f".{run_dir.name}.csv"
    write_atomic(table, as_table((settings.name, one) for one in subjects))
    tile = math.ceil(len(subjects) / (4 * max(build.team.size, 1)))
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
