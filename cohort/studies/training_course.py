"""One fold's training from where it was kept to its end: steps, validations, checkpoints."""

import io
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from statistics import fmean
from time import monotonic
from typing import NamedTuple

import torch

from cohort.data.interrupts import endings_held
from cohort.data.storage import write_atomic
from cohort.errors import StorageError, UsageError
from triton_reg.training.gradients import DivergedError
from triton_reg.training.parallel import leads, wait_for_all
from triton_reg.training.validated import ValidatedTraining

CHECKPOINT = "checkpoint.pt"
_CHECKPOINT_EVERY, _CHECKPOINT_EVERY_S = 25, 60.0  # steps, and where they are slow


class News(NamedTuple):
    """How far the training of one fold is.

    Attributes:
        fold: its name.
        step: the last one.
        steps: at most.
        loss: mean of the last 20.
        dice: of the last validation.
        is_validated: whether that was at this step.
    """

    fold: str
    step: int
    steps: int
    loss: float
    dice: float | None
    is_validated: bool


def resume(course: ValidatedTraining, path: Path) -> None:
    """Go on from a checkpoint, where there is one.

    Raises:
        StorageError: ``E_CORRUPT`` if the file is none of this training.
    """
    if path.exists():
        try:
            # wherever it was kept; a random state has to stay on the CPU
            course.load_state(torch.load(path, map_location="cpu", weights_only=True))
        except (OSError, EOFError, RuntimeError, KeyError, ValueError, UnpicklingError) as error:
            raise StorageError(
                "E_CORRUPT", f"{path} is no checkpoint of this training: {error}; remove it"
            ) from None
    wait_for_all()  # or one that is over already would remove the file before another looks


def run_course(
    course: ValidatedTraining, name: str, path: Path, told: Callable[[News], None] | None
) -> None:
    """Step a training until it is over; Ctrl-C and SIGTERM keep the last step.

    Args:
        course: the training.
        name: of its fold.
        path: of the checkpoint.
        told: called after each step and its validation.

    Raises:
        UsageError: ``E_TRAIN`` if it diverges.
        StorageError: if the checkpoint cannot be written.
    """
    kept_s = monotonic()
    try:
        while not course.is_over:
            if not course.is_due:
                with endings_held():  # what is kept is never half a step
                    _step(course, name)
            is_slow = monotonic() - kept_s > _CHECKPOINT_EVERY_S
            if leads() and (is_slow or course.training.done % _CHECKPOINT_EVERY == 0):
                _keep(course, path)
                kept_s = monotonic()
            if course.is_due:
                course.validate()
            if told is not None and leads():
                told(_news(course, name))
    except (KeyboardInterrupt, SystemExit):
        if leads():
            _keep(course, path)
        raise


def _step(course: ValidatedTraining, name: str) -> None:
    at = course.training.done + 1
    try:
        course.step()
    except DivergedError as error:
        raise UsageError("E_TRAIN", f"{name}, step {at}: {error}, in another folder") from None


def _keep(course: ValidatedTraining, path: Path) -> None:
    content = io.BytesIO()
    torch.save(course.state(), content)
    write_atomic(path, content.getvalue())


def _news(course: ValidatedTraining, name: str) -> News:
    last, step = list(course.dices.values())[-1:], course.training.done
    loss, dice = fmean(course.losses[-20:]), last[0] if last else None
    return News(name, step, course.steps, loss, dice, step in course.dices)
