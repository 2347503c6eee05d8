"""What a training is: which subjects train, validate and are held back, with which settings."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cohort.data.own_folder import own_folder
from cohort.data.storage import to_json, write_atomic
from cohort.data.store import CohortStore
from cohort.errors import UsageError
from triton_reg.training.folds import held_back, shuffled
from triton_reg.training.recipe import Recipe
from triton_reg.training.validated import Schedule

PLAN = "training.json"
_FEWEST_FOR_VALIDATION = 10


class Fold(NamedTuple):
    """Subjects of one training: learned from, looked at while it learns, and never seen."""

    name: str
    training: tuple[str, ...]
    validation: tuple[str, ...]
    held_back: tuple[str, ...]


@dataclass(frozen=True)
class TrainingTask:
    """What to train and how.

    Attributes:
        recipe: of one training.
        schedule: of its validations; its share of the training subjects validates where there are
            at least ten of them and labels to compare.
        folds: how many; 0 for a single training that holds nobody back.
        train_scans: at most so many subjects to learn from, those that validate included.
    """

    recipe: Recipe
    schedule: Schedule
    folds: int = 0
    train_scans: int | None = None


def plan_folds(store: CohortStore, task: TrainingTask) -> list[Fold]:
    """Who trains in each fold; the same store, seed and number of folds give the same.

    Raises:
        UsageError: ``E_TRAIN`` if there are too few subjects.
    """
    names = store.subject_ids
    seed, unlabelled = task.recipe.seed, set(store.inventory().unlabelled)
    order = shuffled(len(names), seed)
    try:
        kept = held_back(len(names), task.folds, seed) if task.folds else [[]]
    except ValueError as error:
        raise UsageError("E_TRAIN", f"{store.where}: {error}") from None
    folds = []
    for number, rows in enumerate(kept, start=1):
        learned = [names[row] for row in order if row not in rows][: task.train_scans]
        if len(learned) < 2:
            raise UsageError(
                "E_TRAIN", f"{store.where}: training needs at least 2 subjects, got {len(learned)}"
            )
        looked_at = _validating(learned, unlabelled, task.schedule)
        name = f"fold-{number}" if task.folds else "all"
        out = tuple(sorted(names[row] for row in rows))
        training = tuple(one for one in learned if one not in looked_at)
        folds.append(Fold(name, training, looked_at, out))
    return folds


def _validating(learned: list[str], unlabelled: set[str], schedule: Schedule) -> tuple[str, ...]:
    """Who of the subjects to learn from validates: the last that have labels to compare."""
    count, labelled = len(learned), [one for one in learned if one not in unlabelled]
    if count < _FEWEST_FOR_VALIDATION or not schedule.share or len(labelled) < 2:
        return ()
    return tuple(labelled[-min(max(2, round(schedule.share * count)), count - 2) :])


def open_training(out: Path, store: CohortStore, task: TrainingTask) -> list[Fold]:
    """Begin a training in a folder, or go on with one of the same subjects and settings.

    Raises:
        UsageError: ``E_PLAN_MISMATCH`` with what differs, ``E_TRAIN`` if it cannot be planned,
            subjects have no labels to learn from, or the folder is somebody else's.
        StorageError: if the folder cannot be written.
    """
    folds = plan_folds(store, task)
    _check_labels(store, task, folds)
    wanted = json.loads(to_json(_document(store, task, folds)))
    path = out / PLAN
    if not path.exists():
        own_folder(out, "E_TRAIN", "training", mark=PLAN, begun=[fold.name for fold in folds])
        write_atomic(path, to_json(wanted))
        return folds
    found = read_plan(out)
    # a store may have moved; its digest says whether it is the same
    differing = _differences({**found, "store": None}, {**wanted, "store": None})
    if differing:
        said = "; ".join(differing)
        raise UsageError(
            "E_PLAN_MISMATCH",
            f"{out} holds a training with another plan: {said}. Choose another folder",
        )
    return folds


def forget_training(out: Path) -> None:
    """Remove the plan of a training none of whose folds began, so that the folder takes another."""
    if not any(one.is_dir() for one in out.iterdir()):
        (out / PLAN).unlink(missing_ok=True)


def _check_labels(store: CohortStore, task: TrainingTask, folds: list[Fold]) -> None:
    if not task.recipe.needs_labels:
        return
    wanted = {
        name for fold in folds for name in (*fold.training, *fold.validation, *fold.held_back)
    }
    without = [name for name in store.inventory().unlabelled if name in wanted]
    if without:
        raise UsageError(
            "E_TRAIN",
            f"--supervision labels needs labels of every subject; {len(without)} have none, such"
            f" as {without[0]}. --supervision mind (pdd_net) or volumes (dio) needs none",
        )


def read_plan(out: Path) -> dict[str, Any]:
    """The document of a training.

    Raises:
        UsageError: ``E_TRAIN`` if the folder holds none.
    """
    try:
        return json.loads((out / PLAN).read_text())
    except (OSError, ValueError) as error:
        raise UsageError("E_TRAIN", f"{out / PLAN} is no plan of a training: {error}") from None


def _document(store: CohortStore, task: TrainingTask, folds: list[Fold]) -> dict[str, Any]:
    return {
        "store": store.address,
        "store_digest": store.digest,
        **task.recipe.facts(),
        "schedule": asdict(task.schedule),
        "folds": [one._asdict() for one in folds],
    }


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What two documents disagree on, setting by setting."""
    said = []
    for key in sorted({*found, *wanted}):
        one, other = found.get(key), wanted.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            said += _differences(one, other)
        elif one != other:
            said.append(f"{key}: {_short(one)} there, {_short(other)} asked for")
    return said


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 80 else f"{text[:80]}..."
