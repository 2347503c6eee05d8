"""DIO's optimisation on one GPU: parity first, then kernels beside their floors, then whole pairs.

    PYTHONPATH=. python benchmarks/dio_gpu.py        (10 minutes at most on a large card)

It needs torch, triton and numpy alone. Whatever was measured is written to
``benchmarks/results/dio_gpu_<card>.csv``, also if a later section fails. Exit codes: 0 all good, 1
a section failed (nothing is timed if the kernels and the plain-torch definitions disagree on the
card), 2 there is no GPU.

A floor is the bytes that have to be read and written once, over the measured rate of a copy. Pairs
are timed with all their iterations, at 160 x 192 x 224 voxels and 16 channels; 40 ms is wanted.
"""

# ruff: noqa: T201

import sys
from dataclasses import replace
from functools import partial

import torch

from benchmarks.dio_gpu_cases import Run, launches, registration
from benchmarks.dio_parity import (
    FORCES,
    STEPS,
    check_descent,
    check_force,
    check_force_backward,
    check_step,
    features,
    same_grid,
)
from benchmarks.gpu_sections import DEVICE, bandwidth, run_benchmark
from benchmarks.gpu_timing import Report, median_launch_us, median_us
from triton_reg.ops.advance import Moments, StepSettings, advance_reference
from triton_reg.ops.feature_force import ForceSettings, feature_force_reference

BATCHES = (1, 4, 8)
RUN = Run()
RUNS = {"float32": RUN, "float16": replace(RUN, dtype=torch.float16)}


def parity(report: Report) -> None:
    """Stops everything where kernels and definitions disagree."""
    del report
    for name in FORCES:
        print(f"  {check_force(name, (13, 17, 15), (16, 9, 12), DEVICE)}", flush=True)
    for derivative in ("symmetric", "linear"):
        said = check_force_backward(derivative, (13, 17, 15), (16, 9, 12), DEVICE)
        print(f"  {said}", flush=True)
    for name in STEPS:
        print(f"  {check_step(name, (13, 17, 15), DEVICE)}", flush=True)
    for graphs in (False, True):
        print(f"  {check_descent((21, 17, 15), DEVICE, graphs)}", flush=True)


def kernels(report: Report) -> None:
    """Each kernel, or the few that belong together, on each level."""
    for precision, run in RUNS.items():
        for shape in run.levels:
            for name, launch in launches(run, shape, 1, DEVICE).items():
                report.add(
                    "kernel",
                    name,
                    time_us=median_launch_us(launch),
                    shape=shape,
                    batch=1,
                    precision=precision,
                    bytes=run.bytes(shape)[name],
                )


def pairs(report: Report) -> None:
    """Whole pairs by batch size, in graphs."""
    for precision, run in RUNS.items():
        for update in ("compose", "add"):
            for batch in BATCHES:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                register = registration(run, batch, update, DEVICE, graphs=True)
                time_us = median_us(register, 5)
                report.add(
                    "pairs",
                    f"{update}, {run.iterations}",
                    time_us=time_us,
                    shape=run.shape,
                    batch=batch,
                    precision=precision,
                    bytes=batch * run.descent_bytes(update),
                    pairs_per_s=f"{1e6 * batch / time_us:.1f}",
                    peak_mib=f"{torch.cuda.max_memory_allocated() / 2**20:.0f}",
                )


def launched(report: Report) -> None:
    """A pair without graphs."""
    register = registration(RUN, 1, "compose", DEVICE, graphs=False)
    report.add("launches", "compose", time_us=median_us(register, 3), shape=RUN.shape, batch=1)


def reference(report: Report) -> None:
    """The plain-torch definitions of an iteration on the same card, on the middle level."""
    shape = RUN.levels[1]
    fixed, moving = (features(shape, RUN.channels, 1, seed, DEVICE) for seed in (1, 2))
    vectors = torch.zeros(1, 3, *shape, device=DEVICE)
    given = fixed, moving, vectors, same_grid(1, DEVICE), ForceSettings()
    force = partial(feature_force_reference, *given)
    report.add("reference", "force, mse", time_us=median_us(force, 3), shape=shape, batch=1)
    sides = fixed.detach().requires_grad_(), moving.detach().requires_grad_()

    def gradients() -> tuple[torch.Tensor, ...]:
        found = feature_force_reference(*sides, *given[2:])
        return torch.autograd.grad(found.gradient, sides, vectors + 1)

    time_us = median_us(gradients, 3)
    report.add("reference", "force and gradients, mse", time_us=time_us, shape=shape, batch=1)
    settings = StepSettings(update="compose")
    step = partial(advance_reference, vectors, vectors + 1, Moments.of(vectors), settings)
    report.add("reference", "step, compose", time_us=median_us(step, 3), shape=shape, batch=1)


if __name__ == "__main__":
    sections = (bandwidth, kernels, pairs, launched, reference)
    sys.exit(run_benchmark("dio_gpu", parity, sections))
