"""One cell, measured in this process: a method on given pairs, so many at once."""

import math
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cohort.config.method import method_config
from cohort.data.store import CohortStore
from cohort.engine.measure import measure_pair
from cohort.engine.registered_pair import RegisteredPair
from cohort.engine.scan import Scan
from cohort.engine.spec import Device
from cohort.engine.subjects import scan_to
from cohort.studies.bench.card import read_card
from cohort.studies.bench.machine import forget_peak, peak_bytes
from cohort.studies.bench.timing import Spread, Stopwatch, spread
from triton_reg import Features, Method, Result, collate

_ACCURACY = ("dice_before", "dice_mean", "epe_before_mm", "epe_mm", "folding", "sdlogj")
_POWER_S = 2.0  # of registering, at least, while a card is read
Pair = tuple[str, str]


@dataclass(frozen=True)
class CellTask:
    """What is measured.

    Attributes:
        store: address of the cohort.
        pairs: (fixed, moving), which turns take one after the other.
        method, settings: as ``--method`` and ``--set``.
        device: where it runs.
        batch: pairs at once.
        repeats: turns after the first, or as many more as it takes to see every pair.
    """

    store: str
    pairs: tuple[Pair, ...]
    method: str
    settings: tuple[str, ...]
    device: Device
    batch: int
    repeats: int


class _Ready(NamedTuple):
    scans: dict[str, Scan]
    fixed: Features
    moving: Features
    rows: Tensor


@dataclass(frozen=True)
class _Bench:
    store: CohortStore
    method: Method
    device: torch.device

    @classmethod
    def of(cls, task: CellTask) -> "_Bench":
        store = CohortStore.open(task.store)
        named = method_config(task.method, None, list(task.settings))
        method = named.for_cohort(store.inventory().has_masks, store.grid.spacing_mm).build()
        return cls(store, method, torch.device(task.device))

    def ready(self, pairs: list[Pair], watch: Stopwatch) -> _Ready:
        """Read and prepare the subjects of pairs, as if nothing were known of them."""
        scans: dict[str, Scan] = {}
        features: dict[str, Features] = {}
        for name in sorted({name for pair in pairs for name in pair}):
            with watch.timed("read"):
                scans[name] = scan_to(Scan.of(self.store.read(name)), self.device)
            with watch.timed("prepare"):
                features[name] = self.method.prepare(scans[name].volume, scans[name].mask)
        fixed, moving = (
            collate([features[name] for name in side]) for side in zip(*pairs, strict=True)
        )
        rows = torch.arange(len(pairs), dtype=torch.int32, device=self.device)
        return _Ready(scans, fixed, moving, torch.stack([rows, rows], dim=1))

    def register(self, ready: _Ready, watch: Stopwatch) -> Result:
        with watch.timed("register"):
            return self.method.register(ready.fixed, ready.moving, ready.rows)

    def accuracy(self, pair: Pair, scans: dict[str, Scan], result: Result) -> dict[str, Any]:
        fixed, moving = (scans[name] for name in pair)
        return measure_pair(RegisteredPair.of(fixed, moving, result.displacement, self.store.grid))


def measure_cell(task: CellTask) -> dict[str, Any]:
    """What a cell's row says of its times, memory and accuracy.

    The first turn is apart: what it took beyond a usual one is ``first_extra_s``, kernels that are
    loaded from the disk, or compiled where none are kept. ``cold_s`` is a pair whose two subjects
    have to be read and prepared for it alone, ``register_s`` one whose features are at hand.
    """
    bench, before = _Bench.of(task), forget_peak()
    turns = max(task.repeats, math.ceil(len(task.pairs) / task.batch)) + 1
    order = cycle(task.pairs)
    watches = [Stopwatch(bench.device) for _ in range(turns)]
    measured: dict[Pair, dict[str, Any]] = {}
    with torch.inference_mode():
        for watch in watches:
            pairs = list(islice(order, task.batch))
            ready = bench.ready(pairs, watch)
            result = bench.register(ready, watch)
            for row, pair in enumerate(pairs):
                if pair not in measured:
                    measured[pair] = bench.accuracy(pair, ready.scans, result.of(row))
            del ready, result
        row = _times(watches, task.batch) | mean_measures(list(measured.values()))
        row |= {"peak_mib": (peak_bytes() - before) / 2**20}
        if task.device == "cuda":
            row |= _of_card(bench, list(islice(order, task.batch)))
    return row | {"repeats": turns - 1, "pairs": len(measured)}


def _times(watches: list[Stopwatch], batch: int) -> dict[str, float]:
    """Seconds of a subject for reading and preparing, of a pair for the rest."""
    usual = watches[1:]
    registered = spread([watch.wall["register"][0] / batch for watch in usual])
    read = spread([one for watch in usual for one in watch.wall["read"]])
    prepared = spread([one for watch in usual for one in watch.wall["prepare"]])
    # of two subjects each: pairs of a turn share theirs, so what a turn took says nothing of that
    parts = zip(registered, read, prepared, strict=True)
    cold = Spread(*(pair + 2 * (reading + preparing) for pair, reading, preparing in parts))
    worked = [sum(w.wall["prepare"]) + w.wall["register"][0] for w in watches]
    processor = spread([watch.processor["register"][0] / batch for watch in usual])
    return {
        "read_s": read.median,
        "prepare_s": prepared.median,
        "prepare_q1_s": prepared.q1,
        "prepare_q3_s": prepared.q3,
        "register_s": registered.median,
        "register_q1_s": registered.q1,
        "register_q3_s": registered.q3,
        "register_cpu_s": processor.median,
        "cold_s": cold.median,
        "cold_q1_s": cold.q1,
        "cold_q3_s": cold.q3,
        "first_extra_s": max(0.0, worked[0] - spread(worked[1:]).median),
        "pairs_per_hour": 3600 / registered.median,
        "pairs_per_hour_cold": 3600 / cold.median,
    }


def mean_measures(measured: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the pairs of the measures that all of them have."""
    return {
        name: sum(one[name] for one in measured) / len(measured)
        for name in _ACCURACY
        if all(name in one for one in measured)
    }


def _of_card(bench: _Bench, pairs: list[Pair]) -> dict[str, float]:
    """Memory, and clocks and power while it registers for two seconds or more."""
    found = {"device_mib": torch.cuda.max_memory_allocated() / 2**20}
    watch = Stopwatch(bench.device)
    ready = bench.ready(pairs, watch)
    with read_card("cuda") as card:
        while sum(watch.wall.get("register", [])) < _POWER_S:
            bench.register(ready, watch)
    power, clock = card.median("power.draw"), card.median("clocks.sm")
    if clock is not None:
        found["clock_mhz"] = clock
    if power is not None:
        spent = spread(watch.wall["register"]).median / len(pairs)
        found |= {"power_w": power, "joules_a_pair": power * spent}
    return found
