"""What a run tells of itself: events that survive their writer, and how fast it was."""

import json
from pathlib import Path
from typing import Any

import pytest

from cohort.engine.beside_checks import event_faults
from cohort.engine.events import log_event, pairs_per_hour, read_events, seconds_a_pair
from cohort.errors import StorageError


def test_events_come_back_in_order(tmp_path: Path) -> None:
    assert read_events(tmp_path) == []
    log_event(tmp_path, "run_started", workers=2)
    log_event(tmp_path, "tile_done", tile_id="a", pairs=3)
    first, second = read_events(tmp_path)
    assert (first["event"], first["workers"]) == ("run_started", 2)
    assert (second["event"], second["tile_id"], second["pairs"]) == ("tile_done", "a", 3)
    assert first["time"] <= second["time"]


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    log_event(tmp_path, "run_started")
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"time": "2026-01-01T00:00')  # a driver died here
    log_event(tmp_path, "run_started")
    log_event(tmp_path, "tile_done", pairs=1)
    kinds = [event["event"] for event in read_events(tmp_path)]
    assert kinds == ["run_started", "run_started", "tile_done"]


def test_before_the_first_tile_there_is_no_throughput(tmp_path: Path) -> None:
    assert pairs_per_hour(tmp_path) is None
    log_event(tmp_path, "run_started")
    assert pairs_per_hour(tmp_path) is None


def test_idle_time_between_drivers_does_not_count(tmp_path: Path) -> None:
    events = [
        ("00:00", "run_started", {}),
        ("18:00", "tile_done", {"pairs": 10}),
        ("30:00", "run_started", {}),
        ("48:00", "tile_done", {"pairs": 8}),
    ]
    write_events(tmp_path, events)
    assert pairs_per_hour(tmp_path) == 30


def test_failures_alone_are_no_throughput(tmp_path: Path) -> None:
    first = [
        ("00:00", "run_started", {}),
        ("01:00", "tile_done", {"pairs": 3, "failed": 3}),
    ]
    write_events(tmp_path, first)
    assert pairs_per_hour(tmp_path) is None
    write_events(tmp_path, [*first, ("06:00", "tile_done", {"pairs": 3, "failed": 2})])
    assert pairs_per_hour(tmp_path) == 60


def test_the_time_of_workers_is_split_by_kind_of_work(tmp_path: Path) -> None:
    def tile(worker: str, elapsed_s: float, **seconds: float) -> dict[str, object]:
        return {"pairs": 10, "worker": worker, "elapsed_s": elapsed_s, "seconds": seconds}

    write_events(tmp_path, [
        ("00:00", "run_started", {}),
        ("02:00", "tile_done", tile("a", 50, register_s=30, read_s=15)),  # from 01:10
        ("02:30", "tile_done", tile("b", 20, register_s=20)),
        ("03:00", "tile_done", tile("a", 40, register_s=40)),  # 20 s after its last
        ("09:00", "run_started", {}),
        ("09:30", "tile_done", tile("a", 10, register_s=10)),
    ])  # fmt: skip
    split = seconds_a_pair(tmp_path)
    assert split == {"register": 2.5, "waiting": 0.5, "read": 0.375, "other": 0.125}
    assert list(split) == ["register", "waiting", "read", "other"]


def test_before_the_first_tile_no_time_is_split(tmp_path: Path) -> None:
    log_event(tmp_path, "run_started")
    assert seconds_a_pair(tmp_path) == {}


def write_events(run_dir: Path, events: list[tuple[str, str, dict[str, Any]]]) -> None:
    lines = [json.dumps({"time": f"2026-01-01T00:{at}+00:00", "event": event, **facts})
             for at, event, facts in events]  # fmt: skip
    (run_dir / "events.jsonl").write_text("\n".join(lines) + "\n")


def test_events_that_cannot_be_written_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"events\.jsonl: No such file or directory"):
        log_event(tmp_path / "gone", "run_started")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"worker"', b'"w\xffrker"'),
        (b'"pairs"', b'"pbirs"'),
        (b'"event"', b'"evend"'),
        (b'"time": "2026-', b'"time": "2O26-'),
        (b"+00:00", b"100:00"),
        (b'"seconds"', b'"sfconds"'),
    ],
    ids=["no text", "no pairs", "no event", "no time", "no zone", "no seconds"],
)
def test_a_damaged_byte_spoils_its_own_line_alone(tmp_path: Path, old: bytes, new: bytes) -> None:
    tile = {"pairs": 6, "worker": "a", "elapsed_s": 10, "seconds": {"register_s": 9}}
    write_events(tmp_path, [
        ("00:00", "run_started", {}), ("10:00", "tile_done", tile), ("20:00", "tile_done", tile)
    ])  # fmt: skip
    path = tmp_path / "events.jsonl"
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second.replace(old, new) + third + b"17\n[]\nnull\n")
    assert seconds_a_pair(tmp_path)["register"] == 1.5
    assert pairs_per_hour(tmp_path) == (36 if b"sfconds" in new else 18)
    assert [finding.code for finding in event_faults(tmp_path)] == ["E_EVENTS"]
