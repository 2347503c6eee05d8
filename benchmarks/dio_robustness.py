"""What scans unlike those that a network has learned from do to registration; nothing is retrained.

    cohort ingest TRAIN train.zarr --grid 48x56x48@4mm --align affine --reference FILE
    cohort ingest HELD held.zarr --grid 48x56x48@4mm --align affine --reference FILE
    taskset -c 0 python -m benchmarks.dio_robustness held.zarr train.zarr features.safetensors

Ordered pairs of brains, drawn by a fixed seed from those held back, are registered as they are and
changed, see ``benchmarks/changed_scans.py``. DIO registers learned features, intensities and MIND;
VoxelOpt comes with its defaults; and the network of ``benchmarks/amortised.py``, which sees both
volumes at once, has learned from the same brains for ``--minutes`` of the processor. It is kept in
``--amortised``, if given, and read from there if the file exists, with the minutes it has had.

``moving cropped`` leaves the rear third of the moving volume empty, and its mask says so; features
are zero there, and with ``masked`` the methods that can be told ask for no likeness there. Overlap
then counts structures of which neither subject has a voxel in that third; ``dice_clear`` is that
number in every row, to compare with. ``moving of other size`` gives the moving volume on another
grid, its corner voxels on those of its own; the cells of methods that need one grid are empty. Dice
is always that of the unchanged labels, to the nearest voxel.

Everything runs on one thread. Numbers are means over pairs, in
``benchmarks/results/dio_robustness.csv``.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.amortised import Amortised, AmortisedSettings, PairUNet, train_amortised
from benchmarks.changed_scans import CHANGES, Side, rear_third
from benchmarks.dio_trained import some_pairs
from benchmarks.store_scans import read_store
from cohort.studies.bench.machine import cpu_name
from triton_reg import DIO, Displacement, Method, MindSSC, VoxelOpt
from triton_reg.features.pretrained import load_features
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.overlap import dice
from triton_reg.ops.resize import grid_shape
from triton_reg.training.scans import Scans

RESULTS = Path(__file__).parent / "results" / "dio_robustness.csv"


class Measured(NamedTuple):
    """Means over pairs."""

    dice: float
    dice_clear: float
    sdlogj: float
    folding: float


COLUMNS = ("change", "method", "pairs", *Measured._fields, "training_min", "cpu", "torch", "date")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("held", type=Path, help="store of brains held back")
    parser.add_argument("train", type=Path, help="store of brains that were trained on")
    parser.add_argument("features", type=Path, help="file of triton_reg's learned features")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=AmortisedSettings.minutes)
    parser.add_argument("--amortised", type=Path, help="where that network is kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network, minutes = amortised(arguments.train, arguments.minutes, arguments.amortised)
    methods: dict[str, Method | None] = {
        "before": None,
        "dio, learned": DIO(features=load_features(arguments.features), loss="mse"),
        "dio, intensities": DIO(),
        "dio, mind": DIO(features=MindSSC()),
        "voxelopt": VoxelOpt(),
        "amortised": network,
    }
    scans = read_store(arguments.held)
    pairs = some_pairs(range(len(scans.volumes)), arguments.pairs)
    found: dict[tuple[str, str], Measured] = {}
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    with arguments.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for change in CHANGES:
            for name, method in methods.items():
                measured = measure(change, method, scans, pairs)
                if measured is not None:
                    found[change, name] = measured
                numbers = said(change, measured)
                print(change, name, *numbers, sep="  ", flush=True)
                taught = f"{minutes:g}" if method is network else ""
                row = change, name, len(pairs), *numbers, taught
                writer.writerow((*row, cpu_name(), torch.__version__, date))
                file.flush()
    print_table(found, list(methods))


def amortised(store: Path, minutes: float, kept: Path | None) -> tuple[Amortised, float]:
    """The network, trained unless it is kept, and for how many minutes it was."""
    settings = AmortisedSettings(minutes=minutes)
    if kept is not None and kept.exists():
        found = torch.load(kept, weights_only=True)
        network = PairUNet(settings.width, settings.seed)
        network.load_state_dict(found["network"])
        return Amortised(network), found["minutes"]
    method, steps = train_amortised(read_store(store), settings)
    print(f"amortised: {steps} steps in {minutes:g} minutes", flush=True)
    if kept is not None:
        torch.save({"network": method.network.state_dict(), "minutes": minutes}, kept)
    return method, minutes


def measure(
    change: str, method: Method | None, scans: Scans, pairs: Sequence[tuple[int, int]]
) -> Measured | None:
    """Register changed pairs; None if the method cannot."""
    if method is not None:
        if change == "moving of other size" and not isinstance(method, DIO):
            return None
        if change == "moving cropped, masked":
            if isinstance(method, Amortised):
                return None
            method = masked(method)
    with torch.no_grad():
        rows = []
        for number, pair in enumerate(pairs):
            fixed, moving = (Side(scans.volumes[[row]], scans.masks[[row]]) for row in pair)
            generator = torch.Generator().manual_seed(number)
            fixed, moving = CHANGES[change](fixed, moving, generator)
            rows.append(scored(registered(method, fixed, moving), scans, *pair))
    return Measured._make(statistics.mean(values) for values in zip(*rows, strict=True))


def masked(method: Method) -> Method:
    """The same, comparing only what is inside both masks."""
    if isinstance(method, VoxelOpt):
        return replace(method, level=replace(method.level, masked=True))
    assert isinstance(method, DIO)
    return replace(method, masked=True)


def registered(method: Method | None, fixed: Side, moving: Side) -> Displacement:
    """Where each fixed voxel lies in the unchanged moving volume, on the grid of the fixed."""
    shape = grid_shape(fixed.volume)
    if method is None:
        return Displacement(fixed.volume.new_zeros(1, 3, *shape), shape, shape)
    given = method.prepare(*fixed), method.prepare(*moving)
    found = method.register(*given, torch.zeros(1, 2, dtype=torch.int32)).displacement
    ratio = [(own - 1) / (seen - 1) for own, seen in zip(shape, found.moving_shape, strict=True)]
    vectors = found.full() * found.vectors.new_tensor(ratio).view(1, 3, 1, 1, 1)
    return Displacement(vectors, shape, shape)


def scored(displacement: Displacement, scans: Scans, fixed: int, moving: int) -> list[float]:
    """As :class:`Measured` has it, of one pair."""
    target, source = scans.labels[[fixed]], scans.labels[[moving]]
    warped = displacement.warp(source.float(), interpolation="nearest").int()
    cut = [rear_third(one).unique() for one in (target, source)]
    clear = ~torch.isin(scans.structures, torch.cat(cut))
    overlap = dice(target[0, 0], warped[0, 0], scans.structures)
    smooth = jacobian_measures(displacement.vectors)
    values = overlap.nanmean(), overlap[clear].nanmean(), smooth.sdlogj, smooth.folding
    return [value.item() for value in values]


def said(change: str, measured: Measured | None) -> tuple[str, ...]:
    """Numbers of a row; what was cropped away has no overlap."""
    if measured is None:
        return ("",) * len(Measured._fields)
    numbers = (*(f"{value:.4f}" for value in measured[:-1]), f"{measured.folding:.6f}")
    return ("", *numbers[1:]) if "cropped" in change else numbers


def print_table(found: dict[tuple[str, str], Measured], methods: Sequence[str]) -> None:
    """Dice and sd of ln det J of every cell."""
    print(f"{'Dice (sdlogJ)':24}", *(f"{name:>18}" for name in methods))
    for change in CHANGES:
        cells = []
        for name in methods:
            one = found.get((change, name))
            overlap = one and (one.dice_clear if "cropped" in change else one.dice)
            cells.append(f"{overlap:.3f} ({one.sdlogj:.2f})" if one else "")
        print(f"{change:24}", *(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
