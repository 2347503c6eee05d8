"""The whole run at a glance: all pairs as a matrix."""

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


def pair_matrix(rows: pl.DataFrame) -> tuple[np.ndarray, list[str]] | None:
    """The main measure of every ordered pair ``[N, N]``, fixed by row, and the subjects' order.

    Subjects that fit each other lie together: average linkage on how much worse two subjects fit
    than the best do. None if too few of the pairs were registered, or there are too many subjects.
    """
    measure = main_measure(rows)
    pairs = rows.select("status", "fixed", "moving", measure)
    good = done(pairs).filter(pl.col(measure).is_finite())
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


def _order(matrix: np.ndarray) -> Any:
    """Subjects by cluster; what is not known counts as the mean."""
    filled = np.where(np.isnan(matrix), np.nanmean(matrix), matrix)
    apart = filled.max() - (filled + filled.T) / 2
    np.fill_diagonal(apart, 0)
    return leaves_list(linkage(squareform(apart, checks=False), "average", optimal_ordering=True))
