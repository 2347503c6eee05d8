"""A minute of a run before the run: what its parts take on this machine."""

import math
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.events import read_events
from cohort.engine.measured import Measured
from cohort.engine.plan import open_run
from cohort.engine.results import part_path
from cohort.engine.run import DriverOptions, RunReport, run
from cohort.engine.run_folder import as_table
from cohort.engine.stop import Stopped, request_stop
from cohort.engine.team import Team
from cohort.errors import SubjectError, UsageError

_SUBJECTS = 12  # of the sample, in tiles of two: each is met several times
_SIDE = 2
_SECONDS = 40.0  # from the start of the workers; tiles at work end after the pair at hand
_SCHEDULED_S = 0.002  # the way of a tile to its worker and back
_APART = ("read_s", "prepare_s", "commit_s")  # by subject or by tile, not by pair


def calibrate(store: CohortStore, settings: PlanSettings, team: Team) -> Measured:
    """Register some pairs of a store with a team, as a run would, for up to 40 seconds.

    Nothing of it is kept.

    Raises:
        UsageError: as a plan with these settings does; ``E_CALIBRATION`` if no pair succeeded.
        Stopped: if a signal came meanwhile.
    """
    names = store.subject_ids
    sample = random.Random(0).sample(names, min(_SUBJECTS, len(names)))
    pairs = [(one, other) for one in sample for other in sample if one != other]
    with tempfile.TemporaryDirectory(prefix="cohort-calibration-") as folder:
        table, run_dir = Path(folder) / "sample.csv", Path(folder) / "run"
        table.write_bytes(as_table(pairs))
        trial = replace(settings, pairs=str(table), atlas_labels=None, tile_size=_SIDE)
        open_run(run_dir, store, replace(trial, keep_displacements=None))
        _try_out(run_dir, store, team, DriverOptions(trust_code=settings.trust_code))
        return _summed_up(run_dir, store, team)


def _try_out(run_dir: Path, store: CohortStore, team: Team, options: DriverOptions) -> None:
    """Register pairs until all are done or the time of the trial is up."""
    is_time_up = False

    def progress(report: RunReport, total: int) -> None:
        nonlocal is_time_up
        del total
        if report.elapsed_s > _SECONDS:
            is_time_up = True
            request_stop(run_dir)

    try:
        run(run_dir, store, team=team, progress=progress, options=options)
    except Stopped as stop:
        # a signal that comes when the time is up has its own number, but for Ctrl-C
        if not is_time_up or stop.exit_code != Stopped().exit_code:
            raise


def _summed_up(run_dir: Path, store: CohortStore, team: Team) -> Measured:
    events = read_events(run_dir)
    tiles = [event for event in events if event["event"] == "tile_done"]
    if not any(tile["failed"] < tile["pairs"] for tile in tiles):
        raise UsageError(
            "E_CALIBRATION",
            f"none of {sum(tile['pairs'] for tile in tiles)} pairs that were tried succeeded;"
            " register a few, as with --pairs random:4, and see what their rows say",
        )
    begun = next(event["time"] for event in events if event["event"] == "run_started")
    prepared = max(sum(tile["prepared"] for tile in tiles), 1)
    last = tiles[-1]
    on_card = max(tile["device_bytes"] for tile in tiles)
    return Measured(
        pair_s=_per_pair(tiles),
        prepare_s=sum(tile["seconds"].get("prepare_s", 0) for tile in tiles) / prepared,
        read_s=sum(tile["seconds"].get("read_s", 0) for tile in tiles) / prepared,
        tile_s=_SCHEDULED_S + statistics.median(tile["seconds"]["commit_s"] for tile in tiles),
        start_s=_start_s(begun, tiles),
        subject_bytes=max(tile["kept_bytes"] // max(tile["kept"], 1) for tile in tiles),
        stored_bytes=_stored_bytes(store),
        row_bytes=part_path(run_dir, last["tile_id"]).stat().st_size / last["pairs"],
        worker_bytes=max(
            tile["memory_bytes"] - (0 if on_card else tile["kept_bytes"]) for tile in tiles
        ),
        device_bytes=on_card,
        processes=max(team.size, 1),
        pairs=sum(tile["pairs"] for tile in tiles),
    )


def _per_pair(tiles: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of a pair beside what is counted by subject or by tile; the mean, as pairs differ."""
    spent = [
        tile["elapsed_s"] - sum(tile["seconds"].get(kind, 0.0) for kind in _APART) for tile in tiles
    ]
    return sum(spent) / sum(tile["pairs"] for tile in tiles)


def _start_s(begun: str, tiles: Sequence[Mapping[str, Any]]) -> float:
    """From the start of the workers to the first tile of each, in the mean."""
    first: dict[str, float] = defaultdict(lambda: math.inf)
    for tile in tiles:
        start = datetime.fromisoformat(tile["time"]).timestamp() - tile["elapsed_s"]
        first[tile["worker"]] = min(first[tile["worker"]], start)
    return statistics.mean(first.values()) - datetime.fromisoformat(begun).timestamp()


def _stored_bytes(store: CohortStore) -> int:
    """Of the arrays of one subject, which all have about the same, before compression."""
    for subject_id in store.subject_ids:
        try:
            arrays = store.record(subject_id)["arrays"].values()
        except SubjectError:
            continue
        return sum(math.prod(one["shape"]) * np.dtype(one["dtype"]).itemsize for one in arrays)
    return 0
