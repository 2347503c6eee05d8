"""The pictures of a population: its subjects in the plane, and all their distances."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from cohort.report.figures import figure_style, name_matrix_axes, svg

MOST_NAMED = 60  # subjects whose names fit into the plane
_MOST_BESIDE_MATRIX = 48
_MARGIN = 0.1  # of the width, for names at the edge
_WIDTH_TO_HEIGHT = 1.4
_LETTER, _LINE = 0.0078, 0.021  # of a name, as shares of the picture's width and height
_COLOURS = colormaps["tab10"]


class Marked(NamedTuple):
    """Subjects that have a ring around them in the plane, and their names always.

    Attributes:
        medoid: of the population.
        medoids: of clusters.
        apart: who stands apart.
    """

    medoid: str
    medoids: Sequence[str]
    apart: Sequence[str]


def plane_plot(
    subjects: Sequence[dict[str, Any]], marked: Marked, unit: str, *, all_named: bool = True
) -> str:
    """Subjects at their ``x`` and ``y``, coloured by ``cluster``, with their names.

    Where there are too many names, or not ``all_named``, only those that are marked have theirs.
    """
    with figure_style():
        figure = Figure(figsize=(8.4, 6.4), layout="constrained")
        axes = figure.add_subplot()
        axes.tick_params(labelsize=8)
        places = np.array([(one["x"], one["y"]) for one in subjects])
        for number in sorted({one["cluster"] for one in subjects}):
            own = np.array([one["cluster"] == number for one in subjects])
            label = f"cluster {number}: {own.sum()}"
            axes.plot(*places[own].T, "o", color=_colour(number), markersize=6, label=label)
        _ring(axes, subjects, marked)
        middle, reach = (places.min(0) + places.max(0)) / 2, np.ptp(places, axis=0)
        half = max(reach[0] / 2 * (1 + 2 * _MARGIN), reach[1] / 2 * 1.12 * _WIDTH_TO_HEIGHT, 1e-9)
        axes.set_xlim(middle[0] - half, middle[0] + half)
        axes.set_ylim(*(middle[1] + sign * half / _WIDTH_TO_HEIGHT for sign in (-1, 1)))
        axes.set_aspect("equal")
        axes.set(xlabel=f"first axis, {unit}", ylabel="second axis")
        always = {marked.medoid, *marked.medoids, *marked.apart}
        is_all = all_named and len(subjects) <= MOST_NAMED
        shown = [one for one in subjects if is_all or one["subject"] in always]
        figure.draw_without_rendering()  # now it is known where on the paper a point lies
        _name(axes, shown, places)
        figure.legend(loc="outside upper left", ncols=5, frameon=False, fontsize=8.5)
        return svg(figure)


def distance_plot(
    matrix: np.ndarray,
    names: Sequence[str],
    groups: Sequence[int],
    apart: Sequence[str],
    unit: str,
) -> str:
    """The distances ``[N, N]`` as a heat map: near subjects together, lines between groups.

    The colours range over the subjects that do not stand apart.
    """
    order, count = _order(matrix, groups), len(names)
    with figure_style():
        side = float(np.clip(0.16 * count, 3.2, 7.6))
        figure = Figure(figsize=(side + 2.2, side + 1.2))
        figure.set_layout_engine("constrained", w_pad=0.15)
        axes = figure.add_subplot()
        ordered = np.where(np.eye(count, dtype=bool), np.nan, matrix[np.ix_(order, order)])
        usual = [place for place, name in enumerate(names) if name not in apart]
        top = matrix[np.ix_(usual, usual)].max() if len(usual) > 1 else matrix.max()
        shown = axes.imshow(ordered, cmap="viridis", vmax=top, interpolation="nearest")
        beyond = "max" if matrix.max() > top else "neither"
        figure.colorbar(shown, ax=axes, label=unit, shrink=0.7, extend=beyond)
        ends = [at for at in range(1, count) if groups[order[at]] != groups[order[at - 1]]]
        for end in ends:
            axes.axhline(end - 0.5, color="white", linewidth=1.2)
            axes.axvline(end - 0.5, color="white", linewidth=1.2)
        name_matrix_axes(axes, [str(names[one]) for one in order], _MOST_BESIDE_MATRIX)
        return svg(figure)


def _order(matrix: np.ndarray, groups: Sequence[int]) -> list[int]:
    """By group, and near subjects together: groups are cuts of this tree."""
    tree = linkage(squareform(matrix, checks=False), "average", optimal_ordering=True)
    return sorted(leaves_list(tree).tolist(), key=lambda one: groups[one])


def _colour(cluster: int) -> Any:
    return _COLOURS((cluster - 1) % _COLOURS.N)


def _ring(axes: Any, subjects: Sequence[dict[str, Any]], marked: Marked) -> None:
    """Rings of three forms, the widest around the population's medoid, as one may need them all."""
    for chosen, marker, size, label in (
        ((marked.medoid,), "s", 13, "medoid of all"),
        (marked.medoids, "D", 9, "medoid of its cluster"),
        (marked.apart, "o", 11, "stands apart"),
    ):
        places = [(one["x"], one["y"]) for one in subjects if one["subject"] in chosen]
        if places:
            line = {"markerfacecolor": "none", "markeredgecolor": "#222222", "markersize": size}
            axes.plot(*np.array(places).T, marker, label=label, **line)


def _name(axes: Any, shown: Sequence[dict[str, Any]], places: np.ndarray) -> None:
    """Write each name beside its point, where it covers the least of what is there already."""
    share = axes.transData + axes.figure.transFigure.inverted()
    dots = share.transform(places)
    taken: list[np.ndarray] = [np.concatenate([dot - 0.006, dot + 0.006]) for dot in dots]
    for one in shown:
        x, y = share.transform((one["x"], one["y"]))
        size = np.array([_LETTER * len(one["subject"]), _LINE])
        boxes = [
            np.concatenate([corner, corner + size])
            for far in (1.0, 2.2, 3.6)
            for corner in _corners(x, y, size, far)
        ]
        best = min(boxes, key=lambda box: sum(_overlap(box, other) for other in taken))
        taken.append(best)
        middle = share.inverted().transform((best[:2] + best[2:]) / 2)
        axes.annotate(
            one["subject"],
            (one["x"], one["y"]),
            xytext=middle,
            ha="center",
            va="center",
            fontsize=6.5,
            color="#333333",
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.5},
            zorder=1,
        )


def _corners(x: float, y: float, size: np.ndarray, far: float) -> list[np.ndarray]:
    """Lower left corners of a box that lies ``far`` from a point, on all its sides."""
    gap, (width, height) = 0.012 * far, size
    beside = ((x + gap, y - height / 2), (x - gap - width, y - height / 2))
    above = ((x - width / 2, y + gap), (x - width / 2, y - gap - height))
    aslant = [
        (x + gap if right else x - gap - width, y + gap if up else y - gap - height)
        for right in (True, False)
        for up in (True, False)
    ]
    return [np.array(corner) for corner in (*beside, *aslant, *above)]


def _overlap(box: np.ndarray, other: np.ndarray) -> float:
    """Area that two boxes ``[left, bottom, right, top]`` share."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    return float(np.prod(np.maximum(sides, 0)))
