"""Surface distances of 148 brain structures: compiled, plain torch, and DeepMind's package.

    PYTHONPATH=. taskset -c 0 python benchmarks/surface.py \\
        ../shared/data/ixi6_affine_2mm/ixi6_affine_2mm.npz

Label maps of 96 x 112 x 96 voxels of 2 mm, pairs (fixed, moving) (0, 1) (1, 2) (2, 3) (3, 4) (4, 5)
(5, 0) as they come, on one thread, kernels compiled. Each way starts from two label maps and ends
with HD95, HD, both mean distances and surface Dice of every structure; ``fixed cached`` starts from
the fixed subject's surfaces and the warped labels. The ways take turns pair by pair: ``times`` is
the median of the pairs' ratios to the package, ``largest_difference`` (mm, or a share) the greatest
difference from it over all measures, structures and pairs. Rows are written to
``benchmarks/results/surface.csv``.
"""

# ruff: noqa: T201

import argparse
import csv
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from surface_distance import metrics as package
from torch import Tensor

from cohort.studies.bench.machine import cpu_name
from triton_reg.metrics.label_surfaces import label_surfaces, label_surfaces_reference
from triton_reg.metrics.surface import (
    SurfaceMeasures,
    surface_measures,
    surface_measures_reference,
)

RESULTS = Path(__file__).parent / "results" / "surface.csv"
COLUMNS = ("way", "pairs", "structures", "median_s", "times", "largest_difference", "cpu")
PAIRS = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0))
SPACING, TOLERANCE = (2.0, 2.0, 2.0), 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description="surface distances of brain pairs")
    parser.add_argument("arrays", type=Path)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", DeprecationWarning)  # names that scipy has moved
    with np.load(parser.parse_args().arrays) as arrays:
        maps = torch.from_numpy(arrays["labs"])
    structures = maps.unique()[1:].long()
    seconds: dict[str, list[float]] = {}
    differences: dict[str, float] = {}
    for fixed, moving in PAIRS:
        expected = None
        for way, call in ways(maps[fixed], maps[moving], structures).items():
            call()
            started = time.perf_counter()
            found = call()
            seconds.setdefault(way, []).append(time.perf_counter() - started)
            expected = found if expected is None else expected
            differences[way] = max(differences.get(way, 0.0), difference(found, expected))
    write(seconds, differences, len(structures))


def ways(fixed: Tensor, moving: Tensor, structures: Tensor) -> dict[str, Callable[[], Tensor]]:
    """What is timed, by name; each returns ``[5, M]``. The package comes first."""
    cached = label_surfaces(fixed, structures)

    def measured(surfaces: Callable, measures: Callable) -> Tensor:
        both = (surfaces(labels, structures) for labels in (fixed, moving))
        return compared(measures(*both, SPACING, TOLERANCE))

    def with_cached() -> Tensor:
        warped = label_surfaces(moving, structures)
        return compared(surface_measures(cached, warped, SPACING, TOLERANCE))

    return {
        "surface-distance 0.1": lambda: by_package(fixed, moving, structures),
        "plain torch": lambda: measured(label_surfaces_reference, surface_measures_reference),
        "compiled": lambda: measured(label_surfaces, surface_measures),
        "compiled, fixed cached": with_cached,
    }


def by_package(fixed: Tensor, moving: Tensor, structures: Tensor) -> Tensor:
    rows = []
    for value in structures.tolist():
        one, other = (fixed == value).numpy(), (moving == value).numpy()
        if not (one.any() and other.any()):
            rows.append((np.nan,) * 5)
            continue
        found = package.compute_surface_distances(one, other, SPACING)
        rows.append((
            package.compute_robust_hausdorff(found, 95),
            package.compute_robust_hausdorff(found, 100),
            *package.compute_average_surface_distance(found),
            package.compute_surface_dice_at_tolerance(found, TOLERANCE),
        ))  # fmt: skip
    return torch.tensor(rows, dtype=torch.float64).T


def compared(measures: SurfaceMeasures) -> Tensor:
    """The measures in the package's order."""
    hd95, hd, _, to_warped, to_fixed, dice = measures
    return torch.stack([hd95, hd, to_warped, to_fixed, dice])


def difference(found: Tensor, expected: Tensor) -> float:
    if not torch.equal(found.isnan(), expected.isnan()):
        raise SystemExit("the ways disagree on which structures both subjects have")
    return (found - expected).nan_to_num().abs().max().item()


def write(seconds: dict[str, list[float]], differences: dict[str, float], structures: int) -> None:
    slowest = next(iter(seconds.values()))
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for way, taken in seconds.items():
            ratios = [theirs / ours for theirs, ours in zip(slowest, taken, strict=True)]
            row = (
                way, len(taken), structures, f"{statistics.median(taken):.4f}",
                f"{statistics.median(ratios):.1f}", f"{differences[way]:.1e}", cpu_name(),
            )  # fmt: skip
            writer.writerow(row)
            print(row)


if __name__ == "__main__":
    main()
