"""VoxelOpt on one GPU: parity first, then each kernel beside its roofline, then whole pairs.

    PYTHONPATH=. python benchmarks/voxelopt_gpu.py        (8 minutes at most on a large card)

It needs torch, triton and numpy alone. Whatever was measured is written to
``benchmarks/results/voxelopt_gpu_<card>.csv``, also if a later section fails. Exit codes: 0 all
good, 1 a section failed (nothing is timed if the kernels and the plain-torch definitions disagree
on the card), 2 there is no GPU.

Kernels are timed with the caches as the launch before left them: arrays smaller than the L2 cache
are read from there, so their ratio to the floor, bytes over the measured rate of a copy, may be
below 1.
"""

# ruff: noqa: T201

import itertools
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.gpu_sections import DEVICE, bandwidth, run_benchmark
from benchmarks.gpu_timing import Report, median_launch_us, median_us
from benchmarks.voxelopt_cases import Shape, kernel_cases, subject_cases
from benchmarks.voxelopt_parity import (
    check_batches,
    check_operations,
    check_pairs,
    make_case,
    plain_pyramid,
    settings_of,
)
from benchmarks.voxelopt_roofline import Storage, kernel_bytes
from triton_reg.ops._triton.layout import padded_channels
from triton_reg.ops._triton.register_pyramid import register_pyramid, stored_levels
from triton_reg.ops.pyramid_settings import PyramidSettings
from triton_reg.ops.register_pyramid import register_pyramid_reference
from triton_reg.ops.work_memory import forget_work

HALF, FULL = (96, 80, 128), (192, 160, 256)
CHANNELS, DEFAULT_CHANNELS = 14, 4  # of the published features, and of LocalContrast
PARITY_SHAPES = ((48, 40, 64), (50, 43, 61), HALF, FULL)
# pairs a launch, finest level first; None is what the method chooses
SCHEDULES: tuple[tuple[int, ...] | None, ...] = (
    None, (1, 1, 1, 1, 1), (1, 8, 64, 64, 64), (2, 16, 64, 64, 64), (4, 32, 64, 64, 64),
)  # fmt: skip


def parity(report: Report) -> None:
    """Stops everything where kernels and definitions disagree."""
    del report
    for shape in PARITY_SHAPES:
        lines = check_pairs(shape, DEVICE)
        if shape != FULL:
            lines += check_operations(shape, DEVICE)
        print("  " + "\n  ".join(lines), flush=True)
    for precision in ("exact", "fast"):
        print(f"  {check_batches((50, 43, 61), DEVICE, precision)}", flush=True)


def kernels(report: Report) -> None:
    """Each kernel of the finest level."""
    for shape, pairs in ((HALF, 1), (HALF, 2), (FULL, 1)):
        for precision in ("fast", "exact"):
            size_bytes = kernel_bytes(shape, Storage.of(precision, padded_channels(CHANNELS)))
            for name, launch in kernel_cases(shape, pairs, CHANNELS, precision, DEVICE).items():
                report.add(
                    "kernel",
                    name,
                    time_us=median_launch_us(launch),
                    shape=shape,
                    batch=pairs,
                    precision=precision,
                    bytes=pairs * size_bytes[name],
                )


def subjects(report: Report) -> None:
    """What is done once a subject or once a result."""
    for shape in (HALF, FULL):
        for name, run in subject_cases(shape, CHANNELS, DEVICE).items():
            report.add("subject", name, time_us=median_us(run), shape=shape, batch=1)


def pairs_of(shape: Shape, settings: PyramidSettings, channels: int) -> Callable[..., object]:
    """Registers a number of pairs of two subjects that are ready."""
    sides = [plain_pyramid(side[:, :channels]) for side in make_case(shape, DEVICE)]
    both = [torch.cat(level) for level in zip(*sides, strict=True)]
    features = stored_levels(both, settings)

    def run(batch: int, **options: Any) -> object:
        rows = torch.arange(2 * batch, device=DEVICE).view(batch, 2) // 3 % 2
        return register_pyramid(features, features, rows, channels, settings, **options)

    return run


def timed_pairs(run: Callable[[], object], batch: int) -> dict[str, Any]:
    """Time of a pair, pairs a second, and the memory at the highest point."""
    forget_work()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    time_us = median_us(run, 5)
    return {
        "time_us": time_us / batch,
        "batch": batch,
        "pairs_per_s": f"{1e6 * batch / time_us:.0f}",
        "peak_mib": f"{torch.cuda.max_memory_allocated() / 2**20:.0f}",
    }


def pairs(report: Report) -> None:
    """Whole pairs by schedule, with and without graphs, and the memory that they take."""
    for shape, batch in ((HALF, 64), (FULL, 8)):
        for method, precision, schedules in (
            ("released", "fast", SCHEDULES),
            ("released", "exact", SCHEDULES[:1]),
            ("default", "fast", SCHEDULES[:1]),
        ):
            channels = CHANNELS if method == "released" else DEFAULT_CHANNELS
            register = pairs_of(shape, settings_of(method, precision), channels)
            for batches, graphs in itertools.product(schedules, (True, False)):
                run = partial(register, batch, batches=batches, graphs=graphs)
                name = f"{method}, {batches or 'chosen'}, {'graphs' if graphs else 'launches'}"
                row = timed_pairs(run, batch)
                report.add("pair", name, shape=shape, precision=precision, **row)
    forget_work()


def reference(report: Report) -> None:
    """The plain-torch definition on the same card, and the kernels on one pair beside it."""
    for shape in (HALF, FULL):
        sides = [plain_pyramid(side) for side in make_case(shape, DEVICE)]
        settings = settings_of("released", "fast")
        pair = torch.zeros(1, 2, dtype=torch.int32, device=DEVICE)
        plain_us = median_us(partial(register_pyramid_reference, *sides, pair, settings), 5)
        one_us = median_us(partial(pairs_of(shape, settings, CHANNELS), 1))
        ratio = f"kernels, {plain_us / one_us:.1f} times as fast"
        for name, precision, time_us in (
            ("plain torch", "exact", plain_us),
            (ratio, "fast", one_us),
        ):
            report.add(
                "reference", name, time_us=time_us, shape=shape, batch=1, precision=precision
            )
    forget_work()


if __name__ == "__main__":
    sections = (bandwidth, kernels, subjects, pairs, reference)
    sys.exit(run_benchmark("voxelopt_gpu", parity, sections))
