"""F21: whatever happens to a run in whatever order, it holds what a simple model says."""

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import stub_method
from fault_runs import decided, parts, planned
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cohort.config.method import MethodConfig
from cohort.engine import tile as tile_module
from cohort.engine.compaction import compact
from cohort.engine.lock import only_driver
from cohort.engine.repair import repair
from cohort.engine.results import committed_tiles, read_rows
from cohort.engine.run import DriverOptions, RunReport, run
from cohort.engine.verify import verify

pytestmark = [pytest.mark.faults, pytest.mark.slow]


class Killed(BaseException):
    """What ends a driver here, at a step of its own choice."""


class RunMachine(RuleBasedStateMachine):
    """A run and what the model knows of it: which tiles are done, and which files are damaged."""

    def __init__(self) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(MethodConfig, "build", MethodConfig.build)
        stub_method.install()
        self._folder = Path(tempfile.mkdtemp(prefix="cohort-model-"))
        self._store = stub_method.stub_cohort(self._folder / "cohort.zarr", 4)
        self.run_dir = planned(self._folder / "run", self._store, 1)
        undisturbed = planned(self._folder / "undisturbed", self._store, 1)
        run(undisturbed, self._store)
        self.good = decided(undisturbed)
        self.pairs = {name: len(read) for name, read in _rows_by_tile(undisturbed).items()}
        self.done: set[str] = set()
        self.damaged: set[Path] = set()

    def teardown(self) -> None:
        self._patch.undo()
        shutil.rmtree(self._folder)

    @precondition(lambda self: not self.damaged)
    @rule(tiles=st.integers(0, 3))
    def work_on_some_tiles_and_be_killed(self, tiles: int) -> None:
        with _killed_after(tiles):
            run(self.run_dir, self._store)
        self.done = committed_tiles(self.run_dir)

    @precondition(lambda self: not self.damaged)
    @rule(tiles=st.integers(0, 3))
    def be_killed_within_a_commit(self, tiles: int) -> None:
        with _killed_before_commit(tiles):
            run(self.run_dir, self._store)
        self.done = committed_tiles(self.run_dir)

    @precondition(lambda self: not self.damaged)
    @rule()
    def resume(self) -> None:
        before = set(self.done)
        report = run(self.run_dir, self._store)
        assert report.already_done == sum(self.pairs[tile] for tile in before)
        self.done = set(self.pairs)

    @precondition(lambda self: not self.damaged)
    @rule()
    def retry_failed_finds_nothing_to_do_again(self) -> None:
        run(self.run_dir, self._store, options=DriverOptions(retry_failed=True))
        self.done = set(self.pairs)

    @precondition(lambda self: not self.damaged)
    @rule(file_bytes=st.sampled_from([1, 10**9]))
    def merge(self, file_bytes: int) -> None:
        with only_driver(self.run_dir):
            compact(self.run_dir, 0, file_bytes)
        assert not parts(self.run_dir)

    @rule(seed=st.integers(0, 10**6))
    def damage_a_file(self, seed: int) -> None:
        source = random.Random(seed)
        files = [*parts(self.run_dir), *self.run_dir.glob("compacted/*")]
        if files:
            path = source.choice(sorted(files))
            content = bytearray(path.read_bytes())
            content[source.randrange(len(content))] ^= 1 << source.randrange(8)
            path.write_bytes(content)
            self.damaged.add(path)

    @precondition(lambda self: self.damaged)
    @rule()
    def find_and_repair(self) -> None:
        found = {Path(one.path) for one in verify(self.run_dir).findings}
        assert found >= self.damaged
        repair(self.run_dir)
        self.damaged = set()
        left = committed_tiles(self.run_dir)
        assert left <= self.done
        self.done = left

    @invariant()
    def every_row_counts_once_and_is_right(self) -> None:
        if self.damaged:
            return
        assert committed_tiles(self.run_dir) == self.done
        rows = decided(self.run_dir)
        assert len(rows) == sum(self.pairs[tile] for tile in self.done)
        assert rows["pair_key"].n_unique() == len(rows)
        assert rows.equals(self.good.join(rows.select("pair_key"), on="pair_key", how="semi"))
        assert not verify(self.run_dir).findings


def _rows_by_tile(run_dir: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for tile, key in read_rows(run_dir).select("tile", "pair_key").iter_rows():
        found.setdefault(tile, []).append(key)
    return found


@contextmanager
def _killed_after(tiles: int) -> Iterator[None]:
    calls = 0

    def progress(report: RunReport) -> None:
        nonlocal calls
        calls += 1
        if calls > tiles:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        add = tile_module.run_tile

        def counted(*args: object, **named: object):
            progress(RunReport())
            return add(*args, **named)  # pyright: ignore

        patch.setattr("cohort.engine.run.run_tile", counted)
        try:
            yield
        except Killed:
            return


@contextmanager
def _killed_before_commit(tiles: int) -> Iterator[None]:
    calls, commit = 0, tile_module.commit_part

    def committing(*args: object) -> bool:
        nonlocal calls
        calls += 1
        if calls > tiles:
            raise Killed
        return commit(*args)  # pyright: ignore

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_module, "commit_part", committing)
        try:
            yield
        except Killed:
            return


RunMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestRun = RunMachine.TestCase
