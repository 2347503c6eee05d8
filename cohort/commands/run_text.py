"""What commands say of a run, for people: rows of a name and a value."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

from cohort.engine.progress import RunProgress
from cohort.engine.summary import Summary

if TYPE_CHECKING:  # status need not wait for what registers
    from cohort.engine.run import RunReport

_NAMED = 5  # subjects


def run_rows(report: "RunReport", summary: Summary) -> dict[str, object]:
    """What registering did, now and in all."""
    rows: dict[str, object] = {}
    if report.pairs:
        rows["registered now"] = f"{report.pairs:,} pairs in {report.elapsed_s:.0f} s"
    else:
        rows["registered now"] = "nothing, all pairs were done"
    return {**rows, **_throughput(report.pairs_per_hour), **summary_rows(summary)}


def report_rows(summary: Summary, pairs_per_hour: float | None) -> dict[str, object]:
    """The headline numbers."""
    return {**summary_rows(summary), **_throughput(pairs_per_hour)}


def status_rows(progress: RunProgress) -> dict[str, object]:
    """How far a run is: each thing that is known."""
    rows: dict[str, object] = {"done": f"{progress.done:,} of {progress.planned:,} pairs"}
    rows |= _throughput(progress.pairs_per_hour)
    if progress.time_left_s:
        rows["time left"] = str(timedelta(seconds=round(progress.time_left_s)))
    if progress.seconds_a_pair:
        rows["seconds a pair"] = _split(progress.seconds_a_pair)
    if progress.slowest:
        slowest = (f"{name} {seconds:.2f} s" for name, seconds in progress.slowest.items())
        rows["slowest"] = ", ".join(slowest)
    rows["disk"] = f"{_size(progress.run_bytes)} taken, {_size(progress.free_bytes)} free"
    if not progress.done:
        return rows
    failed = {
        f"failed with {code}": f"{count:,}: {progress.summary.reasons[code]}"
        for code, count in progress.failures.items()
    }
    return {**rows, **summary_rows(progress.summary), **failed}


def summary_rows(summary: Summary) -> dict[str, object]:
    """The headline numbers of a run, those that were measured."""
    rows: dict[str, object] = {"pairs": f"{summary.ok:,} ok, {summary.failed:,} failed"}
    rows |= {f"failed with {code}": message for code, message in summary.reasons.items()}
    for name, before, after, unit in (
        ("mean Dice", summary.dice_before, summary.dice_mean, ""),
        ("NCC", summary.ncc_before, summary.ncc, ""),
        ("endpoint error", summary.epe_before_mm, summary.epe_mm, " mm"),
        ("keypoint error", summary.tre_before_mm, summary.tre_mm, " mm"),
    ):
        if before is not None and after is not None:
            rows[name] = f"{before:.3f}{unit} before, {after:.3f}{unit} after"
    if summary.hd95_mm_mean is not None and summary.surface_dice_mean is not None:
        rows["mean HD95"] = f"{summary.hd95_mm_mean:.3f} mm"
        rows["surface Dice"] = f"{summary.surface_dice_mean:.3f} within 2 mm"
    if summary.ice_mm is not None:
        rows["there and back"] = f"{summary.ice_mm:.3f} mm"
    if summary.folding is not None and summary.sdlogj is not None:
        rows["folding"] = f"{100 * summary.folding:.4f} % of voxels"
        rows["sd ln det J"] = f"{summary.sdlogj:.3f}"
    return rows


def apart_rows(apart: pl.DataFrame) -> dict[str, object]:
    """Subjects of the table of an `outliers` and the strongest reason why, the farthest first."""
    found = apart.unique("subject", keep="first", maintain_order=True)
    left_out = len(found) - _NAMED
    more = {"and": f"{left_out:,} more, see the report"} if left_out > 0 else {}
    return {**dict(found.select("subject", "reason").head(_NAMED).iter_rows()), **more}


def _throughput(pairs_per_hour: float | None) -> dict[str, object]:
    return {"throughput": f"{pairs_per_hour:,.0f} pairs per hour"} if pairs_per_hour else {}


def _split(seconds: Mapping[str, float]) -> str:
    """Seconds by kind of work, and what all but the registration adds up to."""
    parts = ", ".join(f"{kind} {value:.3f}" for kind, value in seconds.items())
    beside = sum(value for kind, value in seconds.items() if kind != "register")
    return f"{parts}; all but register {beside:.3f}"


def _size(size_bytes: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:,.1f} GiB"
