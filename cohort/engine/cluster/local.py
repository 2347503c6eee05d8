"""Worker processes on this machine: one a core, or one a card."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Nanny, Scheduler, SpecCluster

from cohort.engine.team import Team
from cohort.errors import SchedulerError

# set before a worker starts. One kernel thread each: pairs are what runs in parallel. And freed
# memory stays with the process: Dask's default hands it back at every turn, and the next volume
# then spends as long on page faults as on arithmetic
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}
_PATIENCE_S, _HASTE_S, _MARGIN_S = 10.0, 1.0, 3.0
CONFIG: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": 0,  # the driver decides about another attempt
    # a worker that died comes back when its kernels are loaded; Dask gives up after 15 s
    "distributed.deploy.lost-worker-timeout": "30 minutes",
    "distributed.scheduler.worker-ttl": "30 minutes",  # a long kernel call is no dead worker
    # workers keep all cores busy: what looks at them fifty times a second takes time from pairs
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.nanny.pre-spawn-environ": _ENVIRONMENT,
}


def local_cluster(team: Team, *, dashboard: bool) -> SpecCluster:
    """Start a scheduler and workers of one thread; nothing listens but on the loopback address.

    Raises:
        SchedulerError: ``E_WORKER`` if they do not start.
    """
    scheduler = {
        "host": "127.0.0.1",
        "port": 0,
        # it answers health checks over HTTP all the same; on any free port, so that two runs on one
        # machine do not meet
        "dashboard_address": "127.0.0.1:0",
        "dashboard": dashboard,
    }
    try:
        return SpecCluster(
            scheduler={"cls": Scheduler, "options": scheduler},
            workers={
                name: {"cls": Nanny, "options": _options(name, environment)}
                for name, environment in _environments(team).items()
            },
            silence_logs=logging.CRITICAL,  # pyright: ignore[reportArgumentType]
        )
    except (RuntimeError, OSError) as error:
        message = f"{team.size} worker processes cannot be started: {error.__cause__ or error}"
        raise SchedulerError("E_WORKER", f"{message}; need fewer, or 0 for none") from error


@contextmanager
def closed_in_time(cluster: SpecCluster) -> Iterator[SpecCluster]:
    """Close a cluster within seconds, whatever its workers are at; within five after an error.

    Dask gives workers four seconds to end, and waits for ever for one that died and is just coming
    back as its cluster closes.
    """
    patience_s = _PATIENCE_S
    try:
        yield cluster
    except BaseException:
        patience_s = _HASTE_S
        raise
    finally:
        nannies = [one for one in cluster.workers.values() if isinstance(one, Nanny)]
        timer = threading.Timer(patience_s, _kill, [nannies])
        timer.daemon = True
        timer.start()
        try:
            cluster.close(timeout=patience_s + _MARGIN_S)
        except TimeoutError:
            cluster.shutdown_on_close = False  # else it is tried once more as Python ends
            for _ in range(5):  # a nanny that is not closing starts another one
                _kill(nannies)
                time.sleep(0.2)
        finally:
            timer.cancel()


def _kill(nannies: list[Nanny]) -> None:
    for nanny in nannies:
        if nanny.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)


def _options(name: str, environment: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "nthreads": 1,
        "host": "127.0.0.1",
        "dashboard": False,
        "memory_limit": 0,  # Dask would pause a worker for ever whose cache it cannot empty
        "env": environment,
        "silence_logs": logging.CRITICAL,
    }


def _environments(team: Team) -> dict[str, dict[str, str]]:
    """For each worker what it alone is told; a worker that is restarted keeps its card."""
    if not team.gpus:
        return {f"worker-{number}": {} for number in range(team.workers)}
    return {
        f"gpu-{card}-{number}": {"CUDA_VISIBLE_DEVICES": _visible(card)}
        for number, card in enumerate(team.gpus)
    }


def _visible(card: int) -> str:
    """A card as a process must be told of it, which may itself be shown only some."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return shown.split(",")[card] if shown else str(card)
