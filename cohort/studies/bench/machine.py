"""The machine that is measured: its name, its memory, and the rates that floors are made of."""

import ctypes
import os
import platform
import re
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from cohort.studies.bench.timing import wait_for

_PACKAGES = ("triton-reg", "torch", "numba", "triton")
_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_BLOCK = 64 << 20  # float32 values, far beyond any cache
_SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices


class Rates(NamedTuple):
    """What a device does at best: bytes read from memory and operations, a second."""

    bytes: float
    operations: float


def cpu_name(threads: int = 1) -> str:
    """Model and family of the processor, and how many of its threads were used."""
    used = f"{threads} thread{'s' if threads > 1 else ''}"
    info = Path("/proc/cpuinfo")
    facts: dict[str, str] = {}
    if info.is_file():
        found = re.findall(r"^(model name|cpu family)\s*: (.*)$", info.read_text(), re.MULTILINE)
        facts = dict(found)
    if not facts:
        return f"{platform.processor() or platform.machine()}, {used}"
    return f"{facts.get('model name')} family {facts.get('cpu family')}, {used}"


def describe(device: str) -> dict[str, str]:
    """What results have to say of where they come from."""
    facts = {
        "processor": cpu_name().partition(",")[0],
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "python": platform.python_version(),
    }
    if device == "cuda":
        facts["card"] = torch.cuda.get_device_name(0)
    return facts | {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str:
    with suppress(PackageNotFoundError):
        return version(package)
    return "not installed"


def measured_rates(device: torch.device) -> Rates:
    """A sum over much more than a cache holds, and a product of float32 matrices; best of nine."""
    block, side = torch.ones(_BLOCK, device=device), _SIDE[device.type]
    square = torch.rand(side, side, device=device)
    return Rates(
        4 * _BLOCK / _best(block.sum, device),
        2 * side**3 / _best(lambda: square @ square, device),
    )


def _best(call: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(9):
        wait_for(device)
        start = time.perf_counter()
        call()
        wait_for(device)
        times.append(time.perf_counter() - start)
    return min(times)


def forget_peak() -> int:
    """Give back what is free and forget the highest point so far; the bytes that are held now."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # else freed memory that the process keeps would hide what is taken
    with suppress(OSError):
        _FORGET.write_text("5")
    return psutil.Process().memory_info().rss


def peak_bytes() -> int:
    """The most memory that this process has held since :func:`forget_peak`.

    Where the system does not tell that, since the process began.
    """
    if _STATUS.is_file():
        found = re.search(r"^VmHWM:\s*(\d+)", _STATUS.read_text(), re.MULTILINE)
        if found:
            return 1024 * int(found[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def one_core() -> None:
    """Keep this process on the first core that it may use, with one thread of torch."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
