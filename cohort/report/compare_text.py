"""A comparison of runs as the tables and sentences of a paper."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from cohort.report.compare import RunComparison
from cohort.report.publish import markdown
from cohort.report.statistics.design import Unit
from cohort.report.statistics.paired import RANDOM_FLIPS


@dataclass(frozen=True)
class _Shown:
    """A measure in the table of runs: its title, which way is better, and its decimals."""

    title: str
    more_is_better: bool
    digits: int = 3
    scale: float = 1.0


_SHOWN = {
    "dice_mean": _Shown("Dice", True),
    "hd95_mm_mean": _Shown("HD95, mm", False),
    "surface_dice_mean": _Shown("Surface Dice", True),
    "tre_mm": _Shown("Keypoint error, mm", False),
    "epe_mm": _Shown("Endpoint error, mm", False),
    "ncc": _Shown("NCC", True),
    "sdlogj": _Shown("sdlogj", False),
    "folding": _Shown("Folding, %", False, digits=4, scale=100.0),
    "ice_mm": _Shown("Inverse consistency, mm", False),
}


# measures of structures in which less is better
_DISTANCES = {"hd95_mm", "hd95_vox", "hd_mm", "assd_mm"}
# what people call measures of structures
_OF_STRUCTURES = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "volume_similarity": "Volume similarity",
    "soft_dice": "Soft Dice",
    "soft_jaccard": "Soft Jaccard",
    "soft_volume_similarity": "Soft volume similarity",
    "surface_dice": "Surface Dice",
    "hd95_mm": "HD95 in mm",
    "hd95_vox": "HD95 in voxels",
    "hd_mm": "Hausdorff distance in mm",
    "assd_mm": "Mean surface distance in mm",
}


def comparison_markdown(comparison: RunComparison) -> str:
    """The whole comparison: the table of runs, that of each structure measure, and the notes."""
    parts = ["# Runs compared\n", markdown(*runs_table(comparison))]
    for measure in comparison.structures["measure"].unique(maintain_order=True):
        table = markdown(*structures_table(comparison, measure))
        parts += [f"## {structures_title(measure)}\n", table]
    parts += ["".join(f"- {sentence}\n" for sentence in notes(comparison))]
    return "\n".join(parts)


def runs_table(comparison: RunComparison) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the table with a row a run; the best mean of a column is bold."""
    shown = [name for name in _SHOWN if name in comparison.measures["measure"]]
    columns = [_cells(comparison.measures.filter(measure=name), _SHOWN[name]) for name in shown]
    settings = settings_that_differ(comparison)
    rows = [
        [
            run.name,
            settings[index],
            f"{len(run.pairs):,}",
            *(column[index] for column in columns),
            f"{run.seconds.mean():.3f}",
        ]
        for index, run in enumerate(comparison.runs)
    ]
    titles = [_SHOWN[name].title for name in shown]
    return ["Run", "Method", "Pairs", *titles, "Seconds a pair"], rows


def structures_title(measure: str) -> str:
    """``HD95 in mm by structure``."""
    return f"{_OF_STRUCTURES[measure]} by structure"


def structures_table(comparison: RunComparison, measure: str) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the table of one measure with a row a structure, a column a run."""
    table = comparison.structures.filter(measure=measure)
    shown = _Shown(measure, more_is_better=measure not in _DISTANCES)
    rows = [
        [str(group["name"][0]), f"{group['n'][0]:,}", *_cells(group, shown)]
        for group in table.partition_by("structure", maintain_order=True)
    ]
    return ["Structure", "Pairs", *(run.name for run in comparison.runs)], rows


def _cells(rows: pl.DataFrame, shown: _Shown) -> list[str]:
    """``0.618 ± 0.050 [0.601, 0.636]``, then ``; p = 0.003, d 0.81`` of all but the first run."""

    def number(value: float) -> str:
        return _rounded(value * shown.scale, shown.digits)

    means = [None if mean is None else float(number(mean)) for mean in rows["mean"]]
    told = [mean for mean in means if mean is not None]
    best = (max if shown.more_is_better else min)(told, default=None)
    cells = []
    for row, mean in zip(rows.iter_rows(named=True), means, strict=True):
        if mean is None:
            cells.append("")
            continue
        text = number(row["mean"])
        text = f"**{text}**" if mean == best and len(set(told)) > 1 else text
        text += f" ± {number(row['sd'])}" if row["sd"] is not None else ""
        if row["low"] is not None:
            text += f" [{number(row['low'])}, {number(row['high'])}]"
        text += f"; p {_p(row['p_holm'])}" if row["p_holm"] is not None else ""
        text += f", d {_rounded(row['effect_size'], 2)}" if row["effect_size"] is not None else ""
        cells.append(text)
    return cells


def _rounded(value: float, digits: int) -> str:
    """So many decimals, and no sign before a zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def settings_that_differ(comparison: RunComparison) -> list[str]:
    """For each run its method with those settings in which the runs differ."""
    methods = [run.spec.method for run in comparison.runs]
    settings: list[dict[str, Any]] = [one.settings.model_dump(mode="json") for one in methods]
    if all(own == settings[0] for own in settings):  # then what else sets their results apart
        settings = [{"fingerprint": run.spec.fingerprint[:8]} for run in comparison.runs]
    keys = dict.fromkeys(key for own in settings for key in own)
    differing = [
        key for key in keys if any(own.get(key) != settings[0].get(key) for own in settings)
    ]
    return [
        ", ".join([method.name, *(f"{key}={_told(own[key])}" for key in differing if key in own)])
        for method, own in zip(methods, settings, strict=True)
    ]


def _told(value: object) -> object:
    """A setting that nobody chose is what the method makes of it."""
    return "default" if value is None else value


def notes(comparison: RunComparison) -> list[str]:
    """What the numbers are: the pairs, the intervals, the test and its correction."""
    count, design = len(comparison.runs[0].pairs), comparison.design
    had = zip(comparison.runs, comparison.registered, strict=True)
    others = ", ".join(f"{run.name} {pairs:,}" for run, pairs in had if pairs != count)
    left_out = f" (registered: {others})" if others else ""
    first = comparison.runs[0].name
    return [
        f"All numbers are of the {count:,} pairs that every run registered{left_out}.",
        "Mean ± standard deviation over pairs [95 % interval of the mean]; the best mean is bold.",
        f"{design.sentence()}. The interval leaves out one unit at a time (delete-one jackknife, "
        "Student's t), because pairs that share a subject are not independent.",
        _test_sentence(comparison, first),
        "d is the mean of the units' scores over their standard deviation.",
    ]


def _test_sentence(comparison: RunComparison, first: str) -> str:
    tested = comparison.measures.filter(pl.col("p").is_not_null())
    correction = (
        "P values are Holm's, for each measure over all runs, and over all structures too where "
        "there are any"
    )
    if not len(tested):
        return "Nothing was tested: that takes three units and none that is in every pair."
    if comparison.design.unit is Unit.PAIR:
        return (
            f"p: difference from {first} by Wilcoxon's signed ranks of the pairs, because no "
            f"subject recurs. {correction}."
        )
    if comparison.design.unit is Unit.TWO_GROUPS:
        return (
            f"p: difference from {first} by Student's t with Welch's degrees of freedom, because "
            f"each of the two groups varies by itself. {correction}."
        )
    flips = max(tested["flips"])
    how = "random" if flips == RANDOM_FLIPS else "all"
    return (
        f"p: difference from {first} by flips of the signs of the subjects' scores ({how}, "
        f"{flips:,} patterns), because subjects recur and pairs cannot be exchanged one by one. "
        f"{correction}."
    )
