"""Commands that make runs: ``plan``, ``register``."""

import typer

from cohort import terminal
from cohort.commands.crew import Crew, device_of, on_cards, team_of
from cohort.commands.groups import Driving, MethodChoice, Pairing
from cohort.commands.option_groups import with_groups
from cohort.commands.planning import (
    estimate_facts,
    estimate_rows,
    estimates_of,
    is_worth_a_trial,
    plan_rows,
    say_cautions,
    with_trial,
)
from cohort.commands.run_text import apart_rows, run_rows
from cohort.data.store import CohortStore
from cohort.engine.cluster.workers import check_dashboard
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows
from cohort.engine.run import RunReport, run
from cohort.engine.run_folder import take_back
from cohort.engine.summary import SUMMARISED, summarise
from cohort.engine.team import Team
from cohort.errors import UsageError
from cohort.options import (
    Dashboard,
    HourlyPrice,
    Json,
    OnDevice,
    RetryFailed,
    Run,
    Store,
    Trial,
    Workers,
    worker_count,
)
from cohort.report.outliers import COLUMNS, outliers


@with_groups
def plan(
    store: Store,
    run_dir: Run,
    pairing: Pairing,
    choice: MethodChoice,
    device: OnDevice = None,
    workers: Workers = None,
    trial: Trial = True,
    hourly_price: HourlyPrice = None,
    json: Json = False,
) -> None:
    """Write down which pairs a run will register, and how, and say what it will take.

    Some pairs are tried for that, for up to a minute.
    """
    kind = device_of(device, here=trial)
    team = on_cards(Team(worker_count(workers)), kind if trial else None, workers)
    settings = pairing.planned(choice, kind, max(team.size, 1))
    opened = CohortStore.open(store)
    if trial:
        settings = with_trial(run_dir, opened, settings, team, quiet=json)
    is_new = not (run_dir / "run.json").exists()
    with terminal.waiting("planning", quiet=json):
        spec = open_run(run_dir, opened, settings)
    say_cautions(spec, opened)
    try:
        estimates = estimates_of(run_dir, spec, team.size) if spec.measured else []
    except UsageError:
        if is_new:
            take_back(run_dir)
        raise
    if json:
        document = spec.model_dump(mode="json", exclude_none=True)
        terminal.say_json({**document, "estimates": estimate_facts(estimates, hourly_price)})
        return
    terminal.say_table(str(run_dir), plan_rows(spec))
    if estimates:
        title = f"expected, from {spec.measured.pairs} pairs tried here" if spec.measured else ""
        terminal.say_columns(title, *estimate_rows(estimates, hourly_price))


@with_groups
def register(
    store: Store,
    run_dir: Run,
    pairing: Pairing,
    choice: MethodChoice,
    crew: Crew,
    driving: Driving,
    retry_failed: RetryFailed = False,
    dashboard: Dashboard = False,
    json: Json = False,
) -> None:
    """Register the pairs of a run and measure each; the same command again goes on where it was.

    Makes the plan if there is none. Stop it at any time: what was committed is kept.
    """
    team = team_of(crew)
    device = device_of(crew.device, team, here=team.scheduler is None)
    team = on_cards(team, device, crew.workers)
    if dashboard:
        check_dashboard(team)
    opened = CohortStore.open(store)
    settings = pairing.planned(choice, device, max(team.size, 1))
    if team.scheduler is None and is_worth_a_trial(opened, settings):
        settings = with_trial(run_dir, opened, settings, team, quiet=json)
    with terminal.waiting("planning", quiet=json):
        spec = open_run(run_dir, opened, settings)
    say_cautions(spec, opened)
    team = on_cards(team, spec.device, crew.workers).no_more_than(spec.n_tiles)
    with terminal.progress_bar("registering", quiet=json) as update:

        def progress(report: RunReport, total: int) -> None:
            update(report.already_done + report.pairs, total, report.failed)

        report = run(
            run_dir,
            opened,
            team=team,
            progress=progress,
            on_dashboard=terminal.say_dashboard if dashboard else None,
            options=driving.options(trust_code=choice.trust_code, retry_failed=retry_failed),
        )
    rows = read_rows(run_dir, (*SUMMARISED, *COLUMNS))
    summary, apart = summarise(rows), outliers(rows)
    if json:
        document = {"summary": terminal.as_json(summary), "apart": apart.to_dicts()}
        terminal.say_json({**terminal.as_json(report), **document})
    else:
        terminal.say_table(str(run_dir), run_rows(report, summary))
        if len(apart):
            terminal.say_table("stand apart", apart_rows(apart))
    raise typer.Exit(1 if summary.failed else 0)
