"""The whole run at a glance: all pairs as a matrix, subjects that stand apart."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from cohort.engine.standing import APART, Standing
from cohort.report.figures import figure_style, name_matrix_axes, svg
from cohort.report.tables import done, main_measure

_LEAST_KNOWN = 0.25  # of all ordered pairs, for a matrix to be worth its ink
_MOST_NAMED = 48  # subjects whose names fit beside a matrix
_MOST_IN_MATRIX = 1000
_LEAST_COMPARED = 4  # subjects

# what a subject may stand apart in: a column, how people call it, and which end is bad
_JUDGED = (
    ("dice_mean", "Dice", -1),
    ("ncc", "NCC", -1),
    ("hd95_mm_mean", "HD95 in mm", 1),
    ("tre_mm", "keypoint error in mm", 1),
    ("ice_mm", "inverse-consistency error in mm", 1),
    ("folding", "share of folding", 1),
    ("sdlogj", "sdlogj", 1),
    ("displacement_mean_mm", "displacement in mm", 1),
)


def pair_matrix(rows: pl.DataFrame) -> tuple[np.ndarray, list[str]] | None:
    """The main measure of every ordered pair ``[N, N]``, fixed by row, and the subjects' order.

    Subjects that fit each other lie together: average linkage on how much worse two subjects fit
    than the best do. None if too few of the pairs were registered, or there are too many subjects.
    """
    measure = main_measure(rows)
    good = done(rows).filter(pl.col(measure).is_finite())
    names = sorted({*good["fixed"], *good["moving"]})
    count = len(names)
    if not 3 <= count <= _MOST_IN_MATRIX or len(good) < _LEAST_KNOWN * count * (count - 1):
        return None
    index = {name: number for number, name in enumerate(names)}
    matrix = np.full((count, count), np.nan)
    for fixed, moving, value in good.select("fixed", "moving", measure).iter_rows():
        matrix[index[fixed], index[moving]] = value
    order = _order(matrix)
    return matrix[np.ix_(order, order)], [names[number] for number in order]


def matrix_plot(matrix: np.ndarray, names: list[str], title: str) -> str:
    """The matrix of :func:`pair_matrix` as a heat map; pairs that are not known are white."""
    count = len(names)
    with figure_style():
        side = float(np.clip(0.16 * count, 3.2, 7.6))
        figure = Figure(figsize=(side + 2.2, side + 1.2), layout="constrained")
        axes = figure.add_subplot()
        shown = axes.imshow(matrix, cmap="viridis", interpolation="nearest", aspect="equal")
        figure.colorbar(shown, ax=axes, label=title, shrink=0.7)
        axes.set(xlabel="moving", ylabel="fixed")
        name_matrix_axes(axes, names, _MOST_NAMED)
        return svg(figure)


def outliers(rows: pl.DataFrame) -> pl.DataFrame:
    """Subjects whose pairs stand apart from the others', the farthest first.

    A subject's median of a measure over its pairs, which one bad partner does not spoil, is
    compared with those of all subjects: see :class:`cohort.engine.standing.Standing`. Columns:
    subject, role, measure, value, typical, distance, and all that in words: reason.
    """
    good, found = done(rows), []
    for column, title, bad in _JUDGED:
        for role in ("fixed", "moving"):
            known = good.filter(pl.col(column).is_finite())
            medians = known.group_by(role, maintain_order=True).agg(pl.col(column).median())
            if len(medians) < _LEAST_COMPARED:
                continue
            standing = Standing.of(medians[column].to_numpy(), bad)
            if standing is None:
                continue
            for place in np.flatnonzero(standing.judged > APART):
                value, distance = standing.values[place], standing.distances[place]
                subject = medians[role][int(place)]
                found.append((subject, role, title, float(value), standing.typical, distance))
    schema: dict[str, Any] = dict.fromkeys(("subject", "role", "measure"), pl.String)
    schema |= dict.fromkeys(("value", "typical", "distance"), pl.Float64)
    table = pl.DataFrame(found, schema=schema, orient="row")
    reason = pl.format(
        "median {} as {}: {}, typical {}",
        *("measure", "role"),
        *(pl.col(name).round_sig_figs(3) for name in ("value", "typical")),
    )
    table = table.with_columns(reason.alias("reason"))
    return table.sort("distance", "subject", "role", descending=[True, False, False])


def _order(matrix: np.ndarray) -> Any:
    """Subjects by cluster; what is not known counts as the mean."""
    filled = np.where(np.isnan(matrix), np.nanmean(matrix), matrix)
    apart = filled.max() - (filled + filled.T) / 2
    np.fill_diagonal(apart, 0)
    return leaves_list(linkage(squareform(apart, checks=False), "average", optimal_ordering=True))
