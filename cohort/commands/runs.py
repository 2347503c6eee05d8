"""Commands that make runs: ``plan``, ``register``."""

import typer

from cohort import terminal
from cohort.commands.crew import device_of, on_cards, team_of
from cohort.commands.planning import (
    estimate_facts,
    estimate_rows,
    estimates_of,
    is_worth_a_trial,
    plan_rows,
    with_trial,
)
from cohort.config.method import method_asked
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.cluster.workers import check_dashboard
from cohort.engine.families import families_of
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows, summarise
from cohort.engine.run import DriverOptions, RunReport, run
from cohort.engine.team import Team
from cohort.options import (
    Assignments,
    AtlasLabels,
    Batch,
    Config,
    Dashboard,
    Gpus,
    HourlyPrice,
    InsecureNetwork,
    Json,
    KeepDisplacements,
    KeepFeatures,
    KeepUncertainty,
    MethodName,
    Metrics,
    OnDevice,
    Pairs,
    PairTimeout,
    RetryFailed,
    Run,
    Scheduler,
    SchedulerFile,
    Seed,
    Steal,
    Store,
    TileSize,
    Trial,
    TrustCode,
    Workers,
    worker_count,
)


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
    keep_displacements: KeepDisplacements = None,
    seed: Seed = None,
    tile_size: TileSize = None,
    device: OnDevice = None,
    workers: Workers = None,
    trial: Trial = True,
    hourly_price: HourlyPrice = None,
    trust_code: TrustCode = False,
    json: Json = False,
) -> None:
    """Write down which pairs a run will register, and how, and say what it will take.

    Some pairs are tried for that, for up to a minute.
    """
    chosen = device_of(device, here=trial)
    team = on_cards(Team(worker_count(workers)), chosen if trial else None, workers)
    settings = PlanSettings(
        method=method_asked(method, config, assignments),
        pairs=pairs,
        seed=seed,
        tile_size=tile_size,
        trust_code=trust_code,
        atlas_labels=atlas_labels,
        metrics=None if metrics is None else families_of(metrics),
        keep_uncertainty=keep_uncertainty,
        keep_displacements=keep_displacements,
        device=chosen,
        workers=max(team.size, 1),
    )
    opened = CohortStore.open(store)
    if trial:
        settings = with_trial(run_dir, opened, settings, team, quiet=json)
    spec = open_run(run_dir, opened, settings)
    estimates = estimates_of(run_dir, spec, team.size) if spec.measured else []
    if json:
        document = spec.model_dump(mode="json", exclude_none=True)
        terminal.say_json({**document, "estimates": estimate_facts(estimates, hourly_price)})
        return
    terminal.say_table(str(run_dir), plan_rows(spec))
    if estimates:
        title = f"expected, from {spec.measured.pairs} pairs tried here" if spec.measured else ""
        terminal.say_columns(title, *estimate_rows(estimates, hourly_price))


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
    keep_displacements: KeepDisplacements = None,
    seed: Seed = None,
    tile_size: TileSize = None,
    device: OnDevice = None,
    trust_code: TrustCode = False,
    workers: Workers = None,
    gpus: Gpus = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    insecure_network: InsecureNetwork = False,
    batch: Batch = None,
    keep_features: KeepFeatures = False,
    pair_timeout: PairTimeout = None,
    retry_failed: RetryFailed = False,
    steal: Steal = False,
    dashboard: Dashboard = False,
    json: Json = False,
) -> None:
    """Register the pairs of a run and measure each; the same command again goes on where it was.

    Makes the plan if there is none. Stop it at any time: what was committed is kept.
    """
    team = team_of(workers, gpus, scheduler or scheduler_file, insecure_network)
    chosen = device_of(device, team, here=team.scheduler is None)
    team = on_cards(team, chosen, workers)
    if dashboard:
        check_dashboard(team)
    opened = CohortStore.open(store)
    settings = PlanSettings(
        method=method_asked(method, config, assignments),
        pairs=pairs,
        seed=seed,
        tile_size=tile_size,
        trust_code=trust_code,
        atlas_labels=atlas_labels,
        metrics=None if metrics is None else families_of(metrics),
        keep_uncertainty=keep_uncertainty,
        keep_displacements=keep_displacements,
        device=chosen,
        workers=max(team.size, 1),
    )
    if team.scheduler is None and is_worth_a_trial(opened, settings):
        settings = with_trial(run_dir, opened, settings, team, quiet=json)
    spec = open_run(run_dir, opened, settings)
    team = on_cards(team, spec.device, workers).no_more_than(spec.n_tiles)
    with terminal.progress_bar("registering", quiet=json) as update:

        def progress(report: RunReport, total: int) -> None:
            update(report.already_done + report.pairs, total, report.failed)

        report = run(
            run_dir,
            opened,
            team=team,
            progress=progress,
            on_dashboard=terminal.say_dashboard if dashboard else None,
            options=DriverOptions(
                steal, retry_failed, pair_timeout, batch, trust_code, keep_features
            ),
        )
    summary = summarise(read_rows(run_dir))
    if json:
        terminal.say_json({**terminal.as_json(report), "summary": terminal.as_json(summary)})
    else:
        terminal.say_run(run_dir, report, summary)
    raise typer.Exit(1 if summary.failed else 0)
