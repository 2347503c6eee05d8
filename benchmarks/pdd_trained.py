"""What PDD-Net learns from a few hippocampi: overlap of those that it has not seen.

    taskset -c 1 python benchmarks/pdd_trained.py ../shared/data/hippocampus_msd     (Linux)

40 MR volumes of the hippocampus with two manual labels, on a grid of 48 x 64 x 48 voxels of 1 mm.
Three folds, drawn by a fixed seed, each hold back 13 volumes; OBELISK and the match's four weights
learn from the other 27, and from the first 2, 5 and 10 of these. All 156 ordered pairs of those
held back are then registered. With the same search and the same, published regulariser stand
beside it: OBELISK as its seed makes it, with the weights that training starts from and with tuned
ones; and MIND with tuned weights. ``exact`` marks the regulariser of PDD-Net's defaults, an exact
min-convolution over the labels in place of the pooled one. VoxelOpt as it comes is for orientation.
Weights are tuned on pairs of the fold's 27.

Some people gave a left and a right hippocampus, and nothing tells which: the two may lie on
different sides of a split, so that those held back are not quite strangers. The settings of the
training were chosen with held-back pairs of the first fold in view.

Everything runs on one thread. Rows are written to ``benchmarks/results/pdd_trained.csv`` as they
come. In the rows of a fold, ``dice_sd`` is over its pairs; in those of ``all`` folds, numbers are
means of the folds' and ``dice_sd`` is over the folds. A pair's seconds are those of its
registration, features included once a subject.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.voxelopt_trained import read_scans
from cohort.studies.bench.machine import cpu_name
from triton_reg import MatchSettings, Method, MindSSC, PDDNet, VoxelOpt
from triton_reg.training.folds import held_back, shuffled
from triton_reg.training.pdd_net import PDDTraining
from triton_reg.training.pdd_settings import UNTRAINED, TrainingSettings
from triton_reg.training.scans import Scans, pair_scores

RESULTS = Path(__file__).parent / "results" / "pdd_trained.csv"
COLUMNS = ("features", "training_scans", "fold", "pairs", "dice_before", "dice_mean", "dice_sd",
           "sdlogj", "folding", "s_per_pair", "training_steps", "training_min", "settings",
           "cpu", "torch", "date")  # fmt: skip
FOLDS, SEED, TUNING_PAIRS = 3, 0, 20
SIZES = (27, 10, 5, 2)
SCALES = {"mind": (10.0, 30.0, 100.0), "obelisk": (1.0, 10.0, 100.0, 1000.0)}
SPREADS = {"mind": (1.0, 3.0), "obelisk": (1.0,)}
EXACT = replace(UNTRAINED, match=MatchSettings(smoothing="exact_min_convolution"))


class Measured(NamedTuple):
    """A method on the held-back pairs of a fold."""

    pairs: int
    dice_before: float
    dice_mean: float
    dice_sd: float
    sdlogj: float
    folding: float
    s_per_pair: float


class Candidate(NamedTuple):
    """A method to be measured, and what it took to make it."""

    features: str
    method: Method
    scans: int = 0
    steps: int = 0
    minutes: float = 0.0
    settings: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--steps", type=int, default=TrainingSettings.steps)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scans = Scans.of(*read_scans(arguments.data))
    found: dict[tuple[str, int], list[tuple[Candidate, Measured]]] = defaultdict(list)
    with arguments.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for fold, rows in enumerate(held_back(len(scans.volumes), FOLDS, SEED), start=1):
            left = [row for row in shuffled(len(scans.volumes), SEED) if row not in rows]
            pairs = list(permutations(rows, 2))
            for candidate in candidates(scans, left[: max(SIZES)], arguments.steps):
                measured = measure(candidate.method, scans, pairs)
                found[candidate.features, candidate.scans].append((candidate, measured))
                write(writer, candidate, str(fold), measured)
                file.flush()
        for results in found.values():
            write(writer, *summary(results))


def candidates(scans: Scans, rows: list[int], steps: int) -> Iterator[Candidate]:
    """Everything that is measured on one fold; the trained ones one after the other."""
    training = scans.only(rows)
    settings = TrainingSettings(steps=steps, recompute=False, seed=SEED)
    yield Candidate("voxelopt", VoxelOpt())
    random = PDDTraining(training, settings).trained()
    yield Candidate("obelisk, untrained", random)
    yield tuned("obelisk, untrained, tuned", random, "obelisk", training)
    for name, method in (("mind, tuned", UNTRAINED), ("mind, exact, tuned", EXACT)):
        yield tuned(name, replace(method, features=MindSSC()), "mind", training)
    for count in SIZES:
        yield trained("obelisk, trained", training.only(range(count)), settings)
    yield trained("obelisk, exact, trained", training, settings, EXACT)
    unsupervised = replace(settings, supervision="mind", smoothness=8.0)
    yield trained("obelisk, trained by mind", training, unsupervised)


def tuned(name: str, method: PDDNet, kind: str, training: Scans) -> Candidate:
    """The scale and spread, and MIND's grid, that overlap the training pairs best."""
    order = shuffled(len(training.volumes) * (len(training.volumes) - 1), SEED)
    every = list(permutations(range(len(training.volumes)), 2))
    pairs = [every[index] for index in order[:TUNING_PAIRS]]
    # OBELISK's own grid is part of the network
    feature_steps = (1, 2) if kind == "mind" else (method.feature_step,)
    best = (-1.0, method)
    for scale, spread, step in product(SCALES[kind], SPREADS[kind], feature_steps):
        other = replace(method, weights=(scale, 1.0, spread, 1.0), feature_step=step)
        scores = pair_scores(other, training, pairs, training.structures)
        mean = statistics.mean(score.dice for score in scores)
        best = max(best, (mean, other), key=lambda one: one[0])
    chosen = best[1]
    said = f"weights {chosen.weights}, feature_step {chosen.feature_step}"
    return Candidate(name, chosen, len(training.volumes), settings=said)


