"""What a small network learns through VoxelOpt: overlap of hippocampi that it has not seen.

    taskset -c 0 python benchmarks/voxelopt_trained.py ../shared/data/hippocampus_msd     (Linux)

40 MR volumes of the hippocampus with two manual labels, on a grid of 48 x 64 x 48 voxels of 1 mm.
27 of them, chosen by a fixed seed, train three convolutions through VoxelOpt with soft argmins on
the halved grid; the other 13 are held back. Fixed random pairs of those are then registered by
VoxelOpt as it comes, hard argmins on the full grid, with the network's features before and after
training, with MIND and with local contrast. Some people gave a left and a right hippocampus, and
nothing tells which: the two may lie on different sides of the split, so that the held back are not
quite strangers. Everything runs on one thread. Rows are written to
``benchmarks/results/voxelopt_trained.csv``.
"""

# ruff: noqa: T201

import argparse
import copy
import csv
import datetime
import statistics
import tempfile
import time
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import torch
from torch import Tensor

from cohort.data.ingest import IngestSettings, ingest
from cohort.data.store import CohortStore
from cohort.studies.bench.machine import cpu_name
from triton_reg import (
    FeatureExtractor,
    LocalContrast,
    MindSSC,
    NetworkFeatures,
    SoftVoxelOpt,
    VoxelOpt,
    register_pair,
)
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.overlap import dice
from triton_reg.training.voxelopt import FeatureNet, TrainingSettings, train_features

RESULTS = Path(__file__).parent / "results" / "voxelopt_trained.csv"
COLUMNS = ("features", "pairs", "dice_before", "dice_mean", "dice_sd", "sdlogj", "folding",
           "training_steps", "training_s", "cpu", "torch", "date")  # fmt: skip
TRAINING_SUBJECTS, PAIRS, SEED = 27, 40, 0
STRUCTURES = torch.tensor([1, 2])  # anterior, posterior
# the couplings end near the temperature: far above it hardly any gradient passes
TRAINED_THROUGH = SoftVoxelOpt(
    voxelopt=VoxelOpt(
        downsample=2, solves=(1,), level=replace(VoxelOpt().level, couplings=(0.01, 0.03))
    ),
    recompute=False,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--steps", type=int, default=TrainingSettings.steps)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    volumes, labels = read_scans(arguments.data)
    order = torch.randperm(len(volumes), generator=torch.Generator().manual_seed(SEED))
    training, held_back = order[:TRAINING_SUBJECTS], order[TRAINING_SUBJECTS:]
    pairs = chosen_pairs(held_back)
    network = FeatureNet(seed=SEED)
    untrained = copy.deepcopy(network)
    seconds = train(network, volumes[training], labels[training], arguments.steps)
    extractors: dict[str, tuple[FeatureExtractor, tuple[object, ...]]] = {
        "network, untrained": (NetworkFeatures(network=untrained), (0, 0)),
        "network, trained": (NetworkFeatures(network=network), (arguments.steps, f"{seconds:.0f}")),
        "mind": (MindSSC(), ("", "")),
        "local contrast": (LocalContrast(), ("", "")),
    }
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    with torch.inference_mode(), RESULTS.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, (extractor, effort) in extractors.items():
            measured = measure(VoxelOpt(features=extractor), pairs, volumes, labels)
            row = (name, len(pairs), *measured, *effort, cpu_name(), torch.__version__, date)
            writer.writerow(row)
            print(*row, sep="  ")


def read_scans(folder: Path) -> tuple[Tensor, Tensor]:
    """Volumes and labels ``[N, 1, D, H, W]`` of all subjects, image centres aligned."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "cohort.zarr"
        ingest(folder, path, IngestSettings(grid="48x64x48@1mm", align="grid"))
        store = CohortStore.open(path)
        subjects = [store.read(name) for name in store.inventory().subject_digests]
    volumes = torch.stack([torch.from_numpy(one.volume) for one in subjects])
    labels = [torch.from_numpy(one.labels) for one in subjects if one.labels is not None]
    return volumes[:, None], torch.stack(labels)[:, None].int()


def chosen_pairs(subjects: Tensor) -> list[tuple[int, int]]:
    """Some ordered pairs of the subjects, always the same."""
    every = list(permutations(subjects.tolist(), 2))
    chosen = torch.randperm(len(every), generator=torch.Generator().manual_seed(SEED))[:PAIRS]
    return [every[index] for index in chosen.tolist()]


def train(network: FeatureNet, volumes: Tensor, labels: Tensor, steps: int) -> float:
    """Train the network in place; returns the seconds that it took."""
    losses: list[float] = []

    def progress(step: int, loss: float) -> None:
        losses.append(loss)
        if step % 50 == 0:
            print(f"step {step}: loss {statistics.mean(losses[-50:]):.4f}", flush=True)

    start = time.perf_counter()
    train_features(
        network, volumes, labels, TRAINED_THROUGH, TrainingSettings(steps=steps), progress
    )
    return time.perf_counter() - start


def measure(
    method: VoxelOpt, pairs: list[tuple[int, int]], volumes: Tensor, labels: Tensor
) -> list[str]:
    """Dice before and after, its sd over the pairs, sd ln det J and folding, means over pairs."""
    rows = []
    for fixed, moving in pairs:
        displacement = register_pair(method, volumes[fixed, 0], volumes[moving, 0]).displacement
        moved = displacement.warp(labels[moving, None].float(), interpolation="nearest")
        smooth = jacobian_measures(displacement.full())
        before = dice(labels[fixed], labels[moving], STRUCTURES).nanmean().item()
        after = dice(labels[fixed, 0], moved[0, 0].int(), STRUCTURES).nanmean().item()
        rows.append((before, after, smooth.sdlogj.item(), smooth.folding.item()))
    before, after, sdlogj, folding = zip(*rows, strict=True)
    means = [statistics.mean(values) for values in (before, after, sdlogj, folding)]
    means.insert(2, statistics.stdev(after))
    return [f"{value:.4f}" for value in means]


if __name__ == "__main__":
    main()
