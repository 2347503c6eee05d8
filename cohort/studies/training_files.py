"""What a training leaves beside its models: cards, histories, scores."""

import csv
import io
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from cohort.data.storage import write_atomic
from cohort.data.store import CohortStore
from cohort.studies.training_plan import Fold, TrainingTask
from triton_reg import __version__
from triton_reg.training.scans import PairScore
from triton_reg.training.validated import ValidatedTraining

MODEL, CARD, HISTORY, SCORES = "model.safetensors", "card.json", "history.csv", "scores.csv"
_SCORE_COLUMNS = ("fold", "pairs_of", "fixed", "moving", "dice_before", "dice", "sdlogj", "folding")


def model_card(
    store: CohortStore,
    task: TrainingTask,
    fold: Fold,
    course: ValidatedTraining,
    scores: list[PairScore],
) -> dict[str, Any]:
    """What is to be known of a model: where it comes from, its settings, and how it did."""
    return {
        "store_digest": store.digest,
        "grid": store.grid.to_json(),
        "spacing_mm": store.grid.spacing_mm,
        "fold": fold._asdict(),
        **task.recipe.facts(),
        "parameters": course.training.parameter_count,
        "steps_done": course.training.done,
        "validation_pairs": len(course.pairs),
        "validation_dice": course.dices.get(course.best_step),
        "best_step": course.best_step or course.training.done,
        "scores_of": "held back" if fold.held_back else "validation",
        "scores": _means(scores),
        "versions": {"triton_reg": __version__, "torch": torch.__version__},
    }


def _means(scores: list[PairScore]) -> dict[str, float | int | None]:
    found: dict[str, float | int | None] = {"pairs": len(scores)}
    for name in ("dice_before", "dice", "sdlogj", "folding"):
        values = [value for one in scores if isfinite(value := getattr(one, name))]
        found[name] = fmean(values) if values else None
        if name == "dice":
            found["dice_sd"] = stdev(values) if len(values) > 1 else None
    return found


def history_table(course: ValidatedTraining) -> bytes:
    """The loss of each step and the Dice of each validation, as CSV."""
    rows = [
        (step, loss, course.dices.get(step, "")) for step, loss in enumerate(course.losses, start=1)
    ]
    return _csv(("step", "loss", "validation_dice"), rows)


def score_table(fold: Fold, scores: list[PairScore]) -> bytes:
    """The measures of each pair, as CSV."""
    names = fold.held_back or fold.validation
    of = "held back" if fold.held_back else "validation"
    rows = [
        (fold.name, of, names[one.fixed], names[one.moving], *one[2:])
        for one in scores
    ]  # fmt: skip
    return _csv(_SCORE_COLUMNS, rows)


def _csv(titles: tuple[str, ...], rows: list[tuple[Any, ...]]) -> bytes:
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerows([titles, *rows])
    return content.getvalue().encode()


def gather_scores(out: Path) -> None:
    """The scores of all folds that are done, in one table."""
    paths = sorted(out.glob(f"*/{SCORES}"), key=lambda path: (len(path.parent.name), path))
    lines = [path.read_text().splitlines() for path in paths]
    rows = [row for one in lines for row in one[1:]]
    write_atomic(out / SCORES, "\n".join([",".join(_SCORE_COLUMNS), *rows, ""]).encode())
