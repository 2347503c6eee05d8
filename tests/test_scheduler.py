"""Workers of a scheduler that others started: used, or refused for what would break."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import MagicMock

import psutil
import pytest
from distributed.comm.core import CommClosedError
from helpers import tiny_cohort
from small_run import decided, planned

from cohort.commands.crew import on_cards
from cohort.data.store import CohortStore
from cohort.engine.cluster.crew import DaskCrew
from cohort.engine.cluster.given import refuse_open_network, workers_of_a_host
from cohort.engine.cluster.local import local_cluster
from cohort.engine.cluster.plugin import WorkbenchPlugin
from cohort.engine.cluster.workers import run_on_workers
from cohort.engine.opening import Opening
from cohort.engine.run import run
from cohort.engine.team import Team, parse_gpus
from cohort.errors import SchedulerError, UsageError

DASK = [sys.executable, "-m", "dask"]


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen]:
    """A process with its children, ended afterwards."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    one = subprocess.Popen(command, **quiet, env=environment, start_new_session=True)
    try:
        yield one
    finally:
        if one.poll() is None:
            os.killpg(one.pid, signal.SIGKILL)
        one.wait()


@contextmanager
def scheduler(folder: Path, threads: int) -> Iterator[Path]:
    """The file of a scheduler that has one worker, of so many threads."""
    file = folder / "scheduler.json"
    start = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    where = ["--scheduler-file", str(file)]
    with process(*DASK, *start, *where):
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        threaded = ["--nthreads", str(threads), "--local-directory", str(folder / "dask")]
        with process(*DASK, "worker", *where, *threaded, "--no-dashboard", "--host", "127.0.0.1"):
            yield file


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    return tiny_cohort(tmp_path_factory.mktemp("scheduler") / "cohort.zarr")


@pytest.mark.slow
def test_a_given_scheduler_gives_the_same_rows(store: CohortStore, tmp_path: Path) -> None:
    here, there = (planned(tmp_path / name, store) for name in ("here", "there"))
    run(here, store)
    with scheduler(tmp_path, 1) as file:
        report = run(there, store, team=Team(scheduler=file))
        assert report.pairs == 12
        again = planned(tmp_path / "again", store)  # workers serve one run after another
        run(again, store, team=Team(scheduler=json.loads(file.read_text())["address"]))
    assert decided(there).equals(decided(here))
    assert decided(again).equals(decided(here))


@pytest.mark.slow
def test_workers_with_several_threads_are_refused(store: CohortStore, tmp_path: Path) -> None:
    run_dir = planned(tmp_path / "run", store)
    with scheduler(tmp_path, 2) as file, pytest.raises(UsageError) as caught:
        run(run_dir, store, team=Team(scheduler=file))
    assert caught.value.code == "E_WORKERS"
    assert "has 2 threads" in caught.value.message
    assert "--nthreads 1" in caught.value.message
    assert not list((run_dir / "parts").iterdir())


def test_a_scheduler_that_is_not_there_is_named(store: CohortStore, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("cohort.engine.cluster.given._TIMEOUT_S", 1)
    run_dir = planned(tmp_path / "run", store)
    with pytest.raises(SchedulerError, match=r"tcp://127\.0\.0\.1:9 does not answer") as caught:
        run(run_dir, store, team=Team(scheduler="tcp://127.0.0.1:9"))
    assert (caught.value.code, caught.value.exit_code) == ("E_SCHEDULER", 5)
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(UsageError, match="does not say where a scheduler is"):
        run(run_dir, store, team=Team(scheduler=tmp_path / "s.json"))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("address", "allowed", "code"),
    [
        ("tls://node7:8786", False, None),
        ("tcp://127.0.0.1:8786", False, None),
        ("tcp://[::1]:8786", False, None),
        ("localhost:8786", False, None),
        ("tcp://192.0.2.7:8786", False, "E_NETWORK"),
        ("192.0.2.7:8786", False, "E_NETWORK"),
        ("tcp://0.0.0.0:8786", False, "E_NETWORK"),
        ("tcp://node-that-is-not-there.invalid:8786", False, "E_NETWORK"),
        ("tcp://192.0.2.7:8786", True, None),
        ("http://127.0.0.1", False, "E_SCHEDULER"),
        ("", False, "E_SCHEDULER"),
    ],
)
def test_what_is_open_to_a_network_is_refused(address: str, allowed: bool, code: str) -> None:
    if code is None:
        refuse_open_network(address, allowed=allowed)
        return
    with pytest.raises(UsageError) as caught:
        refuse_open_network(address, allowed=allowed)
    assert caught.value.code == code


