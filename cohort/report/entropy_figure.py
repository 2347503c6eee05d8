"""Maps and distributions of the entropy of features, as one picture."""

import io
import textwrap

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cohort.engine.discrimination import Comparison
from cohort.report.figures import PLANES, figure_style

_TITLE, _LABEL = 24, 48  # characters of a line


def entropy_figure(comparison: Comparison) -> bytes:
    """PNG: the first subject, its entropy for each extractor, and all subjects' distributions."""
    names = comparison.ranking["extractor"].to_list()
    with figure_style():
        figure = Figure(figsize=(2.2 * (len(names) + 1), 8.6), layout="constrained")
        parts = figure.add_gridspec(2, 1, height_ratios=(3, 1.15))
        above, below = figure.add_subfigure(parts[0]), figure.add_subfigure(parts[1])
        panels = above.subplots(3, len(names) + 1, squeeze=False)
        assert comparison.volume is not None
        _column(panels[:, 0], comparison.volume, "scan", "gray", None)
        for column, name in enumerate(names, start=1):
            image = _column(panels[:, column], comparison.maps[name], name, "viridis", (0, 1))
        above.colorbar(image, ax=panels, shrink=0.6, label="entropy / ln 27")
        _distributions(below.subplots(), comparison, names)
        content = io.BytesIO()
        FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()


def _column(panels, volume, title, colours, limits):
    """The three middle slices of a volume, one below the other."""
    low, high = limits or np.percentile(volume, (1, 99))
    for panel, (axis, _) in zip(panels, PLANES, strict=True):
        middle = np.take(volume, volume.shape[axis] // 2, axis=axis)
        image = panel.imshow(middle.T, cmap=colours, vmin=low, vmax=high, origin="lower")
        panel.set_axis_off()
    panels[0].set_title(textwrap.fill(title, _TITLE))  # a path would push the panels away
    return image


def _distributions(axes, comparison, names):
    table = comparison.histograms
    means = dict(comparison.ranking.select("extractor", "mean").iter_rows())
    for name in names:
        bins = table.filter(extractor=name)
        centres = (bins["from"] + bins["to"]) / 2
        axes.plot(
            centres, bins["share"], label=textwrap.fill(f"{name}: mean {means[name]:.3f}", _LABEL)
        )
    axes.set(xlabel="entropy / ln 27 inside the labels or mask", ylabel="share of voxels")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
