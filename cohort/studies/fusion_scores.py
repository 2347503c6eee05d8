"""How fused labels compare with a target's own, and with what single atlases give."""

from collections.abc import Iterable, Mapping
from statistics import fmean, stdev
from typing import Any

import polars as pl
from torch import Tensor

from triton_reg.metrics.overlap import dice_of_counts, label_counts

_DICE = {
    "target": pl.String,
    "segmentation": pl.String,
    "structure": pl.Int64,
    "name": pl.String,
    "dice": pl.Float64,
}
_TARGETS = {
    "target": pl.String,
    "votes": pl.Int64,
    "fused": pl.Float64,
    "likest": pl.String,
    "likest_dice": pl.Float64,
    "best": pl.String,
    "best_dice": pl.Float64,
}


def scores_of(truth: Tensor, labels: Tensor) -> dict[str, float]:
    """Dice by structure, of the structures that ``truth`` has; 0 for one that ``labels`` lack.

    Args:
        truth, labels: ``[1, 1, D, H, W]`` int32.
    """
    counts = label_counts(truth, labels)
    structures = counts[0, 1:].nonzero()[:, 0] + 1
    scores = dice_of_counts(counts)[structures].nan_to_num(0.0)
    return {
        str(label): one for label, one in zip(structures.tolist(), scores.tolist(), strict=True)
    }


def dice_table(
    records: Iterable[Mapping[str, Any]], rule: str, names: Mapping[str, str]
) -> pl.DataFrame:
    """A row for each target, segmentation and structure.

    Args:
        records: of targets, see :mod:`cohort.studies.fusion_target`.
        rule: what the fused segmentation is called; an atlas is called by its id.
        names: of structures by label.
    """
    rows = []
    for record in records:
        given = {rule: record["dice"] or {}, **record["dice_of_atlases"]}
        rows += [
            (record["target"], which, int(label), names.get(label), value)
            for which, scores in given.items()
            for label, value in sorted(scores.items(), key=lambda entry: int(entry[0]))
        ]
    return pl.DataFrame(rows, schema=_DICE, orient="row")


def target_table(records: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """A row for each target with labels of its own: mean Dice of the fusion, of the atlas that
    looks most like it, which needs no labels to be chosen, and of the best atlas in hindsight."""
    rows = []
    for record in records:
        if not record["dice"]:
            continue
        means = {name: _mean(scores) for name, scores in record["dice_of_atlases"].items()}
        likest = record["atlases"][0]["id"]
        best = max(sorted(means), key=means.__getitem__)
        fused = _mean(record["dice"])
        rows.append((
            record["target"], record["votes"], fused, likest, means[likest], best, means[best],
        ))  # fmt: skip
    return pl.DataFrame(rows, schema=_TARGETS, orient="row")


def said_of(table: pl.DataFrame) -> dict[str, str]:
    """Means over the targets of a :func:`target_table` with their standard deviations."""
    titles = {
        "fused": "fused",
        "likest_dice": "likest atlas alone",
        "best_dice": "best atlas, in hindsight",
    }
    return {title: _spread(table[column].to_list()) for column, title in titles.items()}


def _mean(scores: Mapping[str, float]) -> float:
    return fmean(scores.values())


def _spread(values: list[float]) -> str:
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"
