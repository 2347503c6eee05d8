"""Commands that make and show stores: ``synth``, ``ingest``, ``info``."""

from pathlib import Path
from typing import Annotated

import typer

from cohort import terminal
from cohort.data.geometry import parse_grid
from cohort.data.header_choices import parse_fixes
from cohort.data.ingest import IngestEvent, IngestReport, ingest
from cohort.data.ingest_settings import IngestSettings, parse_degrees
from cohort.data.store import CohortStore
from cohort.data.synth import SynthSettings, synthesise_population
from cohort.errors import UsageError
from cohort.options import (
    AssumeOrientation,
    FixHeaders,
    Json,
    Store,
    Workers,
    local_path,
    worker_count,
)


def synth(
    folder: Annotated[Path, typer.Argument(parser=local_path, help="Where the NIfTI files go.")],
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


def ingest_command(
    source: Annotated[
        Path,
        typer.Argument(
            parser=local_path,
            help="Folder with images/ (and labels/, ...), BIDS dataset, CSV, TSV.",
        ),
    ],
    store: Store,
    grid: Annotated[
        str | None, typer.Option(help="Working grid, 96x112x96@2mm. [default: from the data]")
    ] = None,
    like: Annotated[Path | None, typer.Option(help="NIfTI file whose grid to take.")] = None,
    align: Annotated[
        str,
        typer.Option(
            help="none (as headers say), grid (image centres), center (of intensity), "
            "rigid or affine (registered)."
        ),
    ] = "none",
    reference: Annotated[
        str | None,
        typer.Option(
            help="Subject to align to; for rigid and affine also a NIfTI file, which chooses the "
            "grid, or auto. [default: the first]"
        ),
    ] = None,
    align_search: Annotated[
        str, typer.Option(help="For rigid and affine: also try rotations up to 30deg, say.")
    ] = "0deg",
    assume_orientation: AssumeOrientation = None,
    fix_headers: FixHeaders = "",
    recheck: Annotated[
        bool,
        typer.Option(
            "--recheck", help="Read and compare also what has the sizes and times that it had."
        ),
    ] = False,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Bring every scan onto one working grid in a store; broken ones are quarantined.

    Run it again after adding or mending files: only what is new or changed is read. With --recheck
    what is damaged in the store is found and made again.
    """
    degrees = parse_degrees(align_search)
    settings = IngestSettings(
        grid,
        like,
        align,  # type: ignore[arg-type]
        reference,
        assume_orientation,  # type: ignore[arg-type]
        degrees,
        parse_fixes(fix_headers),
    )
    with terminal.progress_bar("ingesting", quiet=json) as update:
        failures = 0

        def progress(event: IngestEvent) -> None:
            nonlocal failures
            failures += event.status == "quarantined"
            update(event.done, event.total, failures)

        report = ingest(
            source,
            store,
            settings,
            workers=worker_count(workers),
            recheck=recheck,
            progress=progress,
        )
    if json:
        terminal.say_json({
            "ingested": report.ingested,
            "unchanged": report.unchanged,
            "quarantined": report.quarantined,
            "outside": report.outside,
            "unused": report.unused,
            "grid": report.grid.to_json(),
            "elapsed_s": report.elapsed_s,
        })  # fmt: skip
    else:
        terminal.say_table(store, _ingest_rows(report))
        if report.unused:
            terminal.say_list("not used", list(report.unused))
        refused = report.quarantined.items()
        terminal.say_quarantine({
            name: {"code": code, "message": message} for name, (code, message) in refused
        })  # fmt: skip
    raise typer.Exit(1 if report.quarantined else 0)


def info(store: Store, json: Json = False) -> None:
    """Say what a store holds."""
    opened = CohortStore.open(store)
    inventory, quarantined = opened.inventory(), opened.quarantined
    facts = {
        "subjects": len(inventory.subject_digests),
        "quarantined": len(quarantined),
        "unreadable": len(inventory.unreadable),
        "labels": inventory.has_labels,
        "truth": inventory.has_truth,
        "shape": opened.grid.shape,
        "spacing_mm": opened.grid.spacing_mm,
        "digest": inventory.digest,
    }
    if json:
        subject_ids = tuple(inventory.subject_digests)
        faults = {name: str(fault) for name, fault in inventory.unreadable.items()}
        said = {"subject_ids": subject_ids, "quarantine": quarantined, "faults": faults}
        terminal.say_json({**facts, **said})
    else:
        terminal.say_table(str(store), facts)
        if inventory.unreadable:
            terminal.say_list("unreadable", [str(one) for one in inventory.unreadable.values()])
        terminal.say_quarantine(quarantined)


def _ingest_rows(report: IngestReport) -> dict[str, object]:
    """What became of the subjects of a source."""
    grid = report.grid
    rows: dict[str, object] = {
        "grid": f"{_times(grid.shape)} voxels of {_times(grid.spacing_mm)} mm",
        "ingested": len(report.ingested),
        "unchanged": len(report.unchanged),
        "quarantined": len(report.quarantined),
        "seconds": f"{report.elapsed_s:.1f}",
    }
    cut = {name: share for name, share in report.outside.items() if share > 0}
    if cut:
        worst = max(cut, key=cut.__getitem__)
        rows["outside the grid"] = (
            f"labelled voxels of {len(cut)} subjects, at most {100 * cut[worst]:.2f} % ({worst})"
        )
    return rows


def _times(numbers: tuple[float, ...]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
