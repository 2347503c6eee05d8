"""The whole run at a glance: all pairs as a matrix, subjects that stand apart."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from cohort.report.figures import figure_style, name_matrix_axes, svg
from cohort.report.tables import done, main_measure

_LEAST_KNOWN = 0.25  # of all ordered pairs, for a matrix to be worth its ink
_MOST_NAMED = 48  # subjects whose names fit beside a matrix
_MOST_IN_MATRIX = 1000
_APART = 3.5  # robust standard deviations
_MAD_TO_SD = 1.4826

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

    A subject's mean of a measure over its pairs is compared with the median over subjects, in
    robust standard deviations; more than 3.5 to the bad side stands apart. Columns: subject, role,
    measure, value, typical, distance.
    """
    good, found = done(rows), []
    for column, title, bad in _JUDGED:
        for role in ("fixed", "moving"):
            means = (
                good.filter(pl.col(column).is_finite()).group_by(role).agg(pl.col(column).mean())
            )
            values = means[column].to_numpy()
            if len(values) < 4:
                continue
            typical = float(np.median(values))
            spread = _MAD_TO_SD * float(np.median(np.abs(values - typical)))
            if spread <= 1e-9:
                continue
            for subject, value in zip(means[role], values, strict=True):
                distance = bad * (value - typical) / spread
                if distance > _APART:
                    found.append((subject, role, title, float(value), typical, float(distance)))
    schema: dict[str, Any] = dict.fromkeys(("subject", "role", "measure"), pl.String)
    schema |= dict.fromkeys(("value", "typical", "distance"), pl.Float64)
    table = pl.DataFrame(found, schema=schema, orient="row")
    return table.sort("distance", "subject", "role", descending=[True, False, False])


def _order(matrix: np.ndarray) -> Any:
    """Subjects by cluster; what is not known counts as the mean."""
    filled = np.where(np.isnan(matrix), np.nanmean(matrix), matrix)
    apart = filled.max() - (filled + filled.T) / 2
    np.fill_diagonal(apart, 0)
    return leaves_list(linkage(squareform(apart, checks=False), "average", optimal_ordering=True))
