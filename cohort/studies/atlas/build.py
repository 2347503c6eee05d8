"""Pass after pass: register everyone to the template, average, remove the mean transform."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from cohort.data.own_folder import own_folder
from cohort.data.storage import storage_error, to_json, write_atomic
from cohort.engine.atlas import Template
from cohort.engine.lock import only_driver
from cohort.engine.spec import RunSpec
from cohort.engine.summary import SUMMARISED, summarise
from cohort.errors import UsageError
from cohort.studies.atlas.one_pass import Build, register_to
from cohort.studies.atlas.passes import (
    FACTS,
    FINAL,
    added_to,
    addition_of,
    facts_of,
    last_added,
    passes_of,
    rows_of,
    runs_of,
    sums_of,
)
from cohort.studies.atlas.publish import document_of, is_current, publish
from cohort.studies.atlas.reduction import total_of
from cohort.studies.atlas.settings import (
    FILE,
    check_addition,
    check_same,
    load_settings,
    save_settings,
)
from cohort.studies.atlas.start import as_template, check_start, kept_template, start_volume
from cohort.studies.atlas.update import NextTemplate, movement, next_template, on_grid

_ADVICE = "wait for it, or take over with --steal"
_MEASURED = ("ncc", "ncc_before", "sdlogj", "folding", "failed")


def build_template(build: Build, iterations: int) -> dict[str, Any]:
    """Make a template, or go on with one; returns what ``OUT/template.json`` holds.

    Args:
        build: what of, where, by whom.
        iterations: how many passes. Fewer than are there already changes nothing; more go on from
            there.

    Raises:
        UsageError: ``E_PLAN_MISMATCH`` if the folder holds a template of another kind; ``E_ATLAS``
            if it holds something else, or no pass is asked for.
        SubjectError: ``E_EMPTY`` if nobody could be registered.
        RunActiveError: ``E_ACTIVE`` if another process works on it.
        Stopped, StorageError, SchedulerError: the same call goes on from there.
    """
    if not iterations or iterations < 1:  # a script's YAML may say null
        raise UsageError("E_ATLAS", f"iterations is {iterations}; need 1 or more")
    existing = load_settings(build.out)
    if existing is None:
        _begin(build)
    else:
        check_same(build.out, existing, build.settings)
    with only_driver(build.out, steal=build.options.steal, advice=_ADVICE):
        try:
            return _build(build, iterations)
        except UsageError:
            if existing is None:
                _take_back(build.out)
            raise


def _take_back(out: Path) -> None:
    """Forget settings that were refused before anybody was registered: better ones may follow."""
    if not list(out.glob("*/run.json")):
        (out / FILE).unlink(missing_ok=True)


def _build(build: Build, iterations: int) -> dict[str, Any]:
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
        UsageError: ``E_ATLAS`` if one of them is part of it already and it is not just these who
            were added last, or it is not finished, or others were being added; ``E_PLAN_MISMATCH``
            if the settings are others.
        Stopped, StorageError, SchedulerError: the same call goes on from there.
    """
    out, settings = build.out, build.settings
    if not (out / FINAL / FACTS).exists():
        raise UsageError("E_ATLAS", f"{out} is not finished; finish it before adding to it")
    check_addition(out, settings, subjects)
    with only_driver(out, steal=build.options.steal, advice=_ADVICE):
        return _add(build, subjects)


def _add(build: Build, subjects: tuple[str, ...]) -> dict[str, Any]:
    out, settings = build.out, build.settings
    there = sums_of(runs_of(out / FINAL), build.team.size).subjects
    known = sorted(set(subjects) & set(there))  # who failed may be added again
    if known == sorted(subjects) == sorted(last_added(out / FINAL)):
        return _finish(build)  # it was stopped when they were through, or its page is to be written
    if known:
        raise UsageError("E_ATLAS", f"{', '.join(known)}: part of the template {out} already")
    added = addition_of(out / FINAL, subjects)
    template = kept_template(out / FINAL)
    register_to(build, added, "added", subjects, template, shrink=1, detail=True)
    total_of(added, build.team.size)
    write_atomic(added / FACTS, to_json({"added": subjects}))
    grown = replace(build, settings=settings.with_more(subjects))
    save_settings(out, grown.settings)
    return _finish(grown)


def _begin(build: Build) -> None:
    out = build.out
    check_start(build.store, build.settings)
    own_folder(out, "E_ATLAS", "template", mark=FILE, begun=("run.lock", "epoch"))
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
    if is_current(build.out, runs, number):
        return document_of(build.out)
    found = _next(build, run_dir)
    _conclude(build, run_dir, number, found)
    before = [build.out / f"pass-{one}" for one in range(1, number)]
    passes = [facts_of(one) for one in (*before, run_dir)]
    sums = sums_of(runs, build.team.size)
    return publish(build.out, runs, build.store, build.settings, sums, found, passes)


def _conclude(build: Build, run_dir: Path, number: int, found: NextTemplate) -> None:
    """Write down what a pass found, with those who were added to it."""
    summary = vars(summarise(rows_of(runs_of(run_dir), SUMMARISED)))
    spec = RunSpec.load(run_dir)
    grid = spec.coarser(build.store.grid)
    before = on_grid(kept_template(run_dir).subject.volume, grid)
    facts = {"pass": number, "shrink": spec.shrink, **found.facts}
    facts |= movement(before, found, grid)
    facts |= {name: summary[name] for name in _MEASURED}
    write_atomic(run_dir / FACTS, to_json(facts))
    build.on_pass(number, facts)


def _register_all(
    build: Build, run_dir: Path, name: str, number: int, *, shrink: int, detail: bool
) -> None:
    template = None if (run_dir / "run.json").exists() else _template_for(build, number)
    subjects = build.settings.subjects
    register_to(build, run_dir, name, subjects, template, shrink=shrink, detail=detail)


def _template_for(build: Build, number: int) -> Template:
    """What pass ``number`` registers to."""
    if number == 1:
        workers = max(build.team.size, 1)
        volume = start_volume(build.out, build.store, build.settings, workers)
    else:
        found = _next(build, build.out / f"pass-{number - 1}")
        volume = on_grid(found.volume, build.store.grid)
    return as_template(build.settings.name, volume)


def _next(build: Build, run_dir: Path) -> NextTemplate:
    """What a pass gives, with those who were added to it."""
    sums = sums_of(runs_of(run_dir), build.team.size)
    return next_template(sums, build.settings, RunSpec.load(run_dir).coarser(build.store.grid))
