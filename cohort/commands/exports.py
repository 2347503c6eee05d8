"""Commands that take a run's pairs out of the working space: ``apply``, ``export``."""

from pathlib import Path
from typing import Annotated

import typer

from cohort import terminal
from cohort.commands.export_text import say_applied, say_exported
from cohort.engine.workbench import Workbench
from cohort.errors import UsageError
from cohort.options import Fixed, Json, Kept, Moving, Run, StoreMoved, TrustCode, Via, local_path
from cohort.studies.apply import Applied, Task
from cohort.studies.apply import apply as apply_one
from cohort.studies.apply_to_all import apply_to_all
from cohort.studies.export import FORMATS, export
from cohort.studies.native_space import Route, pairs_with


def apply_command(
    run_dir: Run,
    fixed: Fixed = None,
    moving: Moving = None,
    volume: Annotated[
        Path | None, typer.Option(help="Image of the moving subject, on any grid: linear.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Segmentation of the moving subject, on any grid.")
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(help="CSV of points of the fixed subject: x,y,z, x_lps,y_lps,z_lps or i,j,k."),
    ] = None,
    inverse: Annotated[
        bool,
        typer.Option(
            "--inverse",
            help="The other way: images of the fixed subject onto the moving one, points of the"
            " moving subject to the fixed one.",
        ),
    ] = False,
    via: Via = None,
    interpolation: Annotated[
        str, typer.Option(help="Of labels: nearest, or linear for each structure.")
    ] = "nearest",
    like: Annotated[
        Path | None, typer.Option(help="NIfTI file whose grid to write. [default: the subject's]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=local_path, help="File, or folder without --fixed. [default: named so]"
        ),
    ] = None,
    kept: Kept = False,
    store: StoreMoved = None,
    trust_code: TrustCode = False,
    json: Json = False,
) -> None:
    """Bring an image, labels or points through a pair of a run, between the original scans.

    Images of the moving subject arrive on the fixed subject's own scan, points of the fixed subject
    in the moving one. Without --fixed, labels or an image of an atlas arrive on every subject.
    """
    task = _task(volume, labels, points, like, interpolation)
    workbench = Workbench.open(run_dir, store, trust_code=trust_code)
    if fixed is None:
        if kept:
            raise UsageError("E_PAIRS", "need --fixed with --kept")
        _apply_to_all(workbench, moving, task, inverse, via, out, json)
        return
    moving = moving or _only_moving(workbench)
    route = Route(fixed, moving, tuple(via or ()), inverse, kept)
    onto, of = (moving, fixed) if inverse else (fixed, moving)
    applied = apply_one(workbench, route, task, out or Path(task.default_name(onto, of)))
    if json:
        terminal.say_json(_facts(applied))
    else:
        say_applied(applied)


def export_command(
    run_dir: Run,
    to: Annotated[str, typer.Option(help=f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}.")],
    out: Annotated[
        Path, typer.Option(parser=local_path, help="Folder; several pairs may share it.")
    ],
    fixed: Annotated[str, typer.Option(help="The fixed subject.")],
    moving: Moving = None,
    inverse: Annotated[
        bool, typer.Option("--inverse", help="The other way: the fixed subject onto the moving.")
    ] = False,
    via: Via = None,
    jacobian: Annotated[
        bool, typer.Option("--jacobian", help="Also a map of the change of volume; nifti has it.")
    ] = False,
    kept: Kept = False,
    store: StoreMoved = None,
    trust_code: TrustCode = False,
    json: Json = False,
) -> None:
    """Write a pair's transform between the original scans as other tools read it.

    itk: a field in LPS mm that ITK and ANTs apply, affines and a composite .h5. nifti: a field in
    RAS mm. learn2reg: voxels of the working grid. bids: the ITK files under BIDS names.
    """
    if to not in FORMATS:
        raise UsageError("E_EXPORT", f"--to is {to!r}; need one of {', '.join(FORMATS)}")
    workbench = Workbench.open(run_dir, store, trust_code=trust_code)
    route = Route(fixed, moving or _only_moving(workbench), tuple(via or ()), inverse, kept)
    exported = export(workbench, route, to, out, jacobian=jacobian)
    if json:
        terminal.say_json({**exported.facts, "record": exported.record})
    else:
        say_exported(exported)


def _apply_to_all(
    workbench: Workbench,
    moving: str | None,
    task: Task,
    inverse: bool,
    via: list[str] | None,
    out: Path | None,
    json: bool,
) -> None:
    if inverse != (task.kind == "points") or via or task.like:
        raise UsageError(
            "E_PAIRS",
            "need --fixed with --via, --like, images of the fixed subject (--inverse) and points of"
            " the fixed subject (no --inverse): without it, what the moving subject has goes to"
            " every fixed one",
        )
    pairs = pairs_with(workbench, moving)
    with terminal.progress_bar("applying", quiet=json) as update:
        found = apply_to_all(workbench, pairs, task, out or Path(f"{task.stem}_applied"), update)
    if json:
        terminal.say_json({
            "done": {name: _facts(one) for name, one in found.done.items()},
            "failed": {name: str(error) for name, error in found.failed.items()},
        })  # fmt: skip
    else:
        for one in found.done.values():
            terminal.say(f"{one.out}: {one.direction}")
        if found.failed:
            terminal.say_table("failed", found.failed)
    raise typer.Exit(1 if found.failed else 0)


def _task(
    volume: Path | None,
    labels: Path | None,
    points: Path | None,
    like: Path | None,
    interpolation: str,
) -> Task:
    given = {"volume": volume, "labels": labels, "points": points}
    named = {kind: path for kind, path in given.items() if path is not None}
    if len(named) != 1:
        said = ", ".join(f"--{kind}" for kind in named) or "none"
        raise UsageError("E_APPLY", f"need one of --volume, --labels and --points, got {said}")
    ((kind, path),) = named.items()
    if interpolation not in ("nearest", "linear"):
        raise UsageError(
            "E_APPLY", f"interpolation is {interpolation!r}; need nearest or linear (labels alone)"
        )
    if kind == "points" and like is not None:
        raise UsageError("E_APPLY", "points have no grid: --like is for --volume and --labels")
    if kind != "labels" and interpolation != "nearest":
        raise UsageError("E_APPLY", "interpolation is for --labels; volumes are linear")
    return Task(kind, path, like, interpolation)  # type: ignore[arg-type]


def _only_moving(workbench: Workbench) -> str:
    return pairs_with(workbench, None)[0][1]


def _facts(applied: Applied) -> dict[str, object]:
    return {
        "out": applied.out,
        "direction": applied.direction,
        "inverse_residual_voxels": applied.residual_voxels,
        "volumes": applied.volumes.to_dicts(),
    }
