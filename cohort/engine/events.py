"""``events.jsonl``: what happened to a run, one JSON object a line, appended by its driver."""

import json
import os
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cohort.data.storage import storage_error

# of a tile: what every reader takes, and what its time is split by
_FACTS = {"tile_done": frozenset({"pairs"})}
_TIMES = {"seconds", "elapsed_s", "worker"}


def log_event(run_dir: Path, event: str, **facts: object) -> None:
    """Append one event with the time of day."""
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
    path = run_dir / "events.jsonl"
    try:
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # a driver died within its last line
                    file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")
    except OSError as error:
        raise storage_error(path, error) from error


def read_events(run_dir: Path) -> list[dict[str, Any]]:
    """All events in order; lines that a dying driver left unfinished, or that are damaged, are
    passed over."""
    path = run_dir / "events.jsonl"
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return [event for event in map(parse_event, lines) if event is not None]


def parse_event(line: bytes) -> dict[str, Any] | None:
    """An event with its time of day; None if the line is none."""
    try:
        event = json.loads(line)
        is_timed = datetime.fromisoformat(event["time"]).tzinfo is not None
        known = _FACTS.get(event["event"], frozenset())
    except (ValueError, KeyError, TypeError):  # bytes, JSON, a time, or what it is: all say so
        return None
    return event if is_timed and event.keys() >= known else None


def seconds_a_pair(run_dir: Path) -> dict[str, float]:
    """Where the workers' time went: seconds a pair by kind of work, the longest first.

    ``other`` is what a tile took beyond its parts, ``waiting`` what a worker did between its first
    tile and its last without being in one. The start of processes is not in it. Empty before the
    first tile is done.
    """
    spent: dict[str, float] = defaultdict(float)
    spans: dict[tuple[int, str], list[float]] = {}
    pairs = call = 0
    for event in read_events(run_dir):
        call += event["event"] == "run_started"
        if event["event"] != "tile_done" or not event.keys() >= _TIMES:
            continue
        pairs += event["pairs"]
        for kind, seconds in event["seconds"].items():
            spent[kind.removesuffix("_s")] += seconds
        spent["other"] += event["elapsed_s"] - sum(event["seconds"].values())
        end = datetime.fromisoformat(event["time"]).timestamp()
        span = spans.setdefault((call, event["worker"]), [end - event["elapsed_s"], end, 0.0])
        span[1:] = end, span[2] + event["elapsed_s"]
    spent["waiting"] = sum(max(end - start - busy, 0.0) for start, end, busy in spans.values())
    by_length = sorted(spent.items(), key=lambda one: -one[1])
    return {kind: seconds / pairs for kind, seconds in by_length} if pairs else {}


def pairs_per_hour(run_dir: Path) -> float | None:
    """Throughput of the run: its pairs over the hours in which a driver worked on it, each time
    from its start to its last tile; None as long as no pair succeeded."""
    pairs, failed, seconds, since = 0, 0, 0.0, None
    for event in read_events(run_dir):
        time = datetime.fromisoformat(event["time"])
        if event["event"] == "run_started":
            since = time
        elif event["event"] == "tile_done" and since is not None:
            pairs += event["pairs"]
            failed += event.get("failed", 0)  # not in events of older versions
            seconds += (time - since).total_seconds()
            since = time
    return 3600 * pairs / seconds if pairs > failed and seconds else None
