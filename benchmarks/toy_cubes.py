"""Cubes that do not overlap: features learned through the optimiser bring them together.

    taskset -c 0 python -m benchmarks.toy_cubes     (Linux)

The toy task of Jena et al. (Medical Image Analysis 2025) in 3D: pairs of volumes of 32 x 32 x 32
voxels, 0 but for a cube of side 8 at a random place; half of the pairs do not overlap. A rigid map
is sought on the halved grid, by the same descent for all features. Where cubes are apart, the
squared difference of intensities does not change as they move; a U-Net is trained through the
descent, on 64 cubes and the overlap that is left. Averages over larger blocks bridge the gap too,
at this size: that is the row of intensities on levels 4 and 2.

Rows of unseen pairs are written to ``benchmarks/results/toy_cubes.csv``, and the loss over shifts
of one pair that is apart to ``benchmarks/results/toy_cubes.png``. Everything runs on one thread.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from cohort.studies.bench.machine import cpu_name
from triton_reg import DIO, DescentSettings, Intensity
from triton_reg.features.architecture import Architecture
from triton_reg.methods.level_grids import LevelGrid, placement_on
from triton_reg.ops.feature_force import feature_force
from triton_reg.training.dio import DIOTraining
from triton_reg.training.dio_settings import DIOTrainingSettings
from triton_reg.training.scans import PairScore, Scans, pair_scores

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("features", "levels", "pairs_are", "pairs", "dice_before", "dice_mean", "dice_min",
           "seconds_a_pair", "training_steps", "training_s", "cpu", "torch", "date")  # fmt: skip
CANVAS, SIDE = 32, 8
MARGIN, PLACES = 5, 14  # along each axis: with so many places half of the pairs overlap
TRAINING_CUBES, UNSEEN_PAIRS, STEPS = 64, 40, 240
TRAINED_ITERATIONS = (60,)  # cubes need not come to rest for features to learn
WINDOW = (0.0, 100.0)  # percentiles
INTENSITIES = DIO(
    features=Intensity(window=WINDOW),
    transform="rigid",
    loss="mse",
    levels=(2,),
    iterations=(200,),
    descent=DescentSettings(rate=0.25),
)
SETTINGS = DIOTrainingSettings(
    learning_rate=5e-3,
    weight_decay=0.0,
    image=0.0,
    curriculum=(0.0,),
    augmentation=0.0,
    contrast=0.0,
    window=WINDOW,
)
NETWORK = Architecture(kind="unet", levels=(2,), channels=4, width=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    learned = trained(arguments.steps)
    effort = arguments.steps, f"{time.perf_counter() - start:.0f}"
    methods = {
        ("intensities", "2"): (INTENSITIES, ("", "")),
        ("intensities", "4 2"): (
            replace(INTENSITIES, levels=(4, 2), iterations=(200, 200)),
            ("", ""),
        ),
        ("learned", "2"): (learned, effort),
    }
    unseen = cubes(2 * UNSEEN_PAIRS, seed=1)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    with (RESULTS / "toy_cubes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, (method, cost) in methods.items():
            start = time.perf_counter()
            halves = scores_of(method, unseen)
            seconds = f"{(time.perf_counter() - start) / UNSEEN_PAIRS:.3f}"
            for half, scores in zip(("overlapping", "apart"), halves, strict=True):
                row = (*name, half, len(scores), *_summary(scores), seconds, *cost)
                writer.writerow((*row, cpu_name(), torch.__version__, date))
                print(*row, sep="  ")
    _draw(unseen, learned, RESULTS / "toy_cubes.png")


def cubes(count: int, seed: int) -> Scans:
    """Volumes that are 1 in a cube and 0 elsewhere, the cube being their structure 1."""
    generator = torch.Generator().manual_seed(seed)
    corners = MARGIN + torch.randint(PLACES, (count, 3), generator=generator)
    labels = torch.zeros(count, 1, CANVAS, CANVAS, CANVAS, dtype=torch.int32)
    for volume, corner in zip(labels, corners.tolist(), strict=True):
        z, y, x = (slice(first, first + SIDE) for first in corner)
        volume[:, z, y, x] = 1
    return Scans.of(labels.float(), labels)


def trained(steps: int = STEPS) -> DIO:
    """The method with features that have learned from cubes of seed 0."""
    settings = replace(SETTINGS, steps=steps)
    quick = replace(INTENSITIES, iterations=TRAINED_ITERATIONS)
    training = DIOTraining(cubes(TRAINING_CUBES, seed=0), settings, quick, NETWORK)
    losses: list[float] = []
    for step in range(1, steps + 1):
        losses.append(training.step())
        if step % 50 == 0:
            print(f"step {step}: loss {statistics.mean(losses[-50:]):.4f}", flush=True)
    return replace(training.trained(), iterations=INTENSITIES.iterations)


def scores_of(method: DIO, scans: Scans) -> tuple[list[PairScore], list[PairScore]]:
    """Of subjects 0 and 1, 2 and 3, and so on: the pairs that overlap, and those that are apart.

    A cube that has left the volume has a Dice of 0.
    """
    pairs = [(first, first + 1) for first in range(0, len(scans.volumes), 2)]
    found = pair_scores(method, scans, pairs, scans.structures)
    scores = [one._replace(dice=0.0 if math.isnan(one.dice) else one.dice) for one in found]
    overlapping = [one for one in scores if one.dice_before > 0]
    return overlapping, [one for one in scores if one.dice_before == 0]


def _summary(scores: Sequence[PairScore]) -> tuple[str, str, str]:
    after = [one.dice for one in scores]
    before = statistics.mean(one.dice_before for one in scores)
    return f"{before:.4f}", f"{statistics.mean(after):.4f}", f"{min(after):.4f}"


def landscape(method: DIO, scans: Scans, pair: tuple[int, int], shifts: Tensor) -> Tensor:
    """Loss of shifts along the last two axes, the first being right, ``[len(shifts)] * 2``.

    Args:
        method: whose features are compared on its finest level.
        scans: cubes.
        pair: fixed and moving.
        shifts: in voxels.
    """
    levels = len(method.level_factors)
    fixed, moving = (
        method.prepare(scans.volumes[[row]], scans.masks[[row]])[levels - 1] for row in pair
    )
    grid = LevelGrid.over((CANVAS, CANVAS, CANVAS), method.level_factors[-1])
    along_first = true_shift(scans, pair)[0]
    placement = placement_on(torch.eye(3, 4)[None], grid)
    losses = torch.zeros(len(shifts), len(shifts))
    for row, second in enumerate(shifts):
        for column, third in enumerate(shifts):
            shift = torch.stack([along_first, second, third]) / grid.factor
            vectors = shift.view(1, 3, 1, 1, 1).expand(1, 3, *grid.shape).contiguous()
            losses[row, column] = feature_force(
                fixed, moving, vectors, placement, method.force
            ).loss[0]
    return losses


def true_shift(scans: Scans, pair: tuple[int, int]) -> Tensor:
    """From the fixed cube to the moving one, ``[3]`` in voxels."""
    corners = [scans.labels[row, 0].nonzero()[0] for row in pair]
    return (corners[1] - corners[0]).float()


def _draw(scans: Scans, learned: DIO, path: Path) -> None:
    pairs = [(first, first + 1) for first in range(0, len(scans.volumes), 2)]
    pair = max(pairs, key=lambda one: true_shift(scans, one)[1:].abs().min().item())
    shifts = torch.arange(-15.0, 16.0)
    truth = true_shift(scans, pair)[1:].tolist()
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    views = figure.subplots(1, 2)
    for view, (title, method) in zip(
        views, {"intensities": INTENSITIES, "learned features": learned}.items(), strict=True
    ):
        _map(view, landscape(method, scans, pair, shifts), shifts, truth)
        view.set_title(f"loss of {title}")
    views[0].legend(loc="lower left", fontsize=8)
    figure.savefig(path, dpi=90)


def _map(view: Axes, losses: Tensor, shifts: Tensor, truth: list[float]) -> None:
    first, last = shifts[0].item() - 0.5, shifts[-1].item() + 0.5
    extent = (first, last, first, last)
    image = view.imshow(losses.numpy(), origin="lower", extent=extent, cmap="viridis")
    view.plot(0, 0, "o", color="white", markeredgecolor="black", label="start")
    view.plot(truth[1], truth[0], "*", color="red", markersize=12, label="truth")
    view.set_xlabel("shift along axis 2, voxels")
    view.set_ylabel("shift along axis 1, voxels")
    view.figure.colorbar(image, ax=view, shrink=0.85)


if __name__ == "__main__":
    main()
