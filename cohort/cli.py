"""The ``cohort`` command: parsing and printing only.

Exit codes: 0 all good, 1 some pairs or subjects failed, 2 wrong usage, 3 the run is active
elsewhere, 4 storage, 5 workers or scheduler lost.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cohort import terminal
from cohort.config import method_config
from cohort.data.geometry import parse_grid
from cohort.data.ingest import IngestEvent, IngestSettings, ingest
from cohort.data.store import CohortStore
from cohort.data.synth import SynthSettings, synthesise_population
from cohort.engine.events import pairs_per_hour
from cohort.engine.plan import PlanSettings, open_run
from cohort.engine.results import read_rows, summarise
from cohort.engine.run import RunReport, run
from cohort.engine.spec import RunSpec
from cohort.errors import CohortError, StorageError, UsageError
from cohort.options import (
    Assignments,
    Config,
    Json,
    MethodName,
    Pairs,
    Run,
    Seed,
    Store,
    TileSize,
    Workers,
)
from cohort.report.page import is_current, write_report

_INTERRUPTED = 130  # what typer makes of Ctrl-C

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Register large cohorts of 3D medical volumes: every scan, or every pair, in one space.",
)


@app.command(epilog="Example: cohort synth demo/nifti --subjects 6")
def synth(
    folder: Annotated[Path, typer.Argument(help="Where the NIfTI files go.")],
    subjects: Annotated[int, typer.Option(min=2, help="How many.")] = SynthSettings.subjects,
    grid: Annotated[str, typer.Option(help="SHAPE@SPACING.")] = "64x72x64@2.5mm",
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another population.")] = 0,
    json: Json = False,
) -> None:
    """Make a population of NIfTI files whose true displacements are known."""
    shape, spacing_mm = parse_grid(grid)
    if len(set(spacing_mm)) > 1:
        raise UsageError("E_GRID", f"the phantom needs one spacing for all axes, got {grid}")
    settings = SynthSettings(subjects=subjects, shape=shape, spacing_mm=spacing_mm[0], seed=seed)
    with terminal.progress_bar("synthesising", quiet=json) as update:
        report = synthesise_population(folder, settings, lambda done, all_: update(done, all_, 0))
    if json:
        terminal.say_json(terminal.as_json(report))
    else:
        terminal.say(f"{folder}: {len(report.written)} subjects written, {len(report.kept)} kept")


@app.command("ingest", epilog="Example: cohort ingest scans/ cohort.zarr --grid 96x112x96@2mm")
def ingest_command(
    source: Annotated[
        Path, typer.Argument(help="Folder with images/ (and labels/, ...), BIDS dataset, CSV, TSV.")
    ],
    store: Store,
    grid: Annotated[
        str | None, typer.Option(help="Working grid, 96x112x96@2mm. [default: from the data]")
    ] = None,
    like: Annotated[Path | None, typer.Option(help="NIfTI file whose grid to take.")] = None,
    align: Annotated[
        str,
        typer.Option(help="none (as headers say), grid (image centres), center (of intensity)."),
    ] = "none",
    reference: Annotated[
        str | None, typer.Option(help="Subject to align to. [default: the first]")
    ] = None,
    assume_orientation: Annotated[
        str | None, typer.Option(help="RAS, for files that do not say.")
    ] = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Bring every scan onto one working grid in a store; broken ones are quarantined.

    Run it again after adding or mending files: only what is new or changed is read.
    """
    settings = IngestSettings(grid, like, align, reference, assume_orientation)  # type: ignore[arg-type]
    with terminal.progress_bar("ingesting", quiet=json) as update:
        failures = 0

        def progress(event: IngestEvent) -> None:
            nonlocal failures
            failures += event.status == "quarantined"
            update(event.done, event.total, failures)

        report = ingest(source, store, settings, workers=_workers(workers), progress=progress)
    if json:
        terminal.say_json({
            "ingested": report.ingested,
            "unchanged": report.unchanged,
            "quarantined": report.quarantined,
            "outside": report.outside,
            "grid": report.grid.to_json(),
            "elapsed_s": report.elapsed_s,
        })  # fmt: skip
    else:
        terminal.say_ingest(store, report)
    raise typer.Exit(1 if report.quarantined else 0)


@app.command(epilog="Example: cohort info cohort.zarr")
def info(store: Store, json: Json = False) -> None:
    """Say what a store holds."""
    opened = CohortStore.open(store)
    inventory, quarantined = opened.inventory(), opened.quarantined
    facts = {
        "subjects": len(inventory.subject_digests),
        "quarantined": len(quarantined),
        "labels": inventory.has_labels,
        "truth": inventory.has_truth,
        "shape": opened.grid.shape,
        "spacing_mm": opened.grid.spacing_mm,
        "digest": inventory.digest,
    }
    if json:
        subject_ids = tuple(inventory.subject_digests)
        terminal.say_json({**facts, "subject_ids": subject_ids, "quarantine": quarantined})
    else:
        terminal.say_table(str(store), facts)
        terminal.say_quarantine(quarantined)