@pytest.mark.slow
@pytest.mark.faults
def test_nothing_listens_but_on_the_loopback_address() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with local_cluster(Team(2), dashboard=False):
        here = psutil.Process()
        family = [here, *here.children(recursive=True)]
        listening = [
            one.laddr.ip
            for process in family
            if process.pid not in before
            for one in process.net_connections(kind="tcp")
            if one.status == psutil.CONN_LISTEN
        ]
    assert len(listening) >= 3  # the scheduler, and a nanny or a worker each
    assert set(listening) == {"127.0.0.1"}


def test_teams_are_what_they_say() -> None:
    assert Team().is_plain
    assert not Team(2).is_plain
    assert Team(gpus=(0, 0)).size == 2
    assert Team(8).no_more_than(3) == Team(3)
    assert Team(gpus=(0, 1, 2)).no_more_than(2).gpus == (0, 1)
    with pytest.raises(UsageError, match="need one of them"):
        Team(gpus=(0,), scheduler="tcp://127.0.0.1:1")


@pytest.mark.parametrize(
    ("text", "expected"), [("all", (0, 1, 2)), ("1", (1,)), ("0,0", (0, 0)), ("2, 0", (2, 0))]
)
def test_cards_are_named(text: str, expected: tuple[int, ...]) -> None:
    assert parse_gpus(text, 3) == expected


@pytest.mark.parametrize("text", ["3", "x", "", "0,-1"])
def test_cards_that_are_not_there_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="numbers from 0 to 2") as caught:
        parse_gpus(text, 3)
    assert caught.value.code == "E_DEVICE"
    with pytest.raises(UsageError, match="finds no GPU here"):
        parse_gpus("all", 0)


def test_a_run_on_gpus_has_one_worker_a_card(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert on_cards(Team(16), "cuda", None) == Team(gpus=(0, 1))
    assert on_cards(Team(3), "cuda", 3) == Team(gpus=(0, 1, 0))
    for asked in (Team(1), Team(gpus=(1,)), Team(scheduler="tls://node:1")):
        assert on_cards(asked, "cuda", 1) == asked
        assert on_cards(asked, "cpu", None) == asked
    assert on_cards(Team(gpus=(1,)), "cuda", None) == Team(gpus=(1,))


def test_a_scheduler_that_dies_while_a_report_is_fetched_is_gone_not_the_disk() -> None:
    future = MagicMock()
    future.result.side_effect = CommClosedError("in <TCP (closed) ConnectionPool.gather>")
    future.add_done_callback.side_effect = lambda told: told(future)
    client = MagicMock(status="running")
    client.nthreads.return_value = {"tcp://127.0.0.1:1": 1}
    client.submit.return_value = future
    crew = DaskCrew(client, "plugin", MagicMock(), 1.0, lambda: False, lambda tile: 0)
    crew.submit("tcp://127.0.0.1:1", 0, 1)
    with pytest.raises(SchedulerError, match="E_SCHEDULER"):
        crew.wait()


def addresses(*hosts: str) -> dict[str, int]:
    return {f"tls://{host}:{port}": 1 for port, host in enumerate(hosts, start=9000)}


def test_workers_of_a_scheduler_share_the_memory_of_their_machine(
    store: CohortStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cohort.engine.cluster.given._SETTLED_S", 0.05)
    monkeypatch.setattr("cohort.engine.cluster.given._LOOK_S", 0.01)
    come = [addresses(), addresses("10.0.0.1"), addresses("10.0.0.1", "10.0.0.2", "10.0.0.2")]
    client = MagicMock()
    client.nthreads.side_effect = lambda: come.pop(0) if len(come) > 1 else come[0]
    monkeypatch.setattr("cohort.engine.cluster.workers._client", lambda *_, **__: client)
    opened: list[Opening] = []

    def register(client: MagicMock, plugin: WorkbenchPlugin) -> None:
        opened.append(plugin._opening)
        raise SchedulerError("E_SCHEDULER", "this is far enough")

    monkeypatch.setattr("cohort.engine.cluster.workers._register", register)
    opening = Opening(run_dir=tmp_path, store=store.address)
    with pytest.raises(SchedulerError, match="far enough"):
        list(run_on_workers(MagicMock(), opening, Team(scheduler="tls://node:1")))
    assert [one.workers for one in opened] == [2]
    client.nthreads.side_effect = OSError("gone")
    with pytest.raises(SchedulerError, match="the scheduler is gone"):
        workers_of_a_host(client, lambda: False)
    assert workers_of_a_host(client, lambda: True) == 1
