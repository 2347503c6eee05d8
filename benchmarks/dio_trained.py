"""What DIO's networks learn from a few hippocampi, and which transforms they then serve.

    cohort ingest ../shared/data/hippocampus_msd hippocampi.zarr --grid 48x64x48@1mm --align grid
    taskset -c 0 python -m benchmarks.dio_trained hippocampi.zarr     (Linux)

The tables of Jena et al., "Deep implicit optimization enables robust learnable features for
deformable image registration", Medical Image Analysis 2025, in small. 40 MR volumes of the
hippocampus with two manual labels; 27 train and 13 are held back, those of a fold of
``benchmarks/pdd_trained.py``, the first unless ``--folds`` names others. Each network is trained
once, to tell the structures, and then registers free-form and diffeomorphic; the U-Net is also
given the other transforms. ``mse`` and ``lncc`` of intensities, and MIND, stand beside it: the same
solver with the same settings. The networks of large kernels
have 8 feature maps at full resolution in place of 16, to be trained in the same time.

Some people gave a left and a right hippocampus, and nothing tells which: the two may lie on
different sides of the split, so that those held back are not quite strangers. The settings of the
training were chosen with held-back pairs in view.

The committed rows of the other networks are of the first fold and of fewer steps, about 20 minutes
each: ``--kinds unet_encoder lku_encoder --steps 1800`` and ``--kinds lku --steps 900``, with
``--pairs 48 --trained-alone --append``.

Everything runs on one thread; seconds and minutes are those of the processor. ``network_s`` is the
time of the features of two volumes, ``optimisation_s`` that of a pair; ``ndv`` is the share of the
volume that is turned inside out between voxels. All numbers but ``dice_sd`` are means over pairs.
Rows are written to ``benchmarks/results/dio_trained.csv`` as they come.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.store_scans import read_store
from cohort.studies.bench.machine import cpu_name
from triton_reg import DIO, Architecture, Displacement, MindSSC
from triton_reg.methods.dio_settings import Transform
from triton_reg.metrics.deformation import deformation_measures
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.label_surfaces import label_surfaces
from triton_reg.metrics.overlap import dice
from triton_reg.metrics.surface import surface_measures
from triton_reg.ops.resize import grid_shape
from triton_reg.training.dio import DIOTraining
from triton_reg.training.dio_settings import TRAINED_THROUGH, DIOTrainingSettings
from triton_reg.training.folds import held_back, shuffled
from triton_reg.training.scans import Scans

RESULTS = Path(__file__).parent / "results" / "dio_trained.csv"
FOLDS, SEED = 3, 0
SPACING_MM, TOLERANCE_MM = (1.0, 1.0, 1.0), 1.0
DESCENT = TRAINED_THROUGH.descent
# to tell the structures alone: when features were still to lie on codes, descending on the optimum
# as well lost some of what they had gained
SETTINGS = DIOTrainingSettings(
    steps=3600, learning_rate=2e-3, codes=1.0, warm_up=1.0, elastic=2.0, augmentation=0.05,
    contrast=0.25, seed=SEED,
)  # fmt: skip
NETWORKS = (
    Architecture(kind="unet"),
    Architecture(kind="unet_encoder"),
    Architecture(kind="lku", width=8),
    Architecture(kind="lku_encoder", width=8),
)
BOTH: tuple[Transform, ...] = ("freeform", "diffeomorphic")
OTHERS: tuple[Transform, ...] = ("svf", "bspline", "affine")


class Candidate(NamedTuple):
    """A method to be measured, and what it took to make it."""

    features: str
    method: DIO
    width: int | str = ""
    steps: int | str = ""
    minutes: float | str = ""


class Measured(NamedTuple):
    """Means over the pairs, but for ``dice_sd``."""

    dice_mean: float
    dice_sd: float
    hd95_mm: float
    sdlogj: float
    folding: float
    ndv: float
    network_s: float
    optimisation_s: float


COLUMNS = ("fold", "features", "width", "transform", "pairs", *Measured._fields, "training_steps",
           "training_min", "cpu", "torch", "date")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="hippocampi, see above")
    parser.add_argument("--steps", type=int, default=SETTINGS.steps)
    parser.add_argument("--pairs", type=int, default=156, help="of the 156 that are held back")
    parser.add_argument("--folds", type=int, nargs="+", default=[0], help="of 0, 1 and 2")
    parser.add_argument("--append", action="store_true", help="to rows that are there")
    parser.add_argument("--trained-alone", action="store_true", help="without intensities and MIND")
    parser.add_argument("--kinds", nargs="+", default=[one.kind for one in NETWORKS])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scans = read_store(arguments.store)
    networks = [one for one in NETWORKS if one.kind in arguments.kinds]
    with arguments.out.open("a" if arguments.append else "w", newline="") as file:
        writer = csv.writer(file)
        if not file.tell():
            writer.writerow(COLUMNS)
        for fold in arguments.folds:
            apart = held_back(len(scans.volumes), FOLDS, SEED)[fold]
            training = scans.only([row for row in range(len(scans.volumes)) if row not in apart])
            pairs = some_pairs(apart, arguments.pairs)
            tried = candidates(training, networks, arguments.steps, arguments.trained_alone)
            for name, candidate, measured in measured_all(tried, scans, pairs):
                write(writer, fold, candidate, name, len(pairs), measured)
                file.flush()


def measured_all(
    tried: Iterator[Candidate], scans: Scans, pairs: Sequence[tuple[int, int]]
) -> Iterator[tuple[str, Candidate, Measured]]:
    """Name of the transform, candidate and what was measured, one after the other."""
    for candidate in tried:
        if candidate.features == "before":
            yield "", candidate, before(scans, pairs)
            continue
        more = OTHERS if candidate.features == "unet" else ()
        for transform in (*BOTH, *more):
            method = replace(candidate.method, transform=transform)
            yield transform, candidate, measure(method, scans, pairs)


def some_pairs(rows: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Some ordered pairs, always the same; the first of a longer list are those of a shorter."""
    every = list(permutations(rows, 2))
    return [every[place] for place in shuffled(len(every), SEED)[:count]]


