"""A protocol's table: what was measured, as the paper measures, beside what it printed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from cohort.config.protocol import Figure, Measures, Protocol, Published
from cohort.engine.results import read_table
from cohort.engine.summary import read_summary
from cohort.studies.protocol import Registered

FIGURES = ("dice", "hd95", "sdlogj", "folding", "seconds")
OURS = "measured here"
_BEFORE = "before registration"
_COLUMNS = {
    "case": pl.String,
    "method": pl.String,
    "pairs": pl.Int64,
    "failed": pl.Int64,
    **{f"{one}{end}": pl.Float64 for one in FIGURES for end in ("", "_sd")},
    "source": pl.String,
}
_HD95 = {"mm": ("hd95_mm", "HD95, mm"), "voxels": ("hd95_vox", "HD95, voxels")}
_SDLOGJ = {"learn2reg": "sdlogj_l2r", "plain": "sdlogj"}


def protocol_rows(protocol: Protocol, registered: Sequence[Registered]) -> pl.DataFrame:
    """Our rows of each case, then its published ones.

    Columns: ``case``, ``method``, ``pairs``, ``failed``, mean and sd over pairs of ``dice``,
    ``hd95`` (in the protocol's unit), ``sdlogj``, ``folding`` (percent) and ``seconds``, and
    ``source``.
    """
    table: list[dict[str, Any]] = []
    for case in protocol.cases:
        ours = [one for one in registered if one.case.name == case.name]
        for place, one in enumerate(ours):
            pairs = [pair for folder in one.run_dirs for pair in read_table(folder).to_pylist()]
            good = [pair for pair in pairs if pair["status"] == "ok"]
            about = {"case": case.name, "source": OURS, "pairs": len(pairs)}
            about["failed"] = len(pairs) - len(good)
            if not place:
                scores = _dice(good, "dice_structures_before", protocol)
                table.append({**about, "method": _BEFORE, **_told("dice", scores)})
            table.append({**about, "method": one.setting.title, **_measured(good, protocol)})
        printed = [one for one in protocol.published if one.case in (None, case.name)]
        table += [_published(case.name, one) for one in printed]
    return pl.DataFrame(table, _COLUMNS)


def table_text(protocol: Protocol, rows: pl.DataFrame) -> tuple[list[str], list[list[Any]]]:
    """Titles and rows for people: ``mean ± sd``, and nothing where nothing is known."""
    shown = {
        "dice": ("Dice", 4),
        "hd95": (_HD95[protocol.measures.hd95][1], 3),
        "sdlogj": ("sd ln det J", 3),
        "folding": ("Folding, %", 4),
        "seconds": ("Seconds", 3),
    }
    titles = ["Case", "Method", "Pairs", *(title for title, _ in shown.values()), "Source"]
    text = []
    for row in rows.iter_rows(named=True):
        pairs = "" if row["pairs"] is None else str(row["pairs"] - row["failed"])
        if row["failed"]:
            pairs += f" of {row['pairs']}"
        ours = row["source"] == OURS
        figures = [
            _cell(row[one], row[f"{one}_sd"], f".{digits}f" if ours else "g")
            for one, (_, digits) in shown.items()
        ]
        text.append([row["case"], row["method"], pairs, *figures, row["source"]])
    return titles, text


def notes(protocol: Protocol, weights_given: bool) -> list[str]:
    """What the figures are, in sentences."""
    measures = protocol.measures
    absent = "is left out" if measures.absent == "skip" else "counts as 0"
    which = f"the {len(protocol.structures)} structures" if protocol.structures else "all labels"
    said = [
        f"{protocol.paper}.",
        f"Mean ± standard deviation over pairs. Dice is the mean over {which}; one that either scan"
        f" lacks {absent}. Folding is the share of voxels with det J <= 0, without a border of two"
        " voxels; papers differ in what they divide by.",
        "Seconds are those of registering a pair, on this machine for our rows and on the authors'"
        " for theirs.",
    ]
    if measures.sdlogj == "learn2reg":
        said.append("sd ln det J is that of ln(det J + 3), as Learn2Reg has it.")
    able = weights_given or protocol.training is not None
    said += [
        f"Left out, as it takes weights and none were given: {one.title}."
        for one in protocol.settings
        if one.trained and not able
    ]
    return said


def failures(registered: Sequence[Registered]) -> list[str]:
    """Which runs have pairs that failed, and why, in sentences."""
    said = []
    for one in registered:
        for folder in one.run_dirs:
            summary = read_summary(folder)
            reasons = "; ".join(f"{code}: {text}" for code, text in summary.reasons.items())
            if reasons:
                title = f"{one.case.name}, {one.setting.title}"
                said.append(f"{summary.failed} of {summary.pairs} pairs of {title} failed, as"
                            f" {folder} tells: {reasons}")  # fmt: skip
    return said


def _measured(good: list[dict[str, Any]], protocol: Protocol) -> dict[str, Any]:
    measures: Measures = protocol.measures
    distances = _over_structures(good, _HD95[measures.hd95][0], protocol, None)
    return {
        **_told("dice", _dice(good, "dice", protocol)),
        **_told("hd95", distances),
        **_told("sdlogj", [pair[_SDLOGJ[measures.sdlogj]] for pair in good]),
        **_told("folding", [100 * pair["folding"] for pair in good]),
        **_told("seconds", [pair["register_s"] for pair in good]),
    }


def _dice(good: list[dict[str, Any]], column: str, protocol: Protocol) -> list[float]:
    absent = 0.0 if protocol.measures.absent == "zero" else None
    return _over_structures(good, column, protocol, absent)


def _over_structures(
    good: list[dict[str, Any]], column: str, protocol: Protocol, absent: float | None
) -> list[float]:
    """The mean of a measure over the protocol's structures, one a pair."""
    scores = [dict(pair[column] or ()) for pair in good]
    return [_mean([one.get(key) for key in protocol.structures or one], absent) for one in scores]


def _mean(values: list[float | None], absent: float | None) -> float:
    known = [absent if value is None else value for value in values]
    kept = [value for value in known if value is not None]
    return float(np.mean(kept)) if kept else float("nan")


def _told(name: str, values: Sequence[float | None]) -> dict[str, float | None]:
    known = np.array([value for value in values if value is not None], np.float64)
    known = known[np.isfinite(known)]
    mean = float(known.mean()) if len(known) else None
    return {name: mean, f"{name}_sd": float(known.std(ddof=1)) if len(known) > 1 else None}


def _published(case: str, row: Published) -> dict[str, Any]:
    told: dict[str, Any] = {"case": case, "method": row.method, "source": row.source}
    for name in FIGURES:
        value: Figure = getattr(row, name)
        told[name], told[f"{name}_sd"] = value if isinstance(value, tuple) else (value, None)
    return told


def _cell(mean: float | None, sd: float | None, form: str) -> str:
    """Published figures, in the form ``g``, are not rounded."""
    if mean is None:
        return ""
    return f"{mean:{form}}" + ("" if sd is None else f" ± {sd:{form}}")
