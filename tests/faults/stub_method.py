"""A method for fault tests: a few milliseconds a pair, the same bits always, deadly where told.

It stands in for whatever a plan names, in a test's own process after :func:`install` and in the
worker processes of ``stub_driver.py``. What it does to which pair is said by the environment
variable ``STUB``: ``{"slow": [0.005, 0.02], "poison": {"00 03": "kill"}}``.
"""

import ctypes
import hashlib
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cohort.config.method import MethodConfig
from cohort.data.geometry import Grid
from cohort.data.store import CohortStore, Subject
from cohort.engine import device_health, pair_faults
from cohort.engine.breadcrumbs import Pair
from cohort.errors import DeviceLostError
from triton_reg import Displacement, Prompts, Result

_SHAPE = (8, 9, 10)
_broken: list[str] = []  # pairs after which this process has no card any more
_MARK = 1000  # a subject's first voxel is this and its number, so that the method can tell them


class Stub:
    """Moves everything by the difference of two means."""

    fingerprint = "stub"

    def prepare(self, volume: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        del mask
        number = volume[:, 0, 0, 0, 0] - _MARK
        means = volume[:, :, 1:].mean(dim=(2, 3, 4))
        shape = torch.tensor([volume.shape[2:]])
        return means, number[:, None], shape

    def register(
        self,
        fixed: tuple[Tensor, ...],
        moving: tuple[Tensor, ...],
        pairs: Tensor,
        prompts: Prompts | None = None,
    ) -> Result:
        del prompts
        vectors = []
        for one, other in pairs.tolist():
            name = " ".join(
                f"{int(side[1][row]):02d}" for side, row in ((fixed, one), (moving, other))
            )
            _act(name)
            by = float(fixed[0][one, 0] - moving[0][other, 0])
            vectors.append(torch.full((1, 3, 2, 2, 2), by))
        shape = tuple(fixed[2][0].tolist())
        return Result(Displacement(torch.cat(vectors), shape, shape))


def _act(name: str) -> None:
    """Take the time of a pair, or do what the test said of it."""
    told: dict[str, Any] = json.loads(os.environ.get("STUB", "{}"))
    low, high = told.get("slow", (0.0, 0.0))
    time.sleep(low + (high - low) * hashlib.sha256(name.encode()).digest()[0] / 255)
    poison = told.get("poison", {}).get(name)
    if poison == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif poison == "segfault":
        ctypes.string_at(0)  # in this thread; a signal would reach another one, some time later
    elif poison == "exit":
        os._exit(7)
    elif poison == "hang":
        while True:
            pass
    elif poison == "hold":
        ctypes.PyDLL(None).pause()  # for ever, and with Python's lock
    elif poison == "lost":
        _broken.append(name)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    elif poison == "memory":
        raise MemoryError
    elif poison == "raise":
        raise ValueError("no such voxel")


def install() -> None:
    """Put the stub in the place of every method, and of a card, in this process."""
    MethodConfig.build = lambda self, *, trust_code=False: Stub()  # pyright: ignore
    real = device_health.check_device

    def check_device(device: torch.device, pairs: Sequence[Pair], error: Exception) -> None:
        if _broken:
            raise DeviceLostError("E_DEVICE_LOST", "the GPU failed")
        real(device, pairs, error)

    pair_faults.check_device = check_device


def stub_cohort(path: Path, subjects: int) -> CohortStore:
    """A store of small volumes of noise without labels."""
    grid = Grid.axis_aligned(_SHAPE, (2, 2, 2), (0, 0, 0))
    store = CohortStore.create(path, grid, settings={})
    rng = np.random.default_rng(0)
    for number in range(subjects):
        volume = rng.normal(size=_SHAPE).astype(np.float32)
        volume[0, 0, 0] = _MARK + number
        store.commit(Subject(f"sub-{number:02d}", volume), {"source": None})
    return store
