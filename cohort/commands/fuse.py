"""The command that segments subjects by the labels of others: ``fuse``."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from cohort import terminal
from cohort.commands.crew import Crew, device_of, on_cards, team_of
from cohort.commands.groups import Driving, MethodChoice, Pairing
from cohort.commands.option_groups import with_groups
from cohort.data.store import CohortStore
from cohort.engine.plan import PlanSettings
from cohort.engine.run import DriverOptions, RunReport
from cohort.engine.spec import Device
from cohort.engine.team import Team
from cohort.errors import UsageError
from cohort.options import Json, RetryFailed, Store, local_path, worker_count
from cohort.report.fusion import write_fusion_report
from cohort.studies.fusion import FusionReport, fuse, register_atlases
from cohort.studies.fusion_plan import FusionTask, plan_fusion
from cohort.studies.fusion_scores import said_of
from triton_reg.ops.label_fusion import FusionSettings


@with_groups
def fuse_command(
    store: Store,
    out: Annotated[
        Path, typer.Argument(parser=local_path, help="Folder for the run, labels and scores.")
    ],
    targets: Annotated[
        str | None,
        typer.Option(help="Whom to segment: ids such as a,b,site1-*, or @FILE. [default: all]"),
    ] = None,
    atlases: Annotated[
        str | None,
        typer.Option(help="By whose labels, in the same way. [default: all who have labels]"),
    ] = None,
    fusion: Annotated[
        str, typer.Option(help="majority, local (local correlation) or joint (joint label fusion).")
    ] = "joint",
    select: Annotated[
        int | None,
        typer.Option(
            min=1, help="Only so many atlases vote: those most like the target. [default: all]"
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Register only so many atlases to a target: those most like it after ingest's"
            " alignment. [default: all]",
        ),
    ] = None,
    fusion_set: Annotated[
        list[str] | None,
        typer.Option(
            "--fusion-set",
            help="KEY=VALUE: radius of patches, search for the best one around, alpha and beta of"
            " joint weights, power of local ones; repeatable.",
        ),
    ] = None,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Also write the winners' share of the votes.")
    ] = False,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            "--run",
            parser=local_path,
            help="Register nothing: a run of these pairs with --keep-displacements all.",
        ),
    ] = None,
    *,
    choice: MethodChoice,
    crew: Crew,
    driving: Driving,
    retry_failed: RetryFailed = False,
    json: Json = False,
) -> None:
    """Segment subjects by the labels of others: register, then fuse their labels.

    Labels on each target's own scan are in OUT/labels, on the working grid in OUT/working; targets
    that have labels are scored, none of them by its own. The same command goes on where it was.
    """
    if run_dir is not None:
        _refuse_registering(choice, crew, driving, retry_failed=retry_failed)
    team = team_of(crew)
    device = device_of(crew.device, team, here=team.scheduler is None)
    opened = CohortStore.open(store)
    votes = _votes(fusion, fusion_set or [])
    given = {"settings": votes, "select": select, "candidates": candidates}
    task = plan_fusion(opened, targets, atlases, confidence=confidence, **given)
    if run_dir is None:
        plan = Pairing().planned(choice, device, max(on_cards(team, device, crew.workers).size, 1))
        driver = driving.options(trust_code=choice.trust_code, retry_failed=retry_failed)
        run_dir = _register(opened, out, task, plan, team, driver, crew.workers, quiet=json)
    with terminal.progress_bar("fusing", quiet=json) as update:
        report = fuse(
            opened, run_dir, out, task, workers=worker_count(crew.workers), progress=update
        )
    _tell(out, task, report, json=json)
    raise typer.Exit(1 if report.failed else 0)


def _refuse_registering(
    choice: MethodChoice, crew: Crew, driving: Driving, *, retry_failed: bool
) -> None:
    """Refuse with --run what only registering would heed; --workers fuse too."""
    asked = {
        "--method, --config and --set": choice.config_asked() is not None,
        "--device": crew.device is not None,
        "--gpus": crew.gpus is not None,
        "--scheduler": (crew.scheduler or crew.scheduler_file) is not None,
        "--batch": driving.batch is not None,
        "--keep-features": driving.keep_features,
        "--pair-timeout": driving.pair_timeout is not None,
        "--steal": driving.steal,
        "--retry-failed": retry_failed,
    }
    idle = [option for option, is_asked in asked.items() if is_asked]
    if idle:
        raise UsageError("E_FUSION", f"--run registers nothing; {', '.join(idle)} would")


def _register(
    store: CohortStore,
    out: Path,
    task: FusionTask,
    plan: PlanSettings,
    team: Team,
    driver: DriverOptions,
    workers: int | None,
    *,
    quiet: bool,
) -> Path:
    with terminal.progress_bar("registering", quiet=quiet) as update:

        def progress(report: RunReport, total: int) -> None:
            update(report.already_done + report.pairs, total, report.failed)

        def team_on(device: Device) -> Team:
            return on_cards(team, device, workers)

        return register_atlases(
            store, out, task, plan, team=team_on, options=driver, progress=progress
        )


def _votes(rule: str, assignments: list[str]) -> FusionSettings:
    """How atlases vote, as the user says it."""
    kinds = {one.name: type(one.default) for one in fields(FusionSettings) if one.name != "rule"}
    settings: dict[str, Any] = {"rule": rule}
    for text in assignments:
        key, _, value = text.partition("=")
        if key not in kinds:
            known = ", ".join(kinds)
            raise UsageError("E_SETTING", f"--fusion-set {text!r}: need KEY=VALUE; keys: {known}")
        try:
            settings[key] = kinds[key](value)
        except ValueError:
            said = {int: "a whole number", float: "a number"}[kinds[key]]
            raise UsageError("E_SETTING", f"--fusion-set {text!r}: need {said}") from None
    try:
        return FusionSettings(**settings)
    except ValueError as error:
        raise UsageError("E_SETTING", str(error)) from None


def _tell(out: Path, task: FusionTask, report: FusionReport, *, json: bool) -> None:
    facts = {
        "Targets": len(task.targets),
        "Atlases": len(task.atlases),
        "Voting": "all of them" if task.select is None else f"the {task.select} likest",
        **{name.capitalize(): value for name, value in asdict(task.settings).items()},
    }
    spread = said_of(report.table) if len(report.table) else {}
    failed = {name: str(error) for name, error in report.failed.items()}
    page = write_fusion_report(out, report.table, spread, facts, failed)
    if json:
        terminal.say_json({
            "report": page,
            "done": report.done,
            "now": report.now,
            "failed": failed,
            "targets": report.table.to_dicts(),
        })  # fmt: skip
        return
    rows: dict[str, Any] = {
        "segmented": f"{len(report.done)} targets, {report.now} of them now",
        "labels": out / "labels",
    }
    rows |= {f"Dice, {title}": said for title, said in spread.items()}
    terminal.say_table(str(page), rows)
    if failed:
        terminal.say_table("failed", failed)
