"""What a run's work went into: pairs per hour as time went by, and seconds by kind of work."""

from datetime import datetime
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cohort.engine.events import read_events, seconds_a_pair
from cohort.report.figures import AFTER, figure_style, svg

_BINS = 60


def throughput_plot(run_dir: Path) -> str:
    """Pairs per hour over the time in which the run was worked on; empty before two tiles."""
    hours, pairs = _worked_hours(run_dir)
    if len(pairs) < 2 or hours[-1] <= 0:
        return ""
    edges = np.linspace(0, hours[-1], min(_BINS, len(pairs)) + 1)
    counts, _ = np.histogram(hours, edges, weights=pairs)
    with figure_style():
        figure = Figure(figsize=(8.4, 2.2), layout="constrained")
        axes = figure.add_subplot()
        unit, name = (1.0, "h") if hours[-1] > 1 else (60.0, "min")
        axes.stairs(counts / np.diff(edges), edges * unit, color=AFTER, fill=True, alpha=0.7)
        axes.set(xlabel=f"time worked ({name})", ylabel="pairs per hour", ylim=(0, None))
        return svg(figure)


def _worked_hours(run_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """When tiles were done, in hours of work, and their pairs; breaks between runs do not count."""
    hours, pairs, worked, since = [], [], 0.0, None
    for event in read_events(run_dir):
        time = datetime.fromisoformat(event["time"])
        if event["event"] == "run_started":
            since = time
        elif event["event"] == "tile_done" and since is not None:
            worked += (time - since).total_seconds() / 3600
            since = time
            hours.append(worked)
            pairs.append(event["pairs"])
    return np.array(hours), np.array(pairs)


def spent_plot(run_dir: Path) -> str:
    """Seconds of a worker a pair by kind of work, waiting last; empty before the first tile."""
    spent = {kind: value for kind, value in seconds_a_pair(run_dir).items() if value > 0}
    if not spent:
        return ""
    kinds = sorted(spent, key=lambda kind: (kind == "waiting", -spent[kind]))
    with figure_style():
        figure = Figure(figsize=(8.4, 0.5 + 0.28 * len(kinds)), layout="constrained")
        axes = figure.add_subplot()
        values = [1000 * spent[kind] for kind in kinds]
        bars = axes.barh(kinds, values, color=AFTER, alpha=0.7)
        share = (f"{value:,.1f} ms, {value / sum(values):.1%}" for value in values)
        axes.bar_label(bars, list(share), padding=3, fontsize=7)
        axes.invert_yaxis()
        axes.set(xlabel="milliseconds of a worker a pair", xlim=(0, 1.25 * max(values)))
        return svg(figure)
