"""``morphometry``: where the subjects of a template are larger or smaller than it."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from cohort import terminal
from cohort.options import Json, StoreMoved, Workers, local_path, worker_count
from cohort.studies.morphometry import FOLDER, MorphometrySettings, measure_volume_changes
from cohort.studies.morphometry_files import MAPS, VOLUMES

_SHOWN = 5


def morphometry(
    out: Annotated[
        Path, typer.Argument(parser=local_path, help="The folder that cohort atlas made.")
    ],
    affine: Annotated[
        bool,
        typer.Option(
            "--affine/--no-affine",
            help="Count the alignment too, so that a large head is large everywhere.",
        ),
    ] = False,
    smooth: Annotated[
        float,
        typer.Option(min=0, help="Full width at half maximum of the Gaussian, in mm; 0 for none."),
    ] = 8.0,
    design: Annotated[
        Path | None,
        typer.Option(
            help="CSV with a column subject and numeric ones, such as group and age. [default: the"
            " mean of all]"
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="NIfTI on the template's grid, where to look. [default: the template's foreground]"
        ),
    ] = None,
    store: StoreMoved = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Map how much larger or smaller each subject is than the template, for statistics.

    Writes ln det of the Jacobian from template to subject, positive where the subject is larger,
    into OUT/morphometry: one 4D file with mask and design for FSL's randomise and PALM, t maps, and
    the volume of every structure. The same command goes on where it was; one with other options
    replaces what is there.
    """
    settings = MorphometrySettings(affine=affine, fwhm_mm=smooth, design=design, mask=mask)
    with terminal.progress_bar("measuring", quiet=json) as update:
        facts = measure_volume_changes(
            out,
            settings,
            max(worker_count(workers), 1),
            store,
            lambda done, all_: update(done, all_, 0),
        )
    folder = out / FOLDER
    if json:
        terminal.say_json({**facts, "folder": folder})
    else:
        _say(folder, facts)
    raise typer.Exit(1 if facts["failed"] else 0)


def _say(folder: Path, facts: dict[str, Any]) -> None:
    counted = "counted: a large head is large everywhere"
    left_out = "left out: shape at the same size and pose"
    rows: dict[str, Any] = {
        "subjects": len(facts["subjects"]),
        "values": facts["measure"],
        "affine part": counted if facts["affine"] else left_out,
        "smoothing": f"{facts['fwhm_mm']:g} mm full width at half maximum"
        f" (sigma {facts['sigma_mm']:.2f} mm), in {facts['mask']['voxels']:,} voxels",
        "design": ", ".join(facts["columns"]),
    }
    if facts["structures"]:
        rows["volumes"] = (
            f"of {facts['structures']} structures, affine part counted, in {folder / VOLUMES}"
        )
    if facts["folded_voxels"]:
        rows["folded"] = f"{facts['folded_voxels']:,} voxels count as det J = 0.001"
    for name, found in facts["statistics"].items():
        rows[f"t of {name}"] = f"{found['t_min']:.2f} to {found['t_max']:.2f}, not corrected"
    if facts["ignored"]:
        rows["left unused"] = f"rows of the design: {', '.join(facts['ignored'][:_SHOWN])}"
        rows["left unused"] += ", ..." if facts["ignored"][_SHOWN:] else ""
    rows["then, with FSL"] = f"cd {shlex.quote(str(folder))} && {facts['randomise']}"
    terminal.say_table(str(folder / MAPS), rows)
    if facts["failed"]:
        terminal.say_table("left out", facts["failed"])
