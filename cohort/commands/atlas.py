"""The command that makes an unbiased template: ``atlas``."""

import csv
from pathlib import Path
from typing import Annotated, Any

import typer

from cohort import terminal
from cohort.commands.crew import Crew, device_of, on_cards, team_of
from cohort.commands.groups import Driving, MethodChoice
from cohort.commands.option_groups import with_groups
from cohort.config.atlas import CENTERS, AtlasSettings
from cohort.data.store import CohortStore
from cohort.data.subject_choice import chosen_subjects
from cohort.engine.run import RunReport
from cohort.errors import UsageError
from cohort.options import Json, Store, local_path
from cohort.report.template import write_template_page
from cohort.studies.atlas.build import add_subjects, build_template
from cohort.studies.atlas.one_pass import Build
from cohort.studies.atlas.settings import checked_settings, load_settings


@with_groups
def atlas_command(
    store: Store,
    out: Annotated[
        Path, typer.Argument(parser=local_path, help="Folder for the template and its passes.")
    ],
    iterations: Annotated[
        int, typer.Option(min=1, help="How often everyone is registered and the mean is taken.")
    ] = 4,
    subjects: Annotated[
        str | None,
        typer.Option(help="Of whom: ids such as a,b,site1-*, or @FILE. [default: all]"),
    ] = None,
    add: Annotated[
        str | None, typer.Option(help="Add these subjects to the template that OUT holds.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="mean, medoid, a subject or a NIfTI file. [default: mean]"),
    ] = None,
    center: Annotated[
        str | None,
        typer.Option(help=f"Of intensities: {', '.join(CENTERS)}. [default: mean]"),
    ] = None,
    normalise: Annotated[
        str | None,
        typer.Option(
            help="range: each subject's 1 to 99 % become 0 to 1; none, for calibrated units such"
            " as CT's. [default: range]"
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="CSV with columns subject,weight, of those who do not count once."),
    ] = None,
    shrink: Annotated[
        str | None,
        typer.Option(help="Coarser grids for the first passes, such as 2 or 4,2,2."),
    ] = None,
    sharpen: Annotated[
        float | None, typer.Option(min=0, help="Unsharp masking, such as 0.5. [default: 0]")
    ] = None,
    symmetric: Annotated[
        bool | None,
        typer.Option(
            "--symmetric",
            help="Let everyone count as a mirror image too; labels and their shares stay real.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the template and its files. [default: template]")
    ] = None,
    suffix: Annotated[
        str | None, typer.Option(help="BIDS suffix of the image. [default: T1w]")
    ] = None,
    *,
    choice: MethodChoice,
    crew: Crew,
    driving: Driving,
    json: Json = False,
) -> None:
    """Make the mean of a cohort, in shape and in looks: a template nobody's own shape biases.

    Everyone is registered to it, the mean is taken, the mean transform removed, and again. The same
    command goes on where it was.
    """
    team = team_of(crew)
    device = device_of(crew.device, team, here=team.scheduler is None)
    opened = CohortStore.open(store)
    asked = {
        "subjects": subjects and chosen_subjects("--subjects", subjects, opened.subject_ids),
        "start": start,
        "center": center,
        "normalise": normalise,
        "weights": _weights(weights, opened.subject_ids) if weights else None,
        "shrink": _numbers(shrink) if shrink else None,
        "sharpen": sharpen,
        "symmetric": symmetric,
        "name": name,
        "suffix": suffix,
        "method": choice.config_asked(),
        "device": device,
    }
    settings = _settings(out, opened, {key: one for key, one in asked.items() if one is not None})
    team = on_cards(team, settings.device, crew.workers)
    driver = driving.options(trust_code=choice.trust_code)
    with terminal.progress_bar("registering", quiet=json) as update:

        def progress(said: str, report: RunReport, total: int) -> None:
            update(report.already_done + report.pairs, total, report.failed, said)

        def on_pass(number: int, facts: dict[str, Any]) -> None:
            if not json:
                terminal.say(_pass_line(number, facts))

        build = Build(opened, out, settings, team, driver, on_pass, progress)
        if add:
            newcomers = chosen_subjects("--add", add, opened.subject_ids)
            document = add_subjects(build, newcomers)
        else:
            document = build_template(build, iterations)
    page = write_template_page(out)
    _tell(page, out, document, json=json)
    raise typer.Exit(1 if document["registered"] < document["subjects"] else 0)


def _settings(out: Path, store: CohortStore, asked: dict[str, Any]) -> AtlasSettings:
    """What is asked for, with what OUT was begun with in the place of what is not said."""
    existing = load_settings(out)
    if existing is not None:
        return checked_settings(vars(existing) | asked)
    if not store.subject_ids:
        raise UsageError("E_ATLAS", f"{store.where} has no subjects")
    return checked_settings({"subjects": store.subject_ids} | asked)


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError("E_SETTING", f"--shrink {text!r}: need whole numbers such as 4,2")
    return tuple(map(int, parts))


def _weights(path: Path, subject_ids: tuple[str, ...]) -> dict[str, float]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        found = {row["subject"]: float(row["weight"]) for row in rows}
    except KeyError as error:
        raise UsageError(
            "E_SETTING", f"--weights {path}: need columns subject,weight; there is no {error}"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        said = "need a CSV file with columns subject,weight and a number in each row"
        raise UsageError("E_SETTING", f"--weights {path}: {said}: {error}") from None
    if len(found) < len(rows):
        raise UsageError("E_SETTING", f"--weights {path}: a subject has two rows")
    unknown = sorted(set(found) - set(subject_ids))
    if unknown:
        raise UsageError("E_SETTING", f"--weights {path}: no subject {unknown[0]!r} in the store")
    return found


def _pass_line(number: int, facts: dict[str, Any]) -> str:
    drift = f"{facts['drift_voxels']:.3f} voxels ({facts['drift_mm']:.3f} mm)"
    left = f"{facts['left_voxels']:.3f} after its removal"
    moved = f"the template moved by {facts['moved_voxels']:.3f}"
    return f"pass {number}: drift {drift}, {left}; {moved}; NCC {facts['ncc']:.4f}"


def _tell(page: Path, out: Path, document: dict[str, Any], *, json: bool) -> None:
    if json:
        terminal.say_json({"report": page, **document})
        return
    last = document["passes"][-1]
    rows = {
        "template": out / document["image"],
        "subjects": f"{document['registered']} of {document['subjects']}",
        "passes": len(document["passes"]),
        "drift": f"{last['drift_voxels']:.3f} voxels in the last pass, {last['left_voxels']:.3f}"
        " after its removal",
        "moved": f"{last['moved_voxels']:.3f} voxels by the last pass",
        "sharpness": f"{last['sharpness']:.6f} per mm2",
        "transforms": out / "run",
    }
    terminal.say_table(str(page), rows)