def candidates(
    training: Scans, networks: Sequence[Architecture], steps: int, trained_alone: bool
) -> Iterator[Candidate]:
    """Everything that is measured; the trained ones one after the other."""
    solver = DIO(descent=DESCENT)
    if not trained_alone:
        yield Candidate("before", solver)
        yield Candidate("intensities, mse", replace(solver, loss="mse"))
        yield Candidate("intensities, lncc", solver)
        yield Candidate("mind", replace(solver, features=MindSSC()))
    for network in networks:
        # on CPUs torch's bfloat16 gradient of a kernel that is wider than its volume, as of LKU's
        # coarsest level here, reads memory that was never written
        precision = "float32" if network.kind == "lku" else "bfloat16"
        settings = replace(SETTINGS, steps=steps, precision=precision)
        method, minutes = trained(training, network, settings)
        full = replace(solver, features=method.features, loss="mse")
        yield Candidate(network.kind, full, network.width, steps, round(minutes, 1))


def trained(
    training: Scans, network: Architecture, settings: DIOTrainingSettings
) -> tuple[DIO, float]:
    """The method after training on these scans, and the minutes that it took."""
    work = DIOTraining(training, settings, replace(TRAINED_THROUGH, descent=DESCENT), network)
    losses, start = [], time.process_time()
    for step in range(1, settings.steps + 1):
        losses.append(work.step())
        if step % 50 == 0:
            elapsed = time.process_time() - start
            mean = statistics.mean(losses[-50:])
            print(f"{network.kind}: step {step}, {elapsed:.0f} s, loss {mean:.4f}", flush=True)
    return work.trained(), (time.process_time() - start) / 60


def before(scans: Scans, pairs: Sequence[tuple[int, int]]) -> Measured:
    """Of pairs that nothing registers."""
    shape = grid_shape(scans.volumes)
    still = Displacement(torch.zeros(1, 3, *shape), shape, shape)
    return averaged([scored(still, scans, *pair) for pair in pairs], 0.0, 0.0)


def measure(method: DIO, scans: Scans, pairs: Sequence[tuple[int, int]]) -> Measured:
    """Register pairs, features once a subject."""
    with torch.no_grad():  # splines and linear maps differentiate
        rows, one = sorted({row for pair in pairs for row in pair}), torch.zeros(1, 2).int()
        start = time.process_time()
        prepared = {row: method.prepare(scans.volumes[[row]], scans.masks[[row]]) for row in rows}
        network_s = 2 * (time.process_time() - start) / len(rows)
        found, seconds = [], 0.0
        for fixed, moving in pairs:
            start = time.process_time()
            result = method.register(prepared[fixed], prepared[moving], one)
            seconds += time.process_time() - start
            found.append(scored(result.displacement, scans, fixed, moving))
    return averaged(found, network_s, seconds / len(pairs))


def scored(displacement: Displacement, scans: Scans, fixed: int, moving: int) -> list[float]:
    """Dice, HD95, sd of ln det J, folding and non-diffeomorphic volume of one pair."""
    structures, target = scans.structures, scans.labels[fixed, 0]
    warped = displacement.warp(scans.labels[[moving]].float(), interpolation="nearest")[0, 0].int()
    first, second = (label_surfaces(one, structures) for one in (target, warped))
    distances = surface_measures(first, second, SPACING_MM, TOLERANCE_MM)
    vectors = displacement.full()
    smooth, deformed = jacobian_measures(vectors), deformation_measures(vectors, SPACING_MM)
    values = (
        dice(target, warped, structures).nanmean(), distances.hd95_mm.nanmean(), smooth.sdlogj,
        smooth.folding, deformed.ndv,
    )  # fmt: skip
    return [value.item() for value in values]


def averaged(found: Sequence[Sequence[float]], network_s: float, optimisation_s: float) -> Measured:
    """Over pairs."""
    overlap, *others = zip(*found, strict=True)
    means = [statistics.mean(values) for values in others]
    spread = statistics.stdev(overlap) if len(overlap) > 1 else 0.0
    made = statistics.mean(overlap), spread, *means, network_s, optimisation_s
    return Measured._make(made)


def write(
    writer, fold: int, candidate: Candidate, transform: str, pairs: int, measured: Measured
) -> None:
    """One row, in the file and on the screen."""
    *most, folding, ndv, network_s, optimisation_s = measured
    row = (fold, candidate.features, candidate.width, transform, pairs,
           *(f"{one:.4f}" for one in most), f"{folding:.6f}", f"{ndv:.6f}", f"{network_s:.3f}",
           f"{optimisation_s:.3f}", candidate.steps, candidate.minutes)  # fmt: skip
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    writer.writerow((*row, cpu_name(), torch.__version__, date))
    print(*row, sep="  ", flush=True)


if __name__ == "__main__":
    main()
