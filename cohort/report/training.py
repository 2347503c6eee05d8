"""The report of a training: curves, scores on subjects that it never saw, and what it was."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from cohort.errors import StorageError
from cohort.report.figures import AFTER, BEFORE, figure_style, svg
from cohort.report.layout import Column, Table
from cohort.report.page import environment
from cohort.report.publish import write_file

_SMOOTHED = 20  # steps
_COLUMNS = (
    Column("fold", "Fold"),
    Column("training", "Trained", 0),
    Column("validation", "Validated", 0),
    Column("pairs", "Pairs", 0),
    Column("before", "Dice before", 3),
    Column("dice", "Dice after", 3),
    Column("sd", "SD", 3),
    Column("sdlogj", "sd ln det J", 3),
    Column("folding", "Folding %", 4),
    Column("steps", "Steps", 0),
    Column("best", "Best step", 0),
)
_PERSON = (
    "Subjects of one person, such as a left and a right structure or a second visit, may lie on"
    " both sides of a fold; nothing in the store tells. Scores are then those of subjects that are"
    " not quite strangers."
)


def write_training_report(out: Path) -> Path:
    """Write ``OUT/report/index.html`` of the folds that are done; returns its path.

    Raises:
        StorageError: ``E_STORAGE`` if a file cannot be read or written.
    """
    try:
        plan = json.loads((out / "training.json").read_text())
        paths = sorted(out.glob("*/card.json"))
        cards = [json.loads(path.read_text()) for path in paths]
        histories = [pl.read_csv(path.with_name("history.csv")) for path in paths]
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise StorageError("E_STORAGE", f"{out} cannot be read: {error}") from error
    curves = [
        (card["fold"]["name"], curve_plot(history))
        for card, history in zip(cards, histories, strict=True)
    ]
    page = environment().get_template("training.html.jinja").render(
        name=out.resolve().name,
        left=len(plan["folds"]) - len(cards),
        headline=_headline(cards),
        sheet=_scores(cards),
        unscored=_unscored(cards),
        curves=curves,
        facts=_facts(plan, cards),
        notes=_notes(cards),
    )  # fmt: skip
    return write_file(out / "report" / "index.html", page.encode())


def curve_plot(history: pl.DataFrame) -> str:
    """Loss of each step and its mean over the last twenty, and the Dice of each validation."""
    steps, losses = history["step"].to_numpy(), history["loss"]
    with figure_style():
        figure = Figure(figsize=(8.4, 2.8), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(steps, losses.to_numpy(), color=BEFORE, linewidth=0.5, alpha=0.5)
        smooth = losses.rolling_mean(_SMOOTHED, min_samples=1).to_numpy()
        axes.plot(steps, smooth, color=BEFORE, label=f"loss, mean of {_SMOOTHED} steps")
        axes.set(xlabel="step", ylabel="loss", xlim=(0, steps[-1]), ylim=(0, None))
        looked = history.drop_nulls("validation_dice")
        if len(looked):
            other = axes.twinx()
            other.spines["right"].set_visible(True)
            dices = looked["validation_dice"].to_numpy()
            shown = {"color": AFTER, "marker": "o", "markersize": 3.5, "label": "validation Dice"}
            other.plot(looked["step"].to_numpy(), dices, **shown)
            other.set_ylabel("validation Dice")
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8.5)
        return svg(figure)


def _scored(cards: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [card["scores"] for card in cards if card["scores"]["dice"] is not None]


def has_nobody_to_score(card: dict[str, Any]) -> bool:
    """Whether a training neither held subjects back nor validated on some."""
    return not card["fold"]["held_back"] and not card["fold"]["validation"]


def _unscored(cards: Sequence[dict[str, Any]]) -> str:
    """Why there are no scores; nothing if there are."""
    if _scored(cards):
        return ""
    if any(map(has_nobody_to_score, cards)):
        return (
            "Nobody was held back or validated on, so that nothing is scored; --folds holds"
            " subjects back."
        )
    return "There are no pairs with labels to score."


def _headline(cards: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    scores = _scored(cards)
    if not scores:
        return []
    dices = [one["dice"] for one in scores]
    before = fmean(one["dice_before"] for one in scores)
    spread = f" ± {stdev(dices):.3f}" if len(dices) > 1 else ""
    return [
        ("Dice", f"{before:.3f} → {fmean(dices):.3f}{spread}"),
        ("sd ln det J", f"{fmean(one['sdlogj'] for one in scores):.3f}"),
        ("Folding", f"{100 * fmean(one['folding'] for one in scores):.4f} %"),
        ("Parameters", f"{cards[0]['parameters']:,}"),
    ]


def _scores(cards: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for card in cards:
        fold, scores = card["fold"], card["scores"]
        folding = None if scores["folding"] is None else 100 * scores["folding"]
        rows.append((
            fold["name"], len(fold["training"]), len(fold["validation"]), scores["pairs"],
            scores["dice_before"], scores["dice"], scores["dice_sd"], scores["sdlogj"], folding,
            card["steps_done"], card["best_step"],
        ))  # fmt: skip
    return Table("Scores of each fold", _COLUMNS, rows)


def _facts(plan: dict[str, Any], cards: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    method, settings = plan["method"], plan["settings"]
    facts = [
        ("Store", plan["store"]),
        ("Store digest", plan["store_digest"]),
        *((_titled(name), _said(value)) for name, value in method.items()),
        ("Settings", _listed(settings)),
        ("Validation", _listed(plan["schedule"])),
    ]
    if cards:
        facts.append(("Versions", _listed(cards[0]["versions"])))
    return facts


def _titled(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _said(value: Any) -> str:
    """A part of the method: one setting, several, or a list of parts."""
    if isinstance(value, dict):
        return _listed(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "; ".join(_listed(one) for one in value)
    return value if isinstance(value, str) else json.dumps(value)


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items())


def _notes(cards: Sequence[dict[str, Any]]) -> list[str]:
    if any(map(has_nobody_to_score, cards)):
        return []
    notes = [_PERSON]
    if cards and cards[0]["scores_of"] == "held back":
        notes.append("Nothing was chosen by the subjects that a fold holds back.")
    elif _scored(cards):
        notes.append(
            "Nobody was held back: scores are those of the subjects by which the best step was"
            " chosen, and too good for others. --folds holds subjects back."
        )
    notes.append(
        "SD is over the pairs of a fold; above, ± is over the folds. Scores are of all ordered"
        " pairs, or of a seeded sample of 200 where there are more."
    )
    return notes
