"""VoxelOpt on one CPU core: the compiled kernels beside the plain-torch definitions, in one run.

    taskset -c 1 python benchmarks/voxelopt_cpu.py          (Linux)

The case is a pair of 96 x 80 x 128 voxels with 14 channels and 5 levels, features ready. Each stage
and the whole pair are first compared, then timed in turn, reference and kernel alternating. Rows
are appended to ``benchmarks/results/voxelopt_cpu.csv``.

The floor of level 0 is counted in :mod:`cohort.studies.bench.floors`: 1.3 GB and 6.9 GFLOP. It is
bytes over this machine's measured reading rate; the coarser levels add a seventh.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import torch
from torch import Tensor

from cohort.studies.bench.floors import level
from cohort.studies.bench.machine import cpu_name, forget_peak, measured_rates, peak_bytes
from triton_reg.displacement import upsample_twice
from triton_reg.ops._cpu.compose import compose, integrate
from triton_reg.ops._cpu.layout import release_scratch
from triton_reg.ops._cpu.mind_ssc import mind_ssc
from triton_reg.ops._cpu.resize import resize
from triton_reg.ops._cpu.solve_level import register_level, solve_level
from triton_reg.ops._cpu.warp import warp
from triton_reg.ops.compose import compose_reference, integrate_reference
from triton_reg.ops.level_settings import LevelSettings
from triton_reg.ops.mind_ssc import CHANNEL_OFFSETS, mind_ssc_reference
from triton_reg.ops.resize import grid_shape, resize_reference
from triton_reg.ops.solve_level import solve_level_reference
from triton_reg.ops.warp import warp_reference

RESULTS = Path(__file__).parent / "results" / "voxelopt_cpu.csv"
# fmt: off
COLUMNS: list[str] = [
    "case", "implementation", "median_ms", "p20_ms", "p80_ms", "peak_extra_mib",
    "cpu", "torch", "numba", "date",
]
# fmt: on
SHAPE, CHANNELS, LEVELS, SQUARINGS = (96, 80, 128), 14, 5, 7
Pyramid = list[Tensor]


def noise(seed: int, channels: int, step: int) -> Tensor:
    """Smooth random fields ``[1, C, *SHAPE]``; ``step`` is the distance of their knots."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, channels, *(size // step for size in SHAPE), generator=generator)
    return resize_reference(coarse, SHAPE)


