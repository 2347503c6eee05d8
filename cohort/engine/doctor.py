"""What this machine offers to a run, and compiling the kernels before the first one."""

import os
import platform
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import psutil
import torch

from cohort.config.method import method_config
from cohort.data.geometry import Grid
from cohort.data.one_thread import one_thread
from cohort.engine.families import MEASURES
from cohort.engine.measure import measure_pair
from cohort.engine.registered_pair import RegisteredPair
from cohort.engine.scan import Scan
from triton_reg import Method

_SHAPE = (36, 34, 32)  # the smallest that can be halved before matching
_PACKAGES = ("triton-reg", "torch", "numba", "triton", "zarr", "distributed")


def examine() -> dict[str, str]:
    """Facts about this machine and what is installed, by name."""
    facts = {"python": platform.python_version()}
    facts |= {package: _version(package) for package in _PACKAGES}
    facts["cores"] = str(len(os.sched_getaffinity(0)))
    memory = psutil.virtual_memory()
    facts["memory"] = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    return facts | {"GPUs": _gpus()}


def warm() -> Iterator[tuple[str, float, int]]:
    """Compile every CPU kernel that a run may need; yields what was done, its seconds, of how many.

    Kernels are kept on disk beside the package, or in ``NUMBA_CACHE_DIR`` where that cannot be
    written, so that workers start with them.
    """
    fixed, moving = _scan(0), _scan(1)
    methods = _methods()
    for name, method in methods.items():
        start = time.perf_counter()
        with one_thread(), torch.inference_mode():
            _run_once(method, fixed, moving)
        yield name, time.perf_counter() - start, len(methods)


def _methods() -> dict[str, Method]:
    """Methods that between them take every compiled kernel."""
    said = {
        "voxelopt": (
            ["preset=default"],
            ["preset=parity"],
            ["preset=paper"],
            ["smoothing=isotropic"],
        ),
        "pdd_net": (["preset=default"], ["smoothing=min_convolution", "fit=true"]),
        "dio": (["preset=default"], ["features=mind", "transform=freeform"], ["transform=svf"]),
    }
    return {
        f"{name} {one[0]}": method_config(name, None, one).build()
        for name, choices in said.items()
        for one in choices
    }


def _run_once(method: Method, fixed: Scan, moving: Scan) -> None:
    fixed_features, moving_features = (method.prepare(s.volume, s.mask) for s in (fixed, moving))
    pair = torch.zeros(1, 2, dtype=torch.int32)
    found = method.register(fixed_features, moving_features, pair).displacement
    grid = Grid.axis_aligned(_SHAPE, spacing_mm=(1, 1, 1), center_mm=(0, 0, 0))
    measure_pair(RegisteredPair.of(fixed, moving, found, grid, backward=found), MEASURES)


def _scan(seed: int) -> Scan:
    """Noise with labels and a known displacement, so that every measure is taken."""
    generator = torch.Generator().manual_seed(seed)
    volume = torch.rand(1, 1, *_SHAPE, generator=generator)
    still = torch.zeros(1, 3, *_SHAPE)
    return Scan(volume, torch.ones_like(volume), (3 * volume).int(), still, still)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none that torch can use"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    missing = "" if find_spec("triton") else "; triton is missing, without which none is used"
    return ", ".join(names) + missing
