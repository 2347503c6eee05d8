"""A picture of ``make peers``: overlap against time, and against smoothness.

    python -m benchmarks.peers_plot results.csv picture.png

``peers.py`` draws it when all tools have run. A line joins the settings of one family of ours, so
that a tool can be compared at its own smoothness.
"""

import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.markdown_tables import Row, rows_of
from benchmarks.peers_ours import AS_SMOOTH, AS_THEY_COME, OURS
from cohort.report.figures import figure_style

COLOURS = dict(zip(AS_THEY_COME, ("#1f6fb4", "#2a9d5c", "#d1495b"), strict=True))
THEIRS = "#777777"


def draw(results: Path, picture: Path) -> None:
    # published settings fold so much that they would squeeze all others
    rows = [row for row in rows_of(results) if "published" not in row["tool"]]
    with figure_style():
        figure = Figure(figsize=(9.6, 4.0), layout="constrained")
        against_time, against_smoothness = figure.subplots(1, 2, sharey=True)
        _panel(against_time, rows, "register_cpu_s", joined=False)
        against_time.set(xscale="log", xlabel="seconds of one core a pair", ylabel="mean Dice")
        _panel(against_smoothness, rows, "sdlogj", joined=True)
        against_smoothness.set(xlabel="sd ln det J (smaller is smoother)")
        figure.savefig(picture, dpi=130)


def _panel(axes: Axes, rows: list[Row], across: str, *, joined: bool) -> None:
    """The tools as points with their names; ``joined`` also our settings by family, as lines."""
    for family, colour in COLOURS.items():
        own = [row for row in rows if row["tool"] in OURS and row["tool"].split(",")[0] == family]
        if joined and family in AS_SMOOTH.values():
            line = sorted((float(row[across]), float(row["dice_mean"])) for row in own)
            across_line, dice = zip(*line, strict=True)
            axes.plot(across_line, dice, ".-", color=colour, linewidth=1, markersize=4)
        for row in own:
            if row["tool"] == family:
                _point(axes, row, across, colour)
    for row in rows:
        if row["tool"] not in OURS:
            _point(axes, row, across, THEIRS)
    axes.margins(x=0.2, y=0.12)
    axes.grid(color="#e2e2e2", linewidth=0.8)


def _point(axes: Axes, row: Row, across: str, colour: str) -> None:
    """A tool's point with its name, ours above and theirs beside, where fewer names meet."""
    at = float(row[across]), float(row["dice_mean"])
    axes.plot(at[0], at[1], "o", color=colour, markersize=7)
    beside = colour == THEIRS
    away, towards = ((7, -3), "left") if beside else ((0, 7), "center")
    axes.annotate(row["tool"], at, away, textcoords="offset points", ha=towards, color=colour)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
