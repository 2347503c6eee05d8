"""Overlap and smoothness of VoxelOpt's presets on six affinely aligned brain pairs.

    python benchmarks/voxelopt_quality.py ../shared/data/ixi6_affine_2mm/ixi6_affine_2mm.npz

Pairs (fixed, moving): (0, 1) (1, 2) (2, 3) (3, 4) (4, 5) (5, 0), registered in turn on one thread.
Labels, 148 from an automatic segmentation, move with the nearest neighbour; Dice is the mean over
the structures that both subjects have. Seconds are those of matching, features ready. Rows are
written to ``benchmarks/results/voxelopt_quality.csv``.
"""

# ruff: noqa: T201

import argparse
import csv
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from cohort.config import method_config
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.overlap import dice

RESULTS = Path(__file__).parent / "results" / "voxelopt_quality.csv"
COLUMNS = ("settings", "dice_before", "dice_mean", "sdlogj", "folding", "median_s")
PAIRS = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0))
SETTINGS = (
    "preset=parity downsample=1 features=mind window=1,99",
    "features=mind",
    "features=local",
)


def measure(settings: str, volumes: torch.Tensor, labels: torch.Tensor) -> tuple[object, ...]:
    """One row: the means over the pairs, and the median seconds of a pair."""
    method = method_config("voxelopt", None, settings.split()).build()
    features = [method.prepare(v[None, None], torch.ones_like(v)[None, None]) for v in volumes]
    structures, pair = labels.unique()[1:].long(), torch.zeros(1, 2, dtype=torch.int32)
    rows = []
    for fixed, moving in PAIRS:
        start = time.perf_counter()
        displacement = method.register(features[fixed], features[moving], pair).displacement
        seconds = time.perf_counter() - start
        moved = displacement.warp(labels[moving][None, None].float(), interpolation="nearest")
        smooth = jacobian_measures(displacement.full())
        before = dice(labels[fixed], labels[moving], structures).nanmean().item()
        after = dice(labels[fixed], moved[0, 0].int(), structures).nanmean().item()
        rows.append((before, after, smooth.sdlogj.item(), smooth.folding.item(), seconds))
    means = np.mean(rows, axis=0)[:4]
    return settings, *(f"{m:.4f}" for m in means), f"{statistics.median(r[4] for r in rows):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="ixi6_affine_2mm.npz")
    torch.set_num_threads(1)
    with np.load(parser.parse_args().data) as data:
        volumes = torch.from_numpy(data["vols"])
        labels = torch.from_numpy(data["labs"].astype(np.int32))
    with torch.inference_mode(), RESULTS.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for settings in SETTINGS:
            row = measure(settings, volumes, labels)
            writer.writerow(row)
            print(*row, sep="  ")


if __name__ == "__main__":
    main()
