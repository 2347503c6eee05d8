"""A scheduler that others started: what would break, or be open to anyone, is refused."""

import ipaddress
import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from distributed import Client

from cohort.engine.team import Team
from cohort.errors import SchedulerError, UsageError

GONE = "the scheduler is gone, or does not answer; the same command goes on from here"
_TIMEOUT_S = 30
_SETTLED_S = 3.0  # workers of a batch system come within seconds of each other
_LOOK_S = 0.2


def connected(team: Team) -> Client:
    """A client of the team's scheduler; TLS files are those of Dask's own configuration.

    Raises:
        UsageError: as :func:`allowed_address` does.
        SchedulerError: ``E_SCHEDULER`` if it does not answer.
    """
    address = allowed_address(team)
    try:
        return Client(address, timeout=_TIMEOUT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError, RuntimeError, TypeError) as error:
        raise SchedulerError(
            "E_SCHEDULER", f"the scheduler at {address} does not answer: {error}; is it running?"
        ) from error


def workers_of_a_host(client: Client, stopping: Callable[[], bool]) -> int:
    """How many workers share one machine, the most of any, when no further ones come.

    Args:
        client: of the scheduler.
        stopping: whether not to wait for them any more.

    Raises:
        SchedulerError: ``E_SCHEDULER`` if the scheduler is gone.
    """
    seen, since = 0, time.monotonic()
    while not stopping():
        try:
            threads = cast(dict[str, int], client.nthreads())
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            raise SchedulerError("E_SCHEDULER", GONE) from error
        if len(threads) != seen:
            seen, since = len(threads), time.monotonic()
        elif seen and time.monotonic() - since > _SETTLED_S:
            return max(Counter(urlsplit(one).hostname for one in threads).values())
        time.sleep(_LOOK_S)
    return 1


def allowed_address(team: Team) -> str:
    """Where the team's scheduler is.

    Raises:
        UsageError: ``E_NETWORK`` if it is reached over a network without TLS and the team does not
            allow that, ``E_SCHEDULER`` if its address or file says nothing.
    """
    assert team.scheduler is not None
    address = _address(team.scheduler)
    refuse_open_network(address, allowed=team.insecure_network)
    return address


def _address(scheduler: str | Path) -> str:
    if isinstance(scheduler, str):
        return scheduler
    try:
        return str(json.loads(scheduler.read_text())["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "E_SCHEDULER",
            f"{scheduler} does not say where a scheduler is ({error}); `dask scheduler"
            " --scheduler-file FILE` writes such a file",
        ) from error


def refuse_open_network(address: str, *, allowed: bool) -> None:
    """Whoever reaches a scheduler can run any code on its workers.

    Raises:
        UsageError: ``E_NETWORK``, unless the address is TLS or of this machine alone.
    """
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if not parts.hostname or parts.scheme not in ("tcp", "tls", "ws", "wss", "ucx"):
        raise UsageError(
            "E_SCHEDULER", f"{address!r} is no address of a scheduler; need such as tls://host:8786"
        )
    if parts.scheme in ("tls", "wss") or allowed or _is_loopback(parts.hostname):
        return
    raise UsageError(
        "E_NETWORK",
        f"{address} is open to anyone on its network, who could run any code there; give scheduler"
        " and workers TLS files and use tls://, or say --insecure-network",
    )


def _is_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False  # who cannot be found is not here; connecting will say so
    return all(ipaddress.ip_address(one[4][0]).is_loopback for one in found)
