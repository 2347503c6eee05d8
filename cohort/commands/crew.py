"""Who works on a run, and on what device, as the command line says it."""

from dataclasses import dataclass
from itertools import cycle, islice

import torch

from cohort.engine.cluster.given import allowed_address
from cohort.engine.spec import Device
from cohort.engine.team import PLAIN, Team, parse_gpus
from cohort.errors import UsageError
from cohort.options import (
    Gpus,
    InsecureNetwork,
    OnDevice,
    Scheduler,
    SchedulerFile,
    Workers,
    worker_count,
)


@dataclass(frozen=True)
class Crew:
    """Who works on it, and on what device."""

    device: OnDevice = None
    workers: Workers = None
    gpus: Gpus = None
    scheduler: Scheduler = None
    scheduler_file: SchedulerFile = None
    insecure_network: InsecureNetwork = False


def team_of(crew: Crew) -> Team:
    """The workers that were asked for; without a word one a core.

    Raises:
        UsageError: ``E_TEAM`` or ``E_DEVICE`` for what cannot be had together, or at all, and as
            :func:`cohort.engine.cluster.given.allowed_address` does.
    """
    scheduler = crew.scheduler or crew.scheduler_file
    if sum(asked is not None for asked in (crew.workers, crew.gpus, scheduler)) > 1:
        raise UsageError(
            "E_TEAM", "--workers, --gpus and --scheduler each say who works; need one of them"
        )
    if crew.gpus is not None:
        return Team(gpus=parse_gpus(crew.gpus, torch.cuda.device_count()))
    if scheduler is not None:
        team = Team(scheduler=scheduler, insecure_network=crew.insecure_network)
        allowed_address(team)
        return team
    return Team(worker_count(crew.workers))


def device_of(asked: str | None, team: Team = PLAIN, *, here: bool = True) -> Device | None:
    """The kind of device that was asked for; None if nothing was said.

    Args:
        asked: by the user.
        team: that will work on the run.
        here: whether this machine is to have such a device.

    Raises:
        UsageError: ``E_DEVICE`` if there is no such kind, none here, or the team is of another.
    """
    if asked not in (None, "cpu", "cuda"):
        raise UsageError("E_DEVICE", f"unknown device {asked!r}; possible: cpu, cuda")
    if team.gpus and asked == "cpu":
        raise UsageError("E_DEVICE", "--gpus gives each worker a card and --device is cpu")
    if asked == "cuda" and here and not torch.cuda.is_available():
        raise UsageError(
            "E_DEVICE",
            "--device cuda: torch finds no GPU here; plan with --no-trial, register where one is",
        )
    return "cuda" if team.gpus or asked == "cuda" else "cpu" if asked == "cpu" else None


def on_cards(team: Team, device: Device | None, workers: int | None) -> Team:
    """For a run on GPUs, a card for each worker: one a card, or as many as were asked for, in turn.

    One worker, or none but this process, takes the first card.

    Raises:
        UsageError: ``E_DEVICE`` if there is no card.
    """
    if device != "cuda" or team.scheduler is not None or team.gpus or workers in (0, 1):
        return team
    if not torch.cuda.device_count():
        raise UsageError(
            "E_DEVICE", "this is planned for GPUs and torch finds none here; do it where one is"
        )
    cards = parse_gpus("all", torch.cuda.device_count())
    return Team(gpus=cards if workers is None else tuple(islice(cycle(cards), workers)))
