"""The pictures of a template's page: planes of volumes, and how its passes went."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cohort.report.figures import (
    AFTER,
    BEFORE,
    MOST_DRAWN,
    PLANES,
    figure_style,
    outlines,
    png,
    svg,
    window,
)

_WIDTH = 8.4  # inches
_CURVES = (
    ("moved_mm", "template moved by, mm"),
    ("sharpness", "sharpness, per mm²"),
    ("ncc", "NCC with the template"),
)


def template_planes(
    volumes: Mapping[str, np.ndarray],
    spacing_mm: tuple[float, float, float],
    labels: np.ndarray | None = None,
) -> str:
    """Three planes through the middle of each volume, a row each; the last with outlines of labels.

    All are shown in one window, that of the last. Patient left is on the left, front and top up.
    """
    sizes_mm = np.array(next(iter(volumes.values())).shape) * spacing_mm
    widths = [sizes_mm[1 if axis == 0 else 0] for axis, _ in PLANES]
    tallest = max(sizes_mm[1 if axis == 2 else 2] for axis, _ in PLANES)
    low, high = window(list(volumes.values())[-1])
    rows = len(volumes)
    with figure_style():
        height = rows * (_WIDTH * tallest / sum(widths) + 0.28)
        figure = Figure(figsize=(_WIDTH, height), facecolor="black", layout="constrained")
        panels = figure.subplots(rows, 3, squeeze=False, width_ratios=widths)
        for row, (name, volume) in zip(panels, volumes.items(), strict=True):
            center = tuple(size // 2 for size in volume.shape)
            rims_of = labels if volume is list(volumes.values())[-1] else None
            for axes, (axis, _) in zip(row, PLANES, strict=True):
                box = (0, sizes_mm[1 if axis == 0 else 0], 0, sizes_mm[1 if axis == 2 else 2])
                plane = np.take(volume, center[axis], axis).T
                axes.imshow(plane, "gray", vmin=low, vmax=high, origin="lower", extent=box)
                rims = outlines(rims_of, axis, center)
                if rims is not None:
                    axes.imshow(rims, origin="lower", extent=box, interpolation="antialiased")
                axes.set_axis_off()
            row[0].set_title(name, color="white", fontsize=9, loc="left", pad=4)
        return png(figure)


def pass_curves(passes: Sequence[Mapping[str, Any]]) -> str:
    """How movement, sharpness and likeness went, pass by pass."""
    numbers = [one["pass"] for one in passes]
    with figure_style():
        figure = Figure(figsize=(_WIDTH, 2.3), layout="constrained")
        for axes, (name, title) in zip(figure.subplots(1, 3), _CURVES, strict=True):
            values = [one[name] for one in passes]
            axes.plot(numbers, values, "o-", color=AFTER, markersize=4, linewidth=1.3)
            axes.set(title=title, xlabel="pass")
            axes.title.set_size(9)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.ticklabel_format(axis="y", useOffset=False)
            if min(values) < 0.5 * max(values):
                axes.set_ylim(bottom=0)
        return svg(figure)


def fit_plot(misfits: Sequence[float], likeness: Sequence[float], most: float) -> str:
    """Every subject's correlation with the template, those who fit badly marked."""
    order = np.argsort(likeness)
    values, far = np.asarray(likeness)[order], np.asarray(misfits)[order] > most
    places = np.arange(len(values))
    with figure_style():
        figure = Figure(figsize=(_WIDTH, 2.2), layout="constrained")
        axes = figure.add_subplot()
        many: dict[str, Any] = {"rasterized": len(values) > MOST_DRAWN}
        own: dict[str, Any] = {"color": AFTER, "markersize": 4, "label": "subjects"} | many
        axes.plot(places[~far], values[~far], "o", **own)
        if far.any():
            name = f"more than {most:g} robust SD below the middle"
            axes.plot(
                places[far], values[far], "D", color="#b3261e", markersize=5, label=name, **many
            )
        axes.axhline(float(np.median(values)), color=BEFORE, linewidth=1, linestyle=(0, (3, 2)))
        axes.set(xlabel="subjects, in this order", ylabel="NCC", xticks=[])
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8.5)
        return svg(figure)
