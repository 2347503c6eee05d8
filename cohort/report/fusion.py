"""The page of a multi-atlas segmentation: how it was voted, and how well, target by target."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from cohort.report.figures import AFTER, BEFORE, MOST_DRAWN, figure_style, svg
from cohort.report.layout import Column, laid_out
from cohort.report.page import environment
from cohort.report.publish import write_file

_COLUMNS = (
    Column("target", "Target"),
    Column("votes", "Atlases", 0),
    Column("fused", "Dice, fused", 3),
    Column("likest", "Likest atlas"),
    Column("likest_dice", "Dice, likest", 3),
    Column("best", "Best in hindsight"),
    Column("best_dice", "Dice, best", 3),
)


def write_fusion_report(
    out: Path,
    table: pl.DataFrame,
    headline: Mapping[str, str],
    facts: Mapping[str, Any],
    failed: Mapping[str, str],
) -> Path:
    """Write ``OUT/index.html``; returns its path.

    Args:
        out: folder of the fusion.
        table: a row a target, with the columns of ``OUT/targets.csv``.
        headline: means over the targets, by title.
        facts: what was asked for, by title.
        failed: targets that could not be segmented, and why.

    Raises:
        StorageError: ``E_STORAGE`` if the file system refuses.
    """
    page = environment().get_template("fusion.html.jinja").render(
        name=out.resolve().name,
        headline=list(headline.items()),
        sheet=laid_out(table.sort("fused"), _COLUMNS, "Mean Dice of each target, lowest first"),
        plot=dice_plot(table) if len(table) else "",
        facts=[(title, str(value)) for title, value in facts.items()],
        failed=list(failed.items()),
    )  # fmt: skip
    return write_file(out / "index.html", page.encode())


def dice_plot(table: pl.DataFrame) -> str:
    """Targets by the Dice of the fusion, each with that of single atlases."""
    ordered = table.sort("fused")
    places = np.arange(len(ordered))
    likest, best, fused = (
        ordered[name].to_numpy() for name in ("likest_dice", "best_dice", "fused")
    )
    with figure_style():
        figure = Figure(figsize=(8.4, 2.8), layout="constrained")
        axes = figure.add_subplot()
        many: dict[str, Any] = {"rasterized": len(places) > MOST_DRAWN}
        axes.vlines(places, likest, fused, color=BEFORE, linewidth=0.6, alpha=0.6, **many)
        axes.plot(
            places, likest, "o", color=BEFORE, markersize=4, label="likest atlas alone", **many
        )
        axes.plot(
            places, best, "_", color=BEFORE, markersize=8, label="best atlas, in hindsight", **many
        )
        axes.plot(places, fused, "o", color=AFTER, markersize=4.5, label="fused", **many)
        axes.set(xlabel="targets, in this order", ylabel="Dice", xticks=[])
        figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=8.5)
        return svg(figure)
