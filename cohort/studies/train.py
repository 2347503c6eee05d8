"""Training on the subjects of a store: fold by fold, resumable, with a model and scores of each."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cohort.data.one_thread import one_thread
from cohort.data.storage import sweep, to_json, write_atomic
from cohort.data.store import CohortStore
from cohort.errors import SchedulerError, UsageError
from cohort.studies.training_course import CHECKPOINT, News, resume, run_course
from cohort.studies.training_files import (
    CARD,
    HISTORY,
    MODEL,
    SCORES,
    gather_scores,
    history_table,
    model_card,
    score_table,
)
from cohort.studies.training_plan import Fold, TrainingTask, forget_training, open_training
from cohort.studies.training_scans import read_scans, scored_structures
from triton_reg import Method
from triton_reg.training.folds import some_pairs
from triton_reg.training.parallel import ProcessesLostError, leads, wait_for_all
from triton_reg.training.recipe import Training
from triton_reg.training.scans import PairScore, Scans, pair_scores
from triton_reg.training.validated import ValidatedTraining


@dataclass(frozen=True)
class Trained:
    """What became of one fold: its model, and the card that stands in it."""

    name: str
    model: Path
    card: dict[str, Any]


def train(
    store: CohortStore,
    out: Path,
    task: TrainingTask,
    *,
    only: int | None = None,
    device: torch.device | None = None,
    told: Callable[[News], None] | None = None,
    started: Callable[[str, int], None] | None = None,
) -> list[Trained]:
    """Train every fold that has no model yet, and score it on the subjects that it holds back.

    Stop it at any time: the same call goes on from the last step, or if it was killed from the last
    checkpoint, and ends with the same bits.

    Args:
        store: the subjects.
        out: folder of the training; ``OUT/fold-K`` is that of a fold.
        task: see :class:`TrainingTask`.
        only: number of the one fold to train, from 1.
        device: where it is trained; the CPU. Processes of a ``torch.distributed`` group share the
            pairs of each step, and the first of them writes.
        told: called after each step.
        started: called with the name of each fold that is trained now, and how many parameters
            it learns.

    Raises:
        UsageError: ``E_PLAN_MISMATCH`` if the folder holds another training; ``E_TRAIN`` if there
            are too few subjects or labels, or no such fold.
        SchedulerError: ``E_WORKER_LOST`` if another process of the group is gone.
        SubjectError, StorageError: if a subject or a file cannot be read or written.
    """
    try:
        return _trained(store, out, task, only, device, told, started)
    except ProcessesLostError as error:
        raise SchedulerError(
            "E_WORKER_LOST", f"{error}. What was kept last is there; the same command goes on"
        ) from None


def _trained(
    store: CohortStore,
    out: Path,
    task: TrainingTask,
    only: int | None,
    device: torch.device | None,
    told: Callable[[News], None] | None,
    started: Callable[[str, int], None] | None,
) -> list[Trained]:
    if leads():
        open_training(out, store, task)
        sweep(out)
    wait_for_all()
    folds = open_training(out, store, task)
    if only is not None:
        if not 1 <= only <= len(folds):
            raise UsageError("E_TRAIN", f"--fold {only}: there are folds 1 to {len(folds)}")
        folds = folds[only - 1 : only]
    with one_thread():
        for fold in folds:
            model = out / fold.name / MODEL
            if not model.exists():
                _train_fold(store, out / fold.name, task, fold, device, told, started)
            wait_for_all()
    if leads():
        gather_scores(out)
    return [_found(out / fold.name, fold) for fold in folds]


def _found(folder: Path, fold: Fold) -> Trained:
    return Trained(fold.name, folder / MODEL, json.loads((folder / CARD).read_text()))


def _train_fold(
    store: CohortStore,
    folder: Path,
    task: TrainingTask,
    fold: Fold,
    device: torch.device | None,
    told: Callable[[News], None] | None,
    started: Callable[[str, int], None] | None,
) -> None:
    """Until the fold has a model."""
    place = device or torch.device("cpu")
    learned = read_scans(store, fold.training).to(place)
    validation = read_scans(store, fold.validation).to(place) if fold.validation else None
    try:
        training = _begun(task, learned)
    except ValueError as error:
        forget_training(folder.parent)
        raise UsageError("E_TRAIN", f"{store.where}, {fold.name}: {error}") from None
    sweep(folder)  # also makes it
    structures = scored_structures(task, learned.structures, validation)
    course = ValidatedTraining(
        training, task.recipe.steps, validation, structures, task.schedule, task.recipe.seed
    )
    resume(course, folder / CHECKPOINT)
    if started is not None and leads():
        started(fold.name, training.parameter_count)
    run_course(course, fold.name, folder / CHECKPOINT, told)
    if leads():
        _write_fold(store, folder, task, fold, course, learned.structures)


def _begun(task: TrainingTask, learned: Scans) -> Training:
    """A training at its start; ``ValueError`` if there is nothing that it could learn."""
    if task.recipe.needs_labels and not len(learned.structures):
        raise ValueError("--supervision labels needs labels other than 0 to learn from, got none")
    return task.recipe.start(learned)


def _write_fold(
    store: CohortStore,
    folder: Path,
    task: TrainingTask,
    fold: Fold,
    course: ValidatedTraining,
    learned: Tensor,
) -> None:
    """Scores, card and model of a fold that is over; ``learned`` are its label values."""
    method = course.result()
    scores = _scored(store, task, fold, method, learned)
    card = model_card(store, task, fold, course, scores)
    write_atomic(folder / HISTORY, history_table(course))
    write_atomic(folder / SCORES, score_table(fold, scores))
    write_atomic(folder / CARD, to_json(card))
    task.recipe.save(folder / MODEL, method, card)  # last: it says that the fold is done
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _scored(
    store: CohortStore, task: TrainingTask, fold: Fold, method: Method, learned: Tensor
) -> list[PairScore]:
    """Ordered pairs of who was held back, or of who validated where nobody was: all, or a seeded
    sample of them."""
    names = fold.held_back or fold.validation
    if len(names) < 2:
        return []
    pairs = some_pairs(len(names), task.recipe.seed)
    scans = read_scans(store, names).to(learned.device)
    structures = scored_structures(task, learned, scans)
    if not len(structures):
        return []
    return pair_scores(method, scans, pairs, structures)
