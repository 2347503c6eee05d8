"""Commands on runs: ``plan``, ``register``, ``status``, ``report``."""

from pathlib import Path
from typing import Annotated

import typer

from cohort import terminal
from cohort.config.method import MethodConfig, method_config
from cohort.data.store import CohortStore
from cohort.engine.events import pairs_per_hour, seconds_a_pair
from cohort.engine.families import families_of
from cohort.engine.plan import PlanSettings, open_run
from cohort.engine.results import read_rows, summarise
from cohort.engine.run import RunReport, run
from cohort.engine.spec import RunSpec
from cohort.options import (
    Assignments,
    AtlasLabels,
    Config,
    Json,
    MethodName,
    Metrics,
    Pairs,
    Run,
    Seed,
    Store,
    TileSize,
    TrustCode,
    Workers,
    worker_count,
)
from cohort.report.page import is_current, write_report


def plan(
    store: Store,
    run_dir: Run,
    pairs: Pairs = None,
    atlas_labels: AtlasLabels = None,
    method: MethodName = None,
    config: Config = None,
    assignments: Assignments = None,
    metrics: Metrics = None,
    seed: Seed = None,
    tile_size: TileSize = None,
    trust_code: TrustCode = False,
    json: Json = False,
) -> None:
    """Write down which pairs a run will register, and how, before it begins."""
    chosen = _method(method, config, assignments)
    families = None if metrics is None else families_of(metrics)
    settings = PlanSettings(chosen, pairs, seed, tile_size, trust_code, atlas_labels, families)
    spec = open_run(run_dir, CohortStore.open(store), settings)
    if json:
        terminal.say_json(spec.model_dump(mode="json", exclude_none=True))
    else:
        terminal.say_plan(run_dir, spec)


def register(
    store: Store,
    run_dir: Run,
    pairs: Pairs = None,
    atlas_labels: AtlasLabels = None,
    method: MethodName = None,
    config: Config = None,
    assignments: Assignments = None,
    metrics: Metrics = None,
    seed: Seed = None,
    tile_size: TileSize = None,
    trust_code: TrustCode = False,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Register the pairs of a run and measure each; the same command again goes on where it was.

    Makes the plan if there is none. Stop it at any time: what was committed is kept.
    """
    opened = CohortStore.open(store)
    chosen = _method(method, config, assignments)
    families = None if metrics is None else families_of(metrics)
    settings = PlanSettings(chosen, pairs, seed, tile_size, trust_code, atlas_labels, families)
    spec = open_run(run_dir, opened, settings)
    count = min(worker_count(workers), spec.n_tiles)
    with terminal.progress_bar("registering", quiet=json) as update:

        def progress(report: RunReport, total: int) -> None:
            update(report.already_done + report.pairs, total, report.failed)

        report = run(run_dir, opened, workers=count, trust_code=trust_code, progress=progress)
    summary = summarise(read_rows(run_dir))
    if json:
        terminal.say_json({**terminal.as_json(report), "summary": terminal.as_json(summary)})
    else:
        terminal.say_run(run_dir, report, summary)
    raise typer.Exit(1 if summary.failed else 0)


def status(run_dir: Run, json: Json = False) -> None:
    """Say how far a run is."""
    spec, rows = RunSpec.load(run_dir), read_rows(run_dir)
    summary, rate = summarise(rows), pairs_per_hour(run_dir)
    left = spec.n_pairs - summary.pairs
    facts = {
        "planned": spec.n_pairs,
        "done": summary.pairs,
        "left": left,
        "pairs_per_hour": rate,
        "seconds_a_pair": seconds_a_pair(run_dir),
    }
    failures = {
        code: count for code, count in rows["status"].value_counts().iter_rows() if code != "ok"
    }
    if json:
        terminal.say_json({**facts, "failures": failures, **terminal.as_json(summary)})
    else:
        terminal.say_status(run_dir, facts, failures, summary)


def report(
    run_dir: Run,
    store: Annotated[
        Path | None, typer.Option(help="Where the store is now, if it has moved.")
    ] = None,
    trust_code: TrustCode = False,
    json: Json = False,
) -> None:
    """Write the report of a run, one page that opens without a network, and print its numbers."""
    page = run_dir / "report" / "index.html"
    if not is_current(run_dir, store, trust_code=trust_code):
        with terminal.progress_bar("reporting", quiet=json) as update:

            def progress(done: int, all_: int) -> None:
                update(done, all_, 0)

            page = write_report(run_dir, store, trust_code=trust_code, progress=progress)
    summary, rate = summarise(read_rows(run_dir)), pairs_per_hour(run_dir)
    if json:
        document = {"report": page, "pairs_per_hour": rate, **terminal.as_json(summary)}
        terminal.say_json(document)
    else:
        terminal.say_report(page, summary, rate)


def _method(
    name: str | None, config: Path | None, assignments: list[str] | None
) -> MethodConfig | None:
    """The method that was asked for; None if nothing was said about it."""
    if not (name or config or assignments):
        return None
    return method_config(name or "voxelopt", config, assignments or [])
