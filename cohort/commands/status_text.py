"""What ``cohort status``, and others beside it, say of a run, for people."""

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from cohort.engine.progress import RunProgress
from cohort.terminal import summary_rows

_NAMED = 5  # subjects


def status_rows(progress: RunProgress) -> dict[str, object]:
    """Name and value of each thing that is known."""
    rows: dict[str, object] = {"done": f"{progress.done:,} of {progress.planned:,} pairs"}
    if progress.pairs_per_hour:
        rows["throughput"] = f"{progress.pairs_per_hour:,.0f} pairs per hour"
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


def apart_rows(apart: pl.DataFrame) -> dict[str, object]:
    """Subjects of the table of an `outliers` and the strongest reason why, the farthest first."""
    found = apart.unique("subject", keep="first", maintain_order=True)
    left_out = len(found) - _NAMED
    more = {"and": f"{left_out:,} more, see the report"} if left_out > 0 else {}
    return {**dict(found.select("subject", "reason").head(_NAMED).iter_rows()), **more}


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
