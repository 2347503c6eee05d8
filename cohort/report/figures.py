"""The pictures of a report, each as a data URI: plots as SVG, slices of volumes as PNG."""

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cohort.engine.regenerate import PairImages

BEFORE = "#8a8a8a"
AFTER = "#1f5f9e"
MOST_STRUCTURES = 40
MOST_DRAWN = 2000  # points as shapes of their own; more are pixels, or a page is megabytes of them
_LONGEST_NAME = 40  # letters of a structure
_LONGEST_BESIDE_MATRIX = 24  # letters of a subject; more leave the matrix and its titles no room
PIXELS_PER_VOXEL = 3  # of the outlines
PLANES = ((2, "axial"), (1, "coronal"), (0, "sagittal"))

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": "#222222",
    "axes.labelcolor": "#222222",
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#222222",
    "ytick.color": "#222222",
    "svg.hashsalt": "cohort",  # equal figures are equal bytes
}


@contextmanager
def figure_style() -> Iterator[None]:
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # names of structures may be in any script; a box in their place is no reason to stop
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def histogram(
    after: np.ndarray,
    before: np.ndarray | None = None,
    *,
    label: str,
    lower: float | None = None,
) -> str:
    """How a measure is distributed over pairs; with `before` also as it was before registration.

    `label` names the measure and its unit; the axis starts at `lower` if the values come near it.
    """
    series = [(after, AFTER, "after")]
    if before is not None:
        series.insert(0, (before, BEFORE, "before"))
    with figure_style():
        figure = Figure(figsize=(4.0, 2.4))
        axes = figure.add_axes((0.12, 0.19, 0.83, 0.69))
        edges = _bin_edges(np.concatenate([values for values, _, _ in series]), lower)
        for values, color, name in series:
            mean = float(np.mean(values))
            text = f"{name if before is not None else 'all pairs'}: mean {mean:.3g}"
            axes.hist(values, bins=list(edges), color=color, alpha=0.7, label=text)
            axes.axvline(mean, color=color, linewidth=1.3, linestyle=(0, (3, 2)))
        axes.set(xlabel=label, ylabel="pairs", xlim=(edges[0], edges[-1]))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        figure.legend(loc="upper left", ncols=2, frameon=False, fontsize=8.5, borderaxespad=0)
        return svg(figure)


def _bin_edges(values: np.ndarray, lower: float | None) -> np.ndarray:
    start, stop = float(values.min()), float(values.max())
    if lower is not None and 0 <= start - lower < 2 * (stop - start):
        start = lower
    if stop - start < 1e-6 * max(1.0, abs(stop)):  # all equal: one bar
        width = max(abs(stop), 0.1)
        return np.linspace(start, start + width, 12) - (0 if start == lower else width / 2)
    bins = int(np.clip(1.5 * np.sqrt(len(values)), 10, 40))
    return np.linspace(start, stop, bins + 1)


