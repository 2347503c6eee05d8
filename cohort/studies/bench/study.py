"""The study: trials, a forecast, then cells, kernels and whole runs; kept as they are measured."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cohort.config.method import method_config
from cohort.data.store import CohortStore
from cohort.errors import SchedulerError, UsageError
from cohort.studies.bench.apart import measured_apart
from cohort.studies.bench.cell import CellTask
from cohort.studies.bench.end_to_end import RunTask, measure_run
from cohort.studies.bench.forecast import Left, seconds_of_all, what_does_not_fit
from cohort.studies.bench.kept import Kept, Row
from cohort.studies.bench.machine import describe
from cohort.studies.bench.peers import PEERS, PeerTask
from cohort.studies.bench.peers_tools import TOOLS
from cohort.studies.bench.population import (
    Pairs,
    heads_missing,
    stored_pairs,
    synthetic_pairs,
)
from cohort.studies.bench.rooflines import KernelTask
from cohort.studies.bench.settings import BenchSettings, Cell, Shape, Variant, size_text
from cohort.studies.bench.tables import write_tables


@dataclass(frozen=True)
class Listener:
    """Who is told how it goes.

    Attributes:
        forecast: called once with the seconds that the study will take.
        progress: called with the steps that are done, all of them, how many failed, and what is
            being measured; all of them are 0 as long as their number is not known.
    """

    forecast: Callable[[float], None] = lambda seconds: None
    progress: Callable[[int, int, int, str], None] = lambda done, total, failed, what: None


class _Study:
    """The folder, the pairs, and the steps that are left."""

    def __init__(self, out: Path, settings: BenchSettings) -> None:
        self.out, self.settings = out, settings
        self.given = None if settings.store is None else stored_pairs(settings)
        measured = settings.measured(self.given and self.given.store)
        self.kept = Kept(out, describe(settings.device), measured)
        self.failed = 0

    def pairs(self, shape: Shape) -> Pairs:
        return self.given or synthetic_pairs(self.out, self.settings, shape)

    def measured(self, key: str, work: Callable[[], Row], facts: Row) -> Row:
        """What is kept under a key, or is measured now; a refusal is its status."""
        found = self.kept.find(key)
        if found is not None:
            return found
        try:
            row = {"status": "ok", "message": "", **work()}
        except (UsageError, SchedulerError) as error:
            row = {"status": error.code, "message": error.message}
        self.failed += row["status"] != "ok"
        return self.kept.note(key, {**facts, **row})

    def first_cell(self, variant: Variant) -> Cell:
        """One pair at a time at the first shape."""
        return Cell(variant, self.settings.shapes[0], self.settings.device, 1)

    def trial(self, variant: Variant) -> Row:
        """One turn at the first shape, by which the rest is foretold."""
        cell = self.first_cell(variant)
        work = partial(self.cell_row, cell, 1)
        return self.measured(f"trial {cell.key}", work, _facts(variant, cell.shape))

    def compile(self, variant: Variant) -> None:
        """One turn of a process that finds no compiled kernels."""
        cell = self.first_cell(variant)
        work = partial(self.cell_row, cell, 1, fresh_cache=True)
        self.measured(f"compile {cell.key}", work, _facts(variant, cell.shape))

    def cell(self, cell: Cell) -> None:
        facts = {**_facts(cell.variant, cell.shape), "device": cell.device, "batch": cell.batch}
        self.measured(cell.key, partial(self.fitting_row, cell), facts)

    def fitting_row(self, cell: Cell) -> Row:
        done = [row for row in self.kept.all("cell") if row["status"] == "ok"]
        trial = self.trial(cell.variant)
        if trial["status"] == "ok":
            done.append({**trial, "batch": 1})
        reason = what_does_not_fit(cell, done)
        if reason is not None:
            return {"status": "E_BENCH_MEMORY", "message": reason}
        return self.cell_row(cell, self.settings.repeats)

    def cell_row(self, cell: Cell, repeats: int, *, fresh_cache: bool = False) -> Row:
        where, variant = self.pairs(cell.shape), cell.variant
        named = variant.method, variant.settings
        task = CellTask(where.store, where.pairs, *named, cell.device, cell.batch, repeats)
        return measured_apart(task, fresh_cache=fresh_cache)

    def is_left(self, key: str) -> bool:
        return self.kept.find(key) is None

    def left(self, heads: Mapping[Shape, int]) -> Left:
        """What is asked for and not measured yet, and the heads that are yet to be made."""
        settings, variants = self.settings, self.settings.variants
        compiled = [
            variant
            for variant in (variants if settings.compiles else ())
            if self.is_left(f"compile {self.first_cell(variant).key}")
        ]
        runs = [
            (variant, workers)
            for workers in settings.workers
            for variant in variants
            if self.is_left(self.run_task(variant, workers).key)
        ]
        return Left(
            cells=[cell for cell in settings.cells() if self.is_left(cell.key)],
            compiled=compiled,
            kernels=[one for one in settings.kernel_shapes if self.is_left(self.kernels_key(one))],
            runs=runs,
            peers=len(self.peers_left()),
            heads=heads,
        )

    def peers_left(self) -> list[str]:
        """Other tools that are asked for and not measured yet."""
        asked = () if self.settings.peers is None else PEERS
        return [tool for tool in asked if self.is_left(self.peer_key(tool))]

    def peer_key(self, tool: str) -> str:
        return f"cell {tool} {size_text(self.settings.shapes[0])} {PeerTask.device} 1"

    def peer(self, tool: str) -> None:
        """Another tool at the first shape."""
        assert self.settings.peers is not None
        shape = self.settings.shapes[0]
        where, python = self.pairs(shape), self.settings.peers
        task = PeerTask(where.store, where.pairs, tool, python, self.settings.repeats)
        facts = {
            **_sizes(shape),
            "variant": tool,
            "method": tool,
            "settings": TOOLS[tool].settings,
            "device": task.device,
            "batch": 1,
        }
        self.measured(self.peer_key(tool), partial(measured_apart, task), facts)

    def kernels_key(self, shape: Shape) -> str:
        methods = ",".join(self.settings.methods)
        return f"kernels {methods} {size_text(shape)} {self.settings.device}"

    def kernels(self, shape: Shape) -> None:
        methods, device = self.settings.methods, self.settings.device
        task = KernelTask(methods, shape, device, self.settings.repeats)
        facts = {"methods": ", ".join(methods), "shape": size_text(shape), "device": device}
        self.measured(self.kernels_key(shape), partial(measured_apart, task), facts)

    def run_task(self, variant: Variant, workers: int) -> RunTask:
        """All ordered pairs of subjects at the first shape."""
        pairs = self.pairs(self.settings.shapes[0])
        return RunTask(pairs, variant, self.settings.device, workers)

    def run(self, variant: Variant, workers: int) -> None:
        task = self.run_task(variant, workers)
        facts = {**_facts(variant, task.pairs.shape), "device": task.device, "workers": workers}
        self.measured(task.key, partial(measure_run, task, self.kept.run), facts)


def _facts(variant: Variant, shape: Shape) -> Row:
    return {
        "variant": variant.name,
        "method": variant.method,
        "settings": " ".join(variant.settings),
        **_sizes(shape),
    }


def _sizes(shape: Shape) -> Row:
    return {"shape": size_text(shape), "voxels": math.prod(shape)}


def bench(out: Path, settings: BenchSettings, listener: Listener = Listener()) -> Path:
    """Measure what is not measured yet; tables are in ``out`` after each step.

    Args:
        out: folder of the study; the same call goes on where it was stopped.
        settings: see :class:`BenchSettings`.
        listener: who is told how it goes.

    Returns:
        ``out/bench.json``: machine, settings and every row.

    Raises:
        UsageError: ``E_BENCH`` as :class:`cohort.studies.bench.kept.Kept` does, ``E_STORE``,
            ``E_PAIRS``, ``E_SETTING`` for what cannot be registered.
        StorageError: if the folder cannot be written.
    """
    if settings.store is not None:
        settings = _at_its_shape(settings)
    for variant in settings.variants:
        method_config(variant.method, None, list(variant.settings))
    study = _Study(out, settings)
    heads = {} if study.given else heads_missing(out, settings)
    listener.progress(0, 0, 0, "making heads and trying each method")
    trials = {variant: study.trial(variant) for variant in settings.variants}
    steps = list(_steps(study))
    listener.forecast(seconds_of_all(study.left(heads), trials, settings))
    for number, (what, step) in enumerate(steps):
        listener.progress(number, len(steps), study.failed, what)
        step()
        write_tables(out, study.kept, settings)
    listener.progress(len(steps), len(steps), study.failed, "measured")
    return out / "bench.json"


def _steps(study: _Study) -> Iterator[tuple[str, Callable[[], None]]]:
    """What is to be done, cheap things that tell much first."""
    settings = study.settings
    for variant in settings.variants if settings.compiles else ():
        yield f"compiling {variant.name}", partial(study.compile, variant)
    for cell in settings.cells():
        yield f"{cell.variant.name} {size_text(cell.shape)}", partial(study.cell, cell)
    for shape in settings.kernel_shapes:
        yield f"kernels {size_text(shape)}", partial(study.kernels, shape)
    for workers in settings.workers:
        for variant in settings.variants:
            step = partial(study.run, variant, workers)
            yield f"{variant.name}, {workers} workers", step
    for tool in study.peers_left():
        yield tool, partial(study.peer, tool)


def _at_its_shape(settings: BenchSettings) -> BenchSettings:
    """A store has one shape."""
    assert settings.store is not None
    return replace(settings, shapes=(CohortStore.open(settings.store).grid.shape,))
