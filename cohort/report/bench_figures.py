"""Pictures of a throughput study, each written as PNG and SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cohort.report.figures import figure_style

_COLOURS = colormaps["tab10"]
_MARKERS = "osD^vPX*"
Cells = Sequence[Mapping[str, Any]]


def write_figures(folder: Path, cells: Cells, hourly_price: float | None) -> list[str]:
    """The pictures that these cells give; returns their names without ending."""
    good = [cell for cell in cells if cell["status"] == "ok"]
    made = {}
    if good and all("dice_mean" in cell for cell in good):
        made["throughput_accuracy"] = throughput_accuracy(good)
    if good:
        made["cost"] = cost(good, hourly_price)
    powered = [cell for cell in good if cell.get("joules_a_pair") is not None]
    if powered:
        made["energy"] = energy(powered)
    for name, figure in made.items():
        with figure_style():
            figure.savefig(folder / f"{name}.png", dpi=130)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    return list(made)


def throughput_accuracy(cells: Cells) -> Figure:
    """Pairs per hour against Dice, and against the endpoint error where the truth is known."""
    measures = [("dice_mean", "mean Dice")]
    if all("epe_mm" in cell for cell in cells):
        measures.append(("epe_mm", "endpoint error (mm)"))
    with figure_style():
        figure = Figure(figsize=(4.6 * len(measures), 3.9), layout="constrained")
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        variants, sizes = _names(cells, "variant"), _names(cells, "shape")
        for axes, (column, label) in zip(panels, measures, strict=True):
            for cell in cells:
                axes.plot(
                    cell["pairs_per_hour"],
                    cell[column],
                    _MARKERS[sizes.index(cell["shape"]) % len(_MARKERS)],
                    color=_COLOURS(variants.index(cell["variant"]) % 10),
                    markersize=7,
                )
            axes.set(xscale="log", xlabel="pairs per hour, features at hand", ylabel=label)
            axes.grid(color="#e2e2e2", linewidth=0.8)
        _legend(figure, panels[0], variants, sizes)
        return figure


def _legend(figure: Figure, axes: Axes, variants: Sequence[str], sizes: Sequence[str]) -> None:
    """Colours say the method, marks the voxels."""
    handles = [
        axes.plot([], [], "s", color=_COLOURS(number % 10), label=name)[0]
        for number, name in enumerate(variants)
    ]
    handles += [
        axes.plot([], [], _MARKERS[number % len(_MARKERS)], color="#777777", label=size)[0]
        for number, size in enumerate(sizes)
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, frameon=False, fontsize=8.5)


def cost(cells: Cells, hourly_price: float | None) -> Figure:
    """What 1,000 pairs take: money where the hour has a price, else hours."""
    price = 1.0 if hourly_price is None else hourly_price
    label = "hours for 1,000 pairs"
    if hourly_price is not None:
        label = f"cost of 1,000 pairs at {hourly_price:g} an hour"
    values = [(cell, price * 1000 / cell["pairs_per_hour"]) for cell in cells]
    return _dots(values, label)


def energy(cells: Cells) -> Figure:
    """What 1,000 pairs take of a card's power."""
    values = [(cell, cell["joules_a_pair"] * 1000 / 3.6e6) for cell in cells]
    return _dots(values, "kWh for 1,000 pairs")


def _dots(values: Sequence[tuple[Mapping[str, Any], float]], label: str) -> Figure:
    """A dot a cell, method by method."""
    variants = _names([cell for cell, _ in values], "variant")
    ordered = sorted(values, key=lambda one: variants.index(one[0]["variant"]))
    with figure_style():
        figure = Figure(figsize=(7.4, 0.9 + 0.27 * len(ordered)), layout="constrained")
        axes = figure.add_subplot()
        names = [_name(cell) for cell, _ in ordered]
        for place, (cell, value) in enumerate(ordered):
            colour = _COLOURS(variants.index(cell["variant"]) % 10)
            axes.plot(value, place, "o", color=colour, markersize=7)
            axes.annotate(
                f"{value:.3g}", (value, place), (8, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(range(len(ordered)), names)
        axes.invert_yaxis()
        axes.set(xscale="log", xlabel=label)
        axes.grid(axis="x", color="#e2e2e2", linewidth=0.8)
        axes.margins(x=0.15, y=0.08)
        return figure


def _name(cell: Mapping[str, Any]) -> str:
    batch = f", {cell['batch']} at once" if cell["batch"] > 1 else ""
    device = ", GPU" if cell["device"] == "cuda" else ""
    return f"{cell['variant']} {cell['shape']}{batch}{device}"


def _names(cells: Cells, column: str) -> list[str]:
    return list(dict.fromkeys(cell[column] for cell in cells))
