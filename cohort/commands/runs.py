"""Commands on runs: ``plan``, ``register``, ``status``, ``report``."""

from pathlib import Path
from typing import Annotated

import typer

from cohort import terminal
from cohort.commands.status_text import status_rows
from cohort.config.method import MethodConfig, method_config
from cohort.data.store import CohortStore
from cohort.engine.cluster import check_dashboard
from cohort.engine.events import pairs_per_hour
from cohort.engine.families import families_of
from cohort.engine.plan import PlanSettings, open_run
from cohort.engine.progress import RunProgress, progress_of
from cohort.engine.results import read_rows, summarise
from cohort.engine.run import RunReport, run
from cohort.errors import UsageError
from cohort.options import (
    Assignments,
    AtlasLabels,
    Config,
    Dashboard,
    Json,
    KeepUncertainty,
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
from cohort.report.compare_text import notes, runs_table
from cohort.report.page import is_current, write_report
from cohort.report.written import has_run_tables, write_comparison, write_run_tables


def plan(
    store: Store,
    run_dir: Run,
    pairs: Pairs = None,
    atlas_labels: AtlasLabels = None,
    method: MethodName = None,
    config: Config = None,
    assignments: Assignments = None,
    metrics: Metrics = None,
    keep_uncertainty: KeepUncertainty = None,
    seed: Seed = None,
    tile_size: TileSize = None,
    trust_code: TrustCode = False,
    json: Json = False,
) -> None:
    """Write down which pairs a run will register, and how, before it begins."""
    chosen = _method(method, config, assignments)
    families = None if metrics is None else families_of(metrics)
    settings = PlanSettings(
        chosen, pairs, seed, tile_size, trust_code, atlas_labels, families, keep_uncertainty
    )
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
    keep_uncertainty: KeepUncertainty = None,
    seed: Seed = None,
    tile_size: TileSize = None,
    trust_code: TrustCode = False,
    workers: Workers = None,
    dashboard: Dashboard = False,
    json: Json = False,
) -> None:
    """Register the pairs of a run and measure each; the same command again goes on where it was.

    Makes the plan if there is none. Stop it at any time: what was committed is kept.
    """
    if dashboard:
        check_dashboard(worker_count(workers))
    opened = CohortStore.open(store)
    chosen = _method(method, config, assignments)
    families = None if metrics is None else families_of(metrics)
    settings = PlanSettings(
        chosen, pairs, seed, tile_size, trust_code, atlas_labels, families, keep_uncertainty
    )
    spec = open_run(run_dir, opened, settings)
    count = min(worker_count(workers), spec.n_tiles)
    with terminal.progress_bar("registering", quiet=json) as update:

        def progress(report: RunReport, total: int) -> None:
            update(report.already_done + report.pairs, total, report.failed)

        report = run(
            run_dir,
            opened,
            workers=count,
            trust_code=trust_code,
            progress=progress,
            on_dashboard=terminal.say_dashboard if dashboard else None,
        )
    summary = summarise(read_rows(run_dir))
    if json:
        terminal.say_json({**terminal.as_json(report), "summary": terminal.as_json(summary)})
    else:
        terminal.say_run(run_dir, report, summary)
    raise typer.Exit(1 if summary.failed else 0)


def status(
    run_dir: Run,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep telling until the run is done or Ctrl-C.")
    ] = False,
    json: Json = False,
) -> None:
    """Say how far a run is: rate, time left, failures, slowest subjects, disk."""
    if watch and json:
        raise UsageError("E_USAGE", "--watch is for people, --json for machines; need one of them")
    if watch:
        terminal.watch(str(run_dir), lambda: _watched(progress_of(run_dir)))
        return
    found = progress_of(run_dir)
    if json:
        facts = {name: value for name, value in vars(found).items() if name != "summary"}
        terminal.say_json({**facts, **terminal.as_json(found.summary)})
    else:
        terminal.say_table(str(run_dir), status_rows(found))


def report(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="The folder of the run, or of several.")
    ],
    store: Annotated[
        Path | None, typer.Option(help="Where the store is now, if it has moved.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a comparison. [default: report/compare in the first run]"),
    ] = None,
    trust_code: TrustCode = False,
    json: Json = False,
) -> None:
    """Write the report of a run, one page that opens without a network, and print its numbers.

    Several runs are compared with the first, on the pairs that all of them registered.
    """
    if len(run_dirs) > 1:
        _report_comparison(run_dirs, store, out or run_dirs[0] / "report" / "compare", json)
    elif out is not None:
        raise UsageError("E_COMPARE", "--out is the folder of a comparison: name two runs or more")
    else:
        _report_one(run_dirs[0], store, trust_code, json)


def _report_one(run_dir: Path, store: Path | None, trust_code: bool, json: bool) -> None:
    page, tables = run_dir / "report" / "index.html", run_dir / "report" / "tables"
    if not (is_current(run_dir, store, trust_code=trust_code) and has_run_tables(run_dir)):
        with terminal.progress_bar("reporting", quiet=json) as update:

            def progress(done: int, all_: int) -> None:
                update(done, all_, 0)

            tables = write_run_tables(run_dir, store)  # first, as the page vouches for them
            page = write_report(run_dir, store, trust_code=trust_code, progress=progress)
    summary, rate = summarise(read_rows(run_dir)), pairs_per_hour(run_dir)
    if json:
        document = {"report": page, "tables": tables, "pairs_per_hour": rate}
        terminal.say_json({**document, **terminal.as_json(summary)})
    else:
        terminal.say_report(page, summary, rate)


def _report_comparison(run_dirs: list[Path], store: Path | None, out: Path, json: bool) -> None:
    comparison = write_comparison(run_dirs, out, store)
    if json:
        terminal.say_json({
            "report": out / "index.html",
            "pairs": len(comparison.runs[0].pairs),
            "notes": notes(comparison),
            "measures": comparison.measures.to_dicts(),
        })  # fmt: skip
    else:
        titles, rows = runs_table(comparison)
        terminal.say_comparison(out / "index.html", titles, rows, notes(comparison))


def _watched(progress: RunProgress) -> tuple[dict[str, object], bool]:
    return status_rows(progress), progress.left > 0


def _method(
    name: str | None, config: Path | None, assignments: list[str] | None
) -> MethodConfig | None:
    """The method that was asked for; None if nothing was said about it."""
    if not (name or config or assignments):
        return None
    return method_config(name or "voxelopt", config, assignments or [])