def pyramid(features: Tensor) -> Pyramid:
    levels = [features]
    for _ in range(LEVELS - 1):
        depth, height, width = (size // 2 for size in levels[-1].shape[2:])
        levels.append(resize_reference(levels[-1], (depth, height, width)).contiguous())
    return levels


def register_reference(fixed: Pyramid, moving: Pyramid) -> Tensor:
    displacement, settings = None, LevelSettings()
    for target, source in zip(reversed(fixed), reversed(moving), strict=True):
        if displacement is not None:
            displacement = upsample_twice(displacement, grid_shape(target))
            source = warp_reference(source, displacement, grid_shape(target))
        velocity, _ = solve_level_reference(target, source, settings)
        step = integrate_reference(velocity, SQUARINGS)
        displacement = step if displacement is None else compose_reference(step, displacement)
    assert displacement is not None
    return displacement


def register_kernels(fixed: Pyramid, moving: Pyramid) -> Tensor:
    displacement = None
    for target, source in zip(reversed(fixed), reversed(moving), strict=True):
        if displacement is not None:
            displacement = resize(displacement, grid_shape(target))
            displacement *= 2
        displacement, _ = register_level(
            target.numpy(), source.numpy(), displacement, LevelSettings(), SQUARINGS
        )
    return torch.from_numpy(displacement)


def cases() -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    """Name of each case, its reference and its kernel, without arguments."""
    # features as those of a segmentation network, moved by a few voxels
    features = torch.softmax(3 * noise(1, CHANNELS, 6), 1)
    fixed = pyramid(features)
    moving = pyramid(warp_reference(features, 2 * noise(2, 3, 16), SHAPE))
    target, source = fixed[0], moving[0]
    velocity, _ = solve_level_reference(target, source, LevelSettings())
    coarse = resize_reference(3 * velocity, (48, 40, 64)).contiguous()
    known = upsample_twice(coarse, SHAPE)
    step = integrate_reference(velocity, SQUARINGS)
    half, offsets = (48, 40, 64), np.array(CHANNEL_OFFSETS)
    image = source[:, :1].contiguous()

    def kernel(function: Callable[..., np.ndarray], *inputs: object) -> Callable[[], Tensor]:
        arrays = [one.numpy() if isinstance(one, Tensor) else one for one in inputs]
        return lambda: torch.from_numpy(function(*arrays))

    return {
        "mind_ssc radius 1 dilation 2": (
            lambda: mind_ssc_reference(image, 1, 2),
            kernel(mind_ssc, image, 1, 2, offsets),
        ),
        "resize 14 channels to half": (
            lambda: resize_reference(source, half),
            kernel(resize, source, half),
        ),
        "upsample displacement": (
            lambda: resize_reference(coarse, SHAPE),
            kernel(resize, coarse, SHAPE),
        ),
        "warp 14 channels": (
            lambda: warp_reference(source, known, SHAPE),
            kernel(warp, source, known),
        ),
        "solve level 0": (
            lambda: solve_level_reference(target, source, LevelSettings())[0],
            kernel(lambda *inputs: solve_level(*inputs, LevelSettings())[0], target, source),
        ),
        "integrate 7 steps": (
            lambda: integrate_reference(velocity, SQUARINGS),
            kernel(integrate, velocity, SQUARINGS),
        ),
        "compose": (lambda: compose_reference(step, known), kernel(compose, step, known)),
        "whole pair, 5 levels": (
            lambda: register_reference(fixed, moving),
            lambda: register_kernels(fixed, moving),
        ),
    }


def check_parity(case: str, expected: Tensor, actual: Tensor) -> None:
    """Rounding alone may differ; where argmins decide, isolated flips at near ties are allowed."""
    error = (expected.double() - actual.double()).abs()
    if case.startswith(("solve", "whole")):
        median, flipped = error.median().item(), (error > 0.1).double().mean().item()
        if median > 1e-4 or flipped > 0.01:
            raise SystemExit(f"{case}: median error {median:.2g}, {flipped:.2%} differ by over 0.1")
    elif error.max() > 1e-4:
        raise SystemExit(f"{case}: error {error.max():.2g}")


def peak_extra_mib(function: Callable[[], Tensor]) -> float:
    """Memory at the highest point of a run beyond that before."""
    release_scratch()
    before = forget_peak()
    function()
    return (peak_bytes() - before) / 2**20


def milliseconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def measure(runs: int) -> list[dict[str, str]]:
    rows = []
    about = {
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    for case, pair in cases().items():
        check_parity(case, pair[0](), pair[1]())
        spent: dict[str, list[float]] = {"reference": [], "kernel": []}
        for _ in range(runs):
            for name, function in zip(spent, pair, strict=True):
                spent[name].append(milliseconds(function))
        for (name, times), function in zip(spent.items(), pair, strict=True):
            low, _, _, high = statistics.quantiles(times, n=5)
            numbers = zip(COLUMNS[2:5], (statistics.median(times), low, high), strict=True)
            row = {column: f"{value:.2f}" for column, value in numbers}
            row["peak_extra_mib"] = f"{peak_extra_mib(function):.0f}"
            rows.append({"case": case, "implementation": name, **row, **about})
        ratio = statistics.median(spent["reference"]) / statistics.median(spent["kernel"])
        sides = [
            f"{row['implementation']} {row['median_ms']:>8} ms +{row['peak_extra_mib']:>4} MiB"
            for row in rows[-2:]
        ]
        print(f"{case:28} {'  '.join(sides)}  ratio {ratio:.1f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each side")
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    if (cores := len(os.sched_getaffinity(0))) > 1:
        raise SystemExit(f"pin this to one core (taskset -c 1 ...): it may use {cores}")
    rows = measure(runs)
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not file.tell():
            writer.writeheader()
        writer.writerows(rows)
    floor = level(math.prod(SHAPE), CHANNELS, LevelSettings(), SQUARINGS)
    floor_ms = 8 / 7 * 1e3 * floor.bytes / measured_rates(torch.device("cpu")).bytes
    pair_ms = float(rows[-1]["median_ms"])
    rate = 8 / 7 * floor.operations / pair_ms / 1e6
    print(f"a pair's bytes take {floor_ms:.0f} ms; measured / that {pair_ms / floor_ms:.1f}")
    print(f"a pair's operations run at {rate:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
