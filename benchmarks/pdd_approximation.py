"""How far PDD-Net's pooled min-convolution is from the exact one.

    PYTHONPATH=. python benchmarks/pdd_approximation.py \\
        ../shared/data/ixi6_affine_2mm/ixi6_affine_2mm.npz

Costs of three brain pairs (MIND, control points 6 voxels apart, 9 and 11 labels an axis as far as
10 voxels), smoothed over the labels of each control point by pooling (a minimum and two means), and
by the lower envelope of parabolas of several curvatures. Constants make no difference, so both are
compared without their mean over the labels: ``rms`` is the root of the mean squared difference,
``share`` that over the exact result's own standard deviation, ``same_best`` how often both have one
cheapest label, ``nearby`` how often the two lie within one step. Rows are written to
``benchmarks/results/pdd_approximation.csv``.
"""

# ruff: noqa: T201

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from triton_reg import EvenSearch, MindSSC
from triton_reg.ops.dense_cost import dense_cost_reference
from triton_reg.ops.lattice import Lattice
from triton_reg.ops.min_convolution import (
    exact_min_convolution_reference,
    pooled_min_convolution_reference,
)
from triton_reg.ops.resize import resize

RESULTS = Path(__file__).parent / "results" / "pdd_approximation.csv"
COLUMNS = ("width", "curvature", "rms", "share", "same_best", "nearby")
PAIRS = ((0, 1), (2, 3), (4, 5))
CURVATURES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # of costs between 0 and 12


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("arrays", type=Path)
    with np.load(parser.parse_args().arrays) as arrays:
        volumes = torch.from_numpy(arrays["vols"]).float()[:, None]
    features = MindSSC()(volumes, torch.ones_like(volumes))
    rows = []
    for width in (9, 11):
        costs = torch.cat([cost(features[i : i + 1], features[j : j + 1], width) for i, j in PAIRS])
        pooled = centred(pooled_min_convolution_reference(costs, width))
        for curvature in CURVATURES:
            exact = centred(exact_min_convolution_reference(costs, width, curvature))
            rows.append((width, curvature, *compared(pooled, exact, width)))
            print(*rows[-1], flush=True)
    with RESULTS.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def cost(fixed: Tensor, moving: Tensor, width: int) -> Tensor:
    size = tuple(fixed.shape[2:])
    search = EvenSearch(spacing=6, width=width, extent=10)
    lattice = Lattice.corner_aligned(size, search.points(size), width, search.reach(size))
    return dense_cost_reference(resize(fixed, lattice.points), moving, lattice)


def centred(message: Tensor) -> Tensor:
    return message - message.mean(1, keepdim=True)


def compared(pooled: Tensor, exact: Tensor, width: int) -> tuple[str, ...]:
    rms = (pooled - exact).square().mean().sqrt()
    best = [
        torch.stack(torch.unravel_index(one.argmin(1), (width,) * 3)) for one in (pooled, exact)
    ]
    apart = (best[0] - best[1]).abs().amax(0)
    numbers = rms, rms / exact.std(), (apart == 0).float().mean(), (apart <= 1).float().mean()
    return tuple(f"{number.item():.4f}" for number in numbers)


if __name__ == "__main__":
    main()