def structure_plot(table: pl.DataFrame) -> str:
    """Dice of the structures with the lowest means, one line each; `table`: a `structure_table`."""
    shown = table.sort("mean").head(MOST_STRUCTURES).reverse()
    with figure_style():
        figure = Figure(figsize=(8.4, 0.9 + 0.25 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        y = np.arange(len(shown))
        spread = "after: median, middle half, 5 to 95 % of pairs"
        axes.hlines(y, shown["p05"], shown["p95"], color=AFTER, linewidth=1.2)
        axes.hlines(y, shown["p25"], shown["p75"], color=AFTER, linewidth=6, alpha=0.4)
        whole = {"markersize": 5, "clip_on": False}  # also those at 0 and at 1
        axes.plot(shown["median"], y, "o", color=AFTER, label=spread, **whole)
        axes.plot(
            *(shown["before"], y, "D"),
            label="before: mean",
            color="white",
            markeredgecolor="#555555",
            **whole,
        )
        axes.set_yticks(y, [_printable(name, _LONGEST_NAME) for name in shown["name"]])
        for tick in axes.get_yticklabels():
            tick.set_parse_math(False)
        axes.set(xlabel="Dice", xlim=(0, 1), ylim=(-0.7, len(shown) - 0.3))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e2e2e2", linewidth=0.8)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8.5)
        return svg(figure)


def _printable(name: str, most: int) -> str:
    """At most so many letters; both ends stay, as names differ at either."""
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    if len(name) <= most:
        return name
    head, tail = most // 2, (most - 1) // 2
    return f"{name[:head]}…{name[-tail:]}"


def name_matrix_axes(axes: Axes, names: Sequence[str], most: int) -> None:
    """Name rows and columns of a square matrix, unless they are more than ``most``."""
    if len(names) > most:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    shown = [_printable(name, _LONGEST_BESIDE_MATRIX) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=90, fontsize=6)
    axes.set_yticks(range(len(names)), shown, fontsize=6)
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set_parse_math(False)


def mosaic(images: PairImages) -> str:
    """Three planes through the fixed labels: fixed, moving, warped; the last two with outlines.

    The outlines are those of the fixed labels, so a good registration fills them. Patient left is
    on the left, front and top are up.
    """
    center = plane_center(images)
    columns = (("fixed", images.fixed), ("moving", images.moving), ("warped", images.warped))
    sizes_mm = np.array(images.fixed.shape) * images.spacing_mm
    heights = [sizes_mm[1 if axis == 2 else 2] for axis, _ in PLANES]
    widest = sizes_mm[:2].max()
    with figure_style():
        figure = Figure(figsize=(7.2, 7.2 / 3 * sum(heights) / widest + 0.3), facecolor="black")
        panels = figure.subplots(
            3, 3, gridspec_kw={"height_ratios": heights, "wspace": 0.02, "hspace": 0.02}
        )
        figure.subplots_adjust(0, 0, 1, 1 - 0.3 / figure.get_figheight())
        for row, (axis, _) in zip(panels, PLANES, strict=True):
            rims = outlines(images.fixed_labels, axis, center)
            for axes, (name, volume) in zip(row, columns, strict=True):
                box = (0, sizes_mm[1 if axis == 0 else 0], 0, sizes_mm[1 if axis == 2 else 2])
                low, high = window(images.fixed if name == "fixed" else images.moving)
                plane = np.take(volume, center[axis], axis).T
                axes.imshow(plane, "gray", vmin=low, vmax=high, origin="lower", extent=box)
                if rims is not None and name != "fixed":
                    axes.imshow(rims, origin="lower", extent=box, interpolation="antialiased")
                axes.set_axis_off()
        for axes, (name, _) in zip(panels[0], columns, strict=True):
            axes.set_title(name, color="white", fontsize=9, pad=4)
        return png(figure)


def plane_center(images: PairImages) -> tuple[int, ...]:
    """The voxel that planes go through: the middle of the fixed labels, or of the volume."""
    labels = images.fixed_labels
    if labels is None or not labels.any():
        return tuple(size // 2 for size in images.fixed.shape)
    return tuple(round(float(positions.mean())) for positions in np.nonzero(labels))


def window(volume: np.ndarray) -> tuple[float, float]:
    """The values that are shown as black and white."""
    low, high = np.percentile(volume, (1, 99.5))
    return float(low), float(max(high, low + 1e-6))


def outlines(labels: np.ndarray | None, axis: int, center: tuple[int, ...]) -> np.ndarray | None:
    """A transparent image, ``[rows, columns, 4]``, with a coloured rim inside every structure."""
    if labels is None:
        return None
    plane = np.take(labels, center[axis], axis).T.astype(np.int64)
    fine = np.kron(plane, np.ones((PIXELS_PER_VOXEL, PIXELS_PER_VOXEL), np.int64))
    framed = np.pad(fine, 1, mode="edge")
    around = (framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:])
    rim = np.any([fine != neighbour for neighbour in around], axis=0) & (fine > 0)
    # steps of the golden ratio keep the hues of neighbouring label values far apart
    hue = (fine * 0.618034) % 1
    colors = hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.75), np.ones_like(hue)], axis=-1))
    return np.concatenate([colors, rim[..., None]], axis=-1)


def svg(figure: Figure) -> str:
    """A figure as a data URI."""
    content = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(content, metadata={"Date": None})
    return _data_uri("image/svg+xml", content.getvalue())


def png(figure: Figure) -> str:
    """A figure on black as a data URI."""
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(content, format="png", dpi=120, facecolor="black")
    return _data_uri("image/png", content.getvalue())


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
