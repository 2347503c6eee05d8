"""PDD-Net's regulariser, piece by piece, on any cohort with labels.

    python workflows/pdd_ablation.py cohort.zarr ablation --folds 3 --pairs 40 --workers 2

The published min-convolution and mean field against the exact min-convolution, the mean field
alone, a Gaussian over the control points, instance optimisation alone, and nothing; 0 to 4 rounds.
Subjects are dealt into folds, and pairs drawn within each. With ``--models OUT``, the folder of
``cohort train STORE OUT``, fold k's model registers fold k's held-back subjects. Every row is a run
below the output folder: the same command again goes on where it was. Writes ``ablation.csv`` and
prints it: mean and sd over the folds, and p of the difference from the published regulariser, by
the test over subjects that ``cohort report`` describes, after Holm.
"""

# ruff: noqa: T201

import argparse
import json
import random
from itertools import permutations
from pathlib import Path

import polars as pl

from cohort.config.method import method_config
from cohort.data.store import CohortStore
from cohort.endings import ended
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.engine.team import Team
from cohort.errors import UsageError
from cohort.report.statistics.design import PairDesign
from cohort.report.statistics.paired import compare_pairs, holm

MEASURES = ("dice_mean", "sdlogj", "folding", "register_s")
VARIANTS = {
    "min_convolution-2": [
        "smoothing=min_convolution",
        "iterations=2",
    ],  # the published one comes first
    **{f"min_convolution-{n}": ["smoothing=min_convolution", f"iterations={n}"] for n in (1, 3, 4)},
    "exact_min_convolution-2": ["smoothing=exact_min_convolution", "iterations=2"],
    **{f"mean_field-{n}": ["smoothing=mean_field", f"iterations={n}"] for n in (1, 2, 3, 4)},
    "gaussian-1": ["smoothing=gaussian", "iterations=1"],
    "instance_optimisation": ["smoothing=none", "iterations=0", "fit=true"],
    "min_convolution-2-fit": ["smoothing=min_convolution", "iterations=2", "fit=true"],
    "none": ["smoothing=none", "iterations=0"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=40, help="pairs within each fold")
    parser.add_argument("--models", type=Path, help="folder of cohort train")
    parser.add_argument("--workers", type=int, default=0, help="0 is a plain loop")
    parser.add_argument("--set", nargs="+", default=[], help="as for cohort register")
    asked = parser.parse_args()
    store, table = CohortStore.open(asked.store), []
    if not store.has_labels:
        raise UsageError(
            "E_STORE", f"{store.where}: no subject has labels, and overlap is compared"
        )
    folds = folds_of(store, asked)
    published = None
    for name in VARIANTS:
        rows = pl.concat([fold_rows(store, asked, name, *fold) for fold in folds.items()])
        published = rows if published is None else published
        table.append({"variant": name, **summary(rows, published)})
        print(name, "Dice", table[-1]["dice_mean"], flush=True)
    frame = pl.DataFrame(table)
    frame = frame.with_columns(p_holm=pl.Series(holm(frame["p"].to_numpy()))).drop("p")
    frame.write_csv(asked.out / "ablation.csv")
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160, float_precision=4):
        print(frame)


def folds_of(store: CohortStore, asked: argparse.Namespace) -> dict[str, list[str]]:
    """Held-back subjects of each fold: those of the trained models, or dealt out."""
    if asked.models is None:
        ids = sorted(store.subject_ids)
        random.Random(0).shuffle(ids)
        if len(ids) < 2 * asked.folds:
            raise UsageError(
                "E_PAIRS", f"--folds {asked.folds}: need two subjects a fold, got {len(ids)}"
            )
        return {f"fold-{fold}": ids[fold :: asked.folds] for fold in range(asked.folds)}
    training = json.loads((asked.models / "training.json").read_text())
    return {fold["name"]: fold["held_back"] for fold in training["folds"]}


def fold_rows(
    store: CohortStore, asked: argparse.Namespace, variant: str, fold: str, ids: list[str]
) -> pl.DataFrame:
    """The registered pairs of one variant in one fold."""
    pairs = sorted(permutations(ids, 2))
    pairs = random.Random(0).sample(pairs, min(asked.pairs, len(pairs)))
    asked.out.mkdir(parents=True, exist_ok=True)
    table = asked.out / f"{fold}.csv"
    table.write_text("\n".join(["fixed,moving", *(",".join(pair) for pair in pairs), ""]))
    settings = [*asked.set, *VARIANTS[variant]]
    if asked.models is not None:
        model = asked.models / fold / "model.safetensors"
        settings = ["features=obelisk", f"weights={model}", *settings]
    run_dir = asked.out / variant / fold
    open_run(run_dir, store, PlanSettings(method_config("pdd_net", None, settings), str(table)))
    run(run_dir, store, team=Team(asked.workers))
    return (
        read_rows(run_dir)
        .filter(status="ok")
        .sort("fixed", "moving")
        .with_columns(fold=pl.lit(fold))
    )


def summary(rows: pl.DataFrame, published: pl.DataFrame) -> dict[str, float | None]:
    """Mean and sd over the folds, and how sure a difference in Dice is."""
    folds = rows.group_by("fold").agg(pl.mean(*MEASURES))
    told = {
        name: value
        for measure in MEASURES
        for name, value in (
            (measure, folds[measure].mean()),
            (f"{measure}_sd", folds[measure].std()),
        )
    }
    both = rows.join(published, on=["fixed", "moving"], suffix="_published")
    difference = (both["dice_mean"] - both["dice_mean_published"]).to_numpy()
    design = PairDesign.of(both.select("fixed", "moving"))
    return {**told, "p": compare_pairs(difference, design).p if difference.any() else None}


if __name__ == "__main__":
    ended(main)
