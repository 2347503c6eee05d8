"""Runs for fault tests: started as processes of their own, killed, and compared row by row."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import psutil

from cohort.config.method import MethodConfig
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.results import INCIDENTAL, read_rows
from cohort.engine.spec import RunSpec

_DRIVER = Path(__file__).with_name("stub_driver.py")
PATIENCE_S = 120.0


def planned(run_dir: Path, store: CohortStore, tile_size: int = 3, pairs: str = "all") -> Path:
    """A run that waits for its first pair; the stub is installed in this process."""
    open_run(run_dir, store, PlanSettings(MethodConfig(), pairs, tile_size=tile_size))
    return run_dir


def decided(run_dir: Path) -> pl.DataFrame:
    """The rows without what differs from one run to the next."""
    return read_rows(run_dir).drop(*INCIDENTAL)


def start(
    store: CohortStore, run_dir: Path, *options: object, workers: int | None = 2, **stub: object
) -> subprocess.Popen[str]:
    """A driver with the stub method, in a session of its own as a terminal would have."""
    command = [sys.executable, _DRIVER, "register", store.path, run_dir]
    if workers is not None:
        options = ("--workers", workers, *options)
    return subprocess.Popen(
        [str(word) for word in (*command, *options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "STUB": json.dumps(stub)},
    )


def ended(driver: subprocess.Popen[str], within_s: float = PATIENCE_S) -> tuple[int, str]:
    """Exit code and what was said on stderr; a driver that does not end is killed."""
    try:
        _, err = driver.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        kill_all(driver)
        _, err = driver.communicate()
        raise AssertionError(f"the driver did not end within {within_s} s: {err}") from None
    return driver.returncode, err


def workers_of(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """Its worker processes that are there now."""
    try:
        children = psutil.Process(driver.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.Error:
        return []


def kill_all(driver: subprocess.Popen[str]) -> None:
    """SIGKILL to a driver and to all that it started."""
    workers = workers_of(driver)
    driver.kill()
    for worker in workers:
        try:
            worker.kill()
        except psutil.Error:
            continue


def wait_until(what: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    """Look again and again until ``what`` is true."""
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)


def drawn_strikes(source: random.Random, workers: int, drivers: int) -> list[tuple[int, str]]:
    """Who is to be killed, and how many of some 16 parts must be there by then; the last is next.

    They go by how far a run has come and not by the clock, so that no machine is too fast for them.
    """
    victims = ["worker"] * workers + ["driver"] * drivers
    source.shuffle(victims)
    marks = sorted(source.choices(range(8), k=len(victims)), reverse=True)
    return list(zip(marks, victims, strict=True))


def strike(
    driver: subprocess.Popen[str],
    run_dir: Path,
    strikes: list[tuple[int, str]],
    source: random.Random,
) -> None:
    """Kill whoever is next, and take that strike from the list, until a driver has ended."""
    deadline = time.monotonic() + PATIENCE_S  # of each
    while strikes and driver.poll() is None:
        assert time.monotonic() < deadline, f"not struck within {PATIENCE_S} s: {strikes}"
        time.sleep(0.02)
        enough, victim = strikes[-1]
        if len(parts(run_dir)) < enough or not workers_of(driver):
            continue
        time.sleep(source.uniform(0, 0.3))
        found = [psutil.Process(driver.pid)] if victim == "driver" else workers_of(driver)
        if not found:
            continue
        try:
            source.choice(found).kill()
        except psutil.NoSuchProcess:  # it has just ended by itself
            continue
        strikes.pop()
        deadline = time.monotonic() + PATIENCE_S


def gone(processes: list[psutil.Process], within_s: float = 10.0) -> bool:
    """Whether all of them ended."""
    return not psutil.wait_procs(processes, within_s)[1]


def parts(run_dir: Path) -> list[Path]:
    """The parts that are there."""
    return sorted(run_dir.glob("parts/[!.]*.parquet"))


def assert_whole(run_dir: Path, undisturbed: pl.DataFrame) -> None:
    """Each planned pair has one row, with the same bits as in an undisturbed run."""
    rows = decided(run_dir)
    assert len(rows) == RunSpec.load(run_dir).n_pairs
    assert rows["pair_key"].n_unique() == len(rows)
    assert rows.equals(undisturbed)
    assert not list(run_dir.glob("crumbs/*"))
    assert not list(run_dir.rglob(".tmp-*"))


def seeds(count: int) -> Iterator[random.Random]:
    """Seeded random sources; the seed is printed."""
    for seed in range(count):
        print(f"seed {seed}")  # noqa: T201  (pytest shows it with a failure)
        yield random.Random(seed)
