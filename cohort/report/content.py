"""What a report says of a run: facts, headline numbers and distributions, as texts and plots."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from cohort.data.geometry import Grid
from cohort.engine.spec import RunSpec
from cohort.engine.summary import Summary
from cohort.report import tables
from cohort.report.figures import histogram

ABSENT = "\u2013"  # an en dash


@dataclass(frozen=True)
class Plot:
    """A picture with the sentence that stands for it."""

    uri: str
    alt: str


@dataclass(frozen=True)
class Measure:
    """A result column: its name for people, its column before, its decimals and its scale."""

    column: str
    title: str
    before: str | None = None
    digits: int = 3
    scale: float = 1.0
    unit: str = ""
    lower: float | None = None

    def text(self, row: dict[str, Any]) -> str:
        """``0.655 → 0.903``, or the one value with its unit."""
        after = number(_scaled(row.get(self.column), self.scale), self.digits)
        if after == ABSENT:
            return after
        unit = f" {self.unit}" if self.unit else ""
        if self.before is None:
            return after + unit
        return f"{number(_scaled(row.get(self.before), self.scale), self.digits)} → {after}{unit}"


MEASURES = (
    Measure("dice_mean", "Dice", "dice_before"),
    Measure("epe_mm", "Endpoint error", "epe_before_mm", digits=2, unit="mm", lower=0.0),
    Measure("tre_mm", "Keypoint error", "tre_before_mm", digits=2, unit="mm", lower=0.0),
    Measure("hd95_mm_mean", "HD95", digits=2, unit="mm", lower=0.0),
    Measure("surface_dice_mean", "Surface Dice"),
    Measure("ncc", "NCC", "ncc_before"),
    Measure("ice_mm", "There and back", digits=2, unit="mm", lower=0.0),
    Measure("sdlogj", "sdlogj", lower=0.0),
    Measure("folding", "Folding", digits=3, scale=100.0, unit="%", lower=0.0),
    Measure("elapsed_s", "Time per pair", digits=2, unit="s", lower=0.0),
)
COLUMNS = tuple(
    column for measure in MEASURES for column in (measure.column, measure.before) if column
)


def number(value: float | None, digits: int) -> str:
    """A number for people; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{value:,.{digits}f}"


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale


def run_facts(
    spec: RunSpec, rows: pl.DataFrame, summary: Summary, quarantined: int
) -> list[tuple[str, str]]:
    """Label and value of each fact of the run; `quarantined` counts refused subjects."""
    grid = Grid.from_json(spec.grid)
    finished = rows["finished_at"].drop_nulls()
    seed = f", seed {spec.seed}" if spec.pairs.startswith("random:") else ""
    refused = f", {quarantined:,} more in quarantine" if quarantined else ""
    failed = f", {summary.failed:,} failed" if summary.failed else ", none failed"
    return [
        ("Store", spec.store),
        ("Grid", f"{'x'.join(map(str, grid.shape))} voxels of {_spacing(grid)} mm"),
        ("Subjects", f"{len(spec.subject_ids):,}{refused}"),
        (
            "Pairs planned",
            f"{spec.n_pairs:,} ({spec.pairs}{seed}) in {_counted(spec.n_tiles, 'tile')}",
        ),
        ("Pairs done", f"{summary.ok:,}{failed}"),
        ("Planned", moment(spec.created_at)),
        ("Finished", moment(str(finished.max())) if len(finished) else ABSENT),
        ("Workers", f"{rows['worker'].n_unique():,}" if len(rows) else ABSENT),
        ("Working time", f"{duration(summary.busy_s)} of all workers together"),
        ("Method", spec.method.name),
        ("Settings", _settings(spec)),
        ("Fingerprint", spec.fingerprint),
        ("Store digest", spec.store_digest),
        ("Versions", ", ".join(f"{name} {version}" for name, version in spec.versions.items())),
    ]


def _spacing(grid: Grid) -> str:
    return " x ".join(f"{mm:g}" for mm in grid.spacing_mm)


def _settings(spec: RunSpec) -> str:
    settings = spec.method.settings.model_dump(mode="json", exclude_none=True)
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())


def moment(time: str) -> str:
    """An ISO 8601 time as ``2026-08-01 14:03 UTC``; anything else as it is."""
    try:
        return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return time


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 10 s``, ``5 h 2 min``."""
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if minutes == 0:
        return f"{seconds:.1f} s"
    if hours == 0:
        return f"{minutes} min {int(seconds % 60)} s"
    return f"{hours:,} h {minutes % 60} min"


def headline(summary: Summary, pairs_per_hour: float | None) -> list[tuple[str, str]]:
    """The few numbers that people quote: means over the registered pairs."""
    means = vars(summary)
    return [*numbers_of(means), ("Pairs per hour", number(pairs_per_hour, 0))]


def distributions(rows: pl.DataFrame) -> list[Plot]:
    """A histogram of every measure that the registered pairs have."""
    plots = []
    for measure in MEASURES:
        after = _values(rows, measure.column, measure.scale)
        before = _values(rows, measure.before, measure.scale) if measure.before else None
        before = before if before is not None and len(before) else None
        if len(after):
            label = measure.title + (f" ({measure.unit})" if measure.unit else "")
            uri = histogram(after, before, label=label, lower=measure.lower)
            plots.append(Plot(uri, _in_words(measure, after, before)))
    return plots


def _values(rows: pl.DataFrame, column: str, scale: float) -> np.ndarray:
    values = tables.done(rows.select("status", column))[column].drop_nulls()
    return (values.filter(values.is_finite()) * scale).to_numpy()


def _in_words(measure: Measure, after: np.ndarray, before: np.ndarray | None) -> str:
    mean, low, high = (
        number(float(value), measure.digits) for value in (after.mean(), after.min(), after.max())
    )
    was = "" if before is None else f", mean before {number(float(before.mean()), measure.digits)}"
    unit = f" in {measure.unit}" if measure.unit else ""
    return (
        f"Histogram of {measure.title}{unit} over {_counted(len(after), 'pair')}: "
        f"mean {mean}, from {low} to {high}{was}."
    )


def lowest_structures(scores: Mapping[int, float], names: dict[int, str], n: int = 3) -> str:
    """The structures of a pair that overlap least: ``left putamen 0.71, ...``."""
    lowest = sorted((value, label) for label, value in scores.items())[:n]
    return ", ".join(
        f"{names.get(label, f'structure {label}')} {number(value, 2)}" for value, label in lowest
    )


def numbers_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Title and text of every measure that a pair has."""
    entries = [(measure.title, measure.text(row)) for measure in MEASURES]
    return [(title, text) for title, text in entries if text != ABSENT]


def title_of(column: str) -> str:
    """What people call a result column."""
    return next(measure.title for measure in MEASURES if measure.column == column)
