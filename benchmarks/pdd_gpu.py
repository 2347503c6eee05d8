"""PDD-Net on one GPU: parity first, then each kernel beside its floor, then whole searches.

    PYTHONPATH=. python benchmarks/pdd_gpu.py        (10 minutes at most on a large card)

It needs torch, triton and numpy alone. Whatever was measured is written to
``benchmarks/results/pdd_gpu_<card>.csv``, also if a later section fails. Exit codes: 0 all good, 1
a section failed (nothing is timed if the kernels and the plain-torch definitions disagree on the
card), 2 there is no GPU.

A floor is the bytes that a kernel reads and writes once, over the measured rate of a copy. That of
a whole search is the sum over its kernels.
"""

# ruff: noqa: T201

import sys
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.gpu_sections import DEVICE, bandwidth, run_benchmark
from benchmarks.gpu_timing import Report, median_launch_us, median_us
from benchmarks.pdd_gpu_cases import SEARCHES, STAGES, Search, launches, weights
from benchmarks.pdd_parity import SETTINGS, check_batch, check_fit, check_match, sides
from triton_reg.ops._triton.dense_match import dense_match
from triton_reg.ops._triton.instance_fit import instance_fit
from triton_reg.ops.dense_match import dense_match_reference
from triton_reg.ops.instance_fit import FitSettings, instance_fit_reference

BATCHES = (1, 8, 32)


def parity(report: Report) -> None:
    """Stops everything where kernels and definitions disagree."""
    del report
    for name in SETTINGS:
        print(f"  {check_match(name, (13, 17, 15), (6, 5, 19), 5, 5, DEVICE)}", flush=True)
        print(f"  {check_batch(name, (13, 17, 15), (6, 5, 19), DEVICE)}", flush=True)
    for width, channels in ((3, 1), (7, 12), (9, 30), (11, 24), (15, 16)):
        for name in ("pooled", "exact"):
            given = name, (23, 30, 27), (9, 8, 7), width, channels, DEVICE
            print(f"  {check_match(*given)}", flush=True)
    print(f"  {check_match('pooled', (64, 53, 85), (29, 29, 29), 11, 24, DEVICE)}", flush=True)
    for graphs in (False, True):
        print(f"  {check_fit((9, 11, 7), 7, 50, DEVICE, graphs)}", flush=True)


def kernels(report: Report) -> None:
    """Each kernel, for one pair and for four."""
    for search in SEARCHES:
        for pairs in (1, 4):
            for name, launch in launches(search, pairs, DEVICE).items():
                report.add(
                    "kernel",
                    f"{search.name}: {name}",
                    time_us=median_launch_us(launch),
                    shape=search.points,
                    batch=pairs,
                    bytes=pairs * search.bytes(keep=True)[name],
                )


def matches(report: Report) -> None:
    """Whole searches by batch size."""
    for search in SEARCHES:
        for pairs in BATCHES:
            fixed, moving = sides(search.shape, search.points, search.channels, pairs, DEVICE)
            given = fixed, moving, weights(DEVICE), None, search.lattice, search.settings
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            time_us = median_us(partial(dense_match, *given, False), 10)
            report.add(
                "match",
                search.name,
                time_us=time_us,
                shape=search.points,
                batch=pairs,
                bytes=pairs * search.match_bytes(keep=False),
                pairs_per_s=f"{1e6 * pairs / time_us:.0f}",
                peak_mib=f"{torch.cuda.max_memory_allocated() / 2**20:.0f}",
            )


def fitted(search: Search, pairs: int, graphs: bool) -> Callable[[], object]:
    """A match that keeps its probabilities and the fit to them."""
    fixed, moving = sides(search.shape, search.points, search.channels, pairs, DEVICE)
    step = search.share / (search.width // 2)
    settings, alphas = FitSettings(), weights(DEVICE)

    def run() -> object:
        found = dense_match(fixed, moving, alphas, None, search.lattice, search.settings, True)
        mean, _, _, likely = found
        return instance_fit(likely, mean, (step, step, step), settings, graphs=graphs)

    return run


def fits(report: Report) -> None:
    """Matches with 50 steps of instance optimisation, and both of two warps."""
    for pairs in (1, 4):
        for graphs in (True, False):
            how = "graphs" if graphs else "launches"
            runs = [fitted(search, pairs, graphs) for search in STAGES]
            times = [median_us(run, 5) for run in runs]
            names = [search.name for search in STAGES]
            for name, time_us in zip([*names, "both"], [*times, sum(times)], strict=True):
                report.add(
                    "match and fit",
                    f"{name}, {how}",
                    time_us=time_us,
                    batch=pairs,
                    pairs_per_s=f"{1e6 * pairs / time_us:.0f}",
                )


def reference(report: Report) -> None:
    """The plain-torch definitions on the same card."""
    search = STAGES[0]
    fixed, moving = sides(search.shape, search.points, search.channels, 1, DEVICE)
    given = fixed, moving, weights(DEVICE), search.lattice, search.settings
    match = partial(dense_match_reference, *given, keep_probabilities=True)
    report.add("reference", "match", time_us=median_us(match, 3), shape=search.points, batch=1)
    found, step = match(), search.share / (search.width // 2)
    label_step = step, step, step
    fit = partial(
        instance_fit_reference, found.probabilities, found.mean, label_step, FitSettings()
    )
    report.add("reference", "fit", time_us=median_us(fit, 3), shape=search.points, batch=1)


if __name__ == "__main__":
    sys.exit(run_benchmark("pdd_gpu", parity, (bandwidth, kernels, matches, fits, reference)))
