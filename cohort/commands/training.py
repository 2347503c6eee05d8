"""The command that trains a method on a store: ``train``."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from cohort import terminal
from cohort.config.training import training_config
from cohort.data.store import CohortStore
from cohort.errors import UsageError
from cohort.options import Config, Json, Store, local_path
from cohort.report.training import has_nobody_to_score, write_training_report
from cohort.studies.train import News, Trained, train
from cohort.studies.training_plan import TrainingTask
from triton_reg.training.parallel import group_of_torchrun, leads

_DEVICES = ("cpu", "cuda")


def train_command(
    store: Store,
    out: Annotated[
        Path, typer.Argument(parser=local_path, help="Folder for models, scores and the report.")
    ],
    method: Annotated[
        str, typer.Option("--method", help="What is trained: pdd_net or dio.")
    ] = "pdd_net",
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Train so often, and hold other subjects back each time."),
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=1, help="Train this fold alone, counted from 1.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Pairs to learn from; 400 for pdd_net, 600 for dio.")
    ] = None,
    supervision: Annotated[
        str,
        typer.Option(help="labels; or the volumes alone: mind for pdd_net, volumes for dio."),
    ] = "labels",
    seed: Annotated[
        int, typer.Option(min=0, help="Of folds, initial weights, pairs and augmentation.")
    ] = 0,
    train_scans: Annotated[
        int | None, typer.Option(min=2, help="Learn from at most so many subjects.")
    ] = None,
    config: Config = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="KEY=VALUE, a setting of the method or of the training; repeatable."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, or cuda; with torchrun a GPU for each process.")
    ] = "cpu",
    json: Json = False,
) -> None:
    """Train the features of a method on the subjects of a store.

    Writes a model, its curve and its scores for each fold, and a report. The same command again
    goes on where it was. Validations and scores are of at most 200 pairs, drawn by the seed.
    `cohort register STORE RUN --method pdd_net --set features=obelisk --set
    weights=OUT/fold-1/model.safetensors` registers with a model; features that dio has learned
    serve every method, with `--set features=learned`. `torchrun --nproc-per-node 8
    --no-python cohort train STORE OUT --device cuda --set pairs=8` shares the pairs of each step
    among eight GPUs.
    """
    if device not in _DEVICES:
        raise UsageError("E_SETTING", f"--device is {device!r}; need cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("E_SETTING", "--device cuda: torch finds no GPU here")
    opened = CohortStore.open(store)
    chosen = training_config(
        method,
        config,
        assignments or [],
        opened.grid.spacing_mm,
        steps=steps,
        supervision=supervision,
        seed=seed,
    )
    task = TrainingTask(*chosen, folds=folds or 0, train_scans=train_scans)
    with (
        group_of_torchrun(device) as own,
        terminal.progress_bar("training", quiet=json or not leads()) as update,
    ):

        def told(news: News) -> None:
            dice = "" if news.dice is None else f", Dice {news.dice:.3f}"
            said = f"{news.fold}: loss {news.loss:.5f}{dice}"
            update(news.step, news.steps, 0, said)
            if news.is_validated and not json:
                of = f"step {news.step:,} of {news.steps:,}"
                terminal.say_beside(f"{news.fold}: {of}, loss {news.loss:.5f}{dice}")

        def started(name: str, parameters: int) -> None:
            if not json:
                terminal.say(f"{name}: {parameters:,} parameters")

        given = {"only": fold, "device": own}
        found = train(opened, out, task, **given, told=told, started=started)
        is_first = leads()
    if is_first:
        _tell(out, found, json=json)


def _tell(out: Path, found: list[Trained], *, json: bool) -> None:
    page = write_training_report(out)
    if json:
        models = [{"fold": one.name, "model": one.model, "card": one.card} for one in found]
        terminal.say_json({"report": page, "folds": models})
    else:
        terminal.say_table(str(page), {one.name: _said(one) for one in found})


def _said(trained: Trained) -> str:
    """One fold in a line."""
    card, scores = trained.card, trained.card["scores"]
    learned = f"{card['parameters']:,} parameters, {card['steps_done']} steps"
    if has_nobody_to_score(card):
        unscored = "nobody was held back or validated on, so that nothing is scored"
        return f"{learned}; {unscored}; --folds holds subjects back"
    if scores["dice"] is None:
        return f"{learned}; no pairs with labels to score"
    return (
        f"{learned}; {scores['pairs']} {card['scores_of']} pairs: mean Dice"
        f" {scores['dice_before']:.3f} before, {scores['dice']:.3f} after"
    )