def trained(
    name: str, training: Scans, settings: TrainingSettings, untrained: PDDNet = UNTRAINED
) -> Candidate:
    """PDD-Net after training on these scans."""
    work = PDDTraining(training, settings, untrained)
    losses, start = [], time.perf_counter()
    for step in range(1, settings.steps + 1):
        losses.append(work.step())
        if step % 100 == 0:
            print(f"step {step}: loss {statistics.mean(losses[-100:]):.5f}", flush=True)
    method = work.trained()
    minutes = (time.perf_counter() - start) / 60
    weights = ", ".join(f"{weight:.3f}" for weight in method.weights)
    said = f"weights ({weights}), smoothness {settings.smoothness:g}"
    return Candidate(name, method, len(training.volumes), settings.steps, minutes, said)


def measure(method: Method, scans: Scans, pairs: list[tuple[int, int]]) -> Measured:
    """Means over pairs, and the time of their registration alone."""
    scores = pair_scores(method, scans, pairs, scans.structures)
    after = [score.dice for score in scores]
    rows = sorted({row for pair in pairs for row in pair})
    start = time.perf_counter()
    with torch.inference_mode():
        prepared = {row: method.prepare(scans.volumes[[row]], scans.masks[[row]]) for row in rows}
        for fixed, moving in pairs:
            one = torch.zeros(1, 2, dtype=torch.int32)
            method.register(prepared[fixed], prepared[moving], one)
    seconds = (time.perf_counter() - start) / len(pairs)
    return Measured(
        len(pairs),
        statistics.mean(score.dice_before for score in scores),
        statistics.mean(after),
        statistics.stdev(after),
        statistics.mean(score.sdlogj for score in scores),
        statistics.mean(score.folding for score in scores),
        seconds,
    )


def summary(results: list[tuple[Candidate, Measured]]) -> tuple[Candidate, str, Measured]:
    """The mean over folds, and the sd of the folds' Dice."""
    made, measured = zip(*results, strict=True)
    means = Measured(*(statistics.mean(values) for values in zip(*measured, strict=True)))
    spread = statistics.stdev(one.dice_mean for one in measured) if len(measured) > 1 else 0.0
    minutes = statistics.mean(one.minutes for one in made)
    candidate = made[0]._replace(minutes=minutes, settings="")
    pairs = sum(one.pairs for one in measured)
    return candidate, "all", means._replace(pairs=pairs, dice_sd=spread)


def write(writer, candidate: Candidate, fold: str, measured: Measured) -> None:
    """One row, in the file and on the screen."""
    numbers = [f"{value:.4f}" for value in measured[1:-2]]
    row = (candidate.features, candidate.scans, fold, measured.pairs, *numbers,
           f"{measured.folding:.6f}", f"{measured.s_per_pair:.4f}", candidate.steps,
           f"{candidate.minutes:.1f}", candidate.settings)  # fmt: skip
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    writer.writerow((*row, cpu_name(), torch.__version__, date))
    print(*row, sep="  ", flush=True)


if __name__ == "__main__":
    main()