@app.command(epilog="Example: cohort plan cohort.zarr run --pairs random:100")
def plan(
    store: Store,
    run_dir: Run,
    pairs: Pairs = None,
    method: MethodName = None,
    config: Config = None,
    assignments: Assignments = None,
    seed: Seed = None,
    tile_size: TileSize = None,
    json: Json = False,
) -> None:
    """Write down which pairs a run will register, and how, before it begins."""
    settings = _plan_settings(pairs, method, config, assignments, seed, tile_size)
    spec = open_run(run_dir, CohortStore.open(store), settings)
    if json:
        terminal.say_json(spec.model_dump(mode="json", exclude_none=True))
    else:
        terminal.say_plan(run_dir, spec)


@app.command(epilog="Example: cohort register cohort.zarr run --set features=mind --workers 2")
def register(
    store: Store,
    run_dir: Run,
    pairs: Pairs = None,
    method: MethodName = None,
    config: Config = None,
    assignments: Assignments = None,
    seed: Seed = None,
    tile_size: TileSize = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Register the pairs of a run and measure each; the same command again goes on where it was.

    Makes the plan if there is none. Stop it at any time: what was committed is kept.
    """
    opened = CohortStore.open(store)
    settings = _plan_settings(pairs, method, config, assignments, seed, tile_size)
    spec = open_run(run_dir, opened, settings)
    count = min(_workers(workers), spec.n_tiles)
    with terminal.progress_bar("registering", quiet=json) as update:

        def progress(report: RunReport, total: int) -> None:
            update(report.already_done + report.pairs, total, report.failed)

        report = run(run_dir, opened, workers=count, progress=progress)
    summary = summarise(read_rows(run_dir))
    if json:
        terminal.say_json({**terminal.as_json(report), "summary": terminal.as_json(summary)})
    else:
        terminal.say_run(run_dir, report, summary)
    raise typer.Exit(1 if summary.failed else 0)


@app.command(epilog="Example: cohort status run")
def status(run_dir: Run, json: Json = False) -> None:
    """Say how far a run is."""
    spec, rows = RunSpec.load(run_dir), read_rows(run_dir)
    summary, rate = summarise(rows), pairs_per_hour(run_dir)
    left = spec.n_pairs - summary.pairs
    facts = {"planned": spec.n_pairs, "done": summary.pairs, "left": left, "pairs_per_hour": rate}
    failures = {
        code: count for code, count in rows["status"].value_counts().iter_rows() if code != "ok"
    }
    if json:
        terminal.say_json({**facts, "failures": failures, **terminal.as_json(summary)})
    else:
        terminal.say_status(run_dir, facts, failures, summary)


@app.command(epilog="Example: cohort report run")
def report(
    run_dir: Run,
    store: Annotated[
        Path | None, typer.Option(help="Where the store is now, if it has moved.")
    ] = None,
    json: Json = False,
) -> None:
    """Write the report of a run, one page that opens without a network, and print its numbers."""
    page = run_dir / "report" / "index.html"
    if not is_current(run_dir, store):
        with terminal.progress_bar("reporting", quiet=json) as update:
            page = write_report(run_dir, store, progress=lambda done, all_: update(done, all_, 0))
    summary, rate = summarise(read_rows(run_dir)), pairs_per_hour(run_dir)
    if json:
        document = {"report": page, "pairs_per_hour": rate, **terminal.as_json(summary)}
        terminal.say_json(document)
    else:
        terminal.say_report(page, summary, rate)


def _plan_settings(
    pairs: str | None,
    method: str | None,
    config: Path | None,
    assignments: list[str] | None,
    seed: int | None,
    tile_size: int | None,
) -> PlanSettings:
    said = method or config or assignments
    chosen = method_config(method or "voxelopt", config, assignments or []) if said else None
    return PlanSettings(chosen, pairs, seed, tile_size)


def _workers(asked: int | None) -> int:
    return len(os.sched_getaffinity(0)) if asked is None else asked


def main() -> None:
    """Run the command line; errors become one sentence and an exit code."""
    try:
        app(prog_name="cohort")
    except CohortError as error:
        _fail(error)
    except OSError as error:
        _fail(StorageError("E_STORAGE", f"{error}. Nothing committed is lost; run again"))
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:
            terminal.complain("stopped; the same command goes on from here")
        raise


def _fail(error: CohortError) -> NoReturn:
    if "--json" in sys.argv:
        terminal.say_json({"error": {"code": error.code, "message": error.message}})
    terminal.complain(str(error))
    sys.exit(error.exit_code)
