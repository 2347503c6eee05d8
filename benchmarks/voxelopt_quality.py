"""Overlap and smoothness of VoxelOpt on six affinely aligned brain pairs: what was tried.

    taskset -c 1 python benchmarks/voxelopt_quality.py \\
        ../shared/data/ixi6_affine_2mm/ixi6_affine_2mm.npz

Pairs (fixed, moving): (0, 1) (1, 2) (2, 3) (3, 4) (4, 5) (5, 0), registered in turn on one thread.
Labels, 148 from an automatic segmentation, move with the nearest neighbour; Dice is the mean over
the structures that both subjects have. Seconds are those of matching, features ready, and each
pair is also timed with the published settings just before: ``time_ratio`` is the median of theirs.
Rows are written to ``benchmarks/results/voxelopt_quality.csv``.
"""

# ruff: noqa: T201

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from triton_reg import (
    Displacement,
    Features,
    Intensity,
    LevelSettings,
    LocalContrast,
    Method,
    MindSSC,
    VoxelOpt,
)
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.overlap import dice

RESULTS = Path(__file__).parent / "results" / "voxelopt_quality.csv"
# fmt: off
COLUMNS = (
    "settings", "dice_before", "dice_mean", "sdlogj", "folding", "median_s", "time_ratio",
)
# fmt: on
PAIRS = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0))
PUBLISHED = replace(VoxelOpt.parity(MindSSC()), downsample=1)
DEFAULT = VoxelOpt()
LEVEL = DEFAULT.level
SIX = LevelSettings().couplings


def tried() -> dict[str, VoxelOpt]:
    """Methods by what they change, first against the published settings, then the defaults."""
    mind, capped = PUBLISHED, LevelSettings(sigma_range=(0.2, 1.8))
    return {
        "published settings, MIND, full grid": mind,
        "published, sigma 0.2 to 1.8": replace(mind, level=capped),
        "published, sigma 0.2 to 1.8, two solves": replace(mind, level=capped, solves=(2,)),
        "default level settings, MIND": VoxelOpt(features=MindSSC()),
        "default level settings, intensity": VoxelOpt(features=Intensity()),
        "default": DEFAULT,
        "contrast over 5": with_features(widths=(5,)),
        "contrast over 5, 9": with_features(widths=(5, 9)),
        "contrast over 3, 7, 15": with_features(widths=(3, 7, 15)),
        "contrast over 5, 9, 15, 25": with_features(widths=(5, 9, 15, 25)),
        "contrast scale 0.3": with_features(scale=0.3),
        "no intensity channel": with_features(intensity=0.0),
        "six couplings": with_level(couplings=SIX),
        "couplings 0.01, 0.1, 1": with_level(couplings=(0.01, 0.1, 1.0)),
        "coupling 0.1": with_level(couplings=(0.1,)),
        "no coupled argmin": with_level(couplings=()),
        "coupling 0.1, five passes": with_level(couplings=(0.1,), passes=5),
        "two passes": with_level(passes=2),
        "four passes": with_level(passes=4),
        "sigma 0.3 to 2": with_level(sigma_range=(0.3, 2.0)),
        "cost not filtered": with_level(filter_cost=False),
        "two solves at each level": replace(DEFAULT, solves=(2,)),
        "two solves at coarse levels": replace(DEFAULT, solves=(1, 2)),
        "two solves, 0.01, 0.1, 1": replace(with_level(couplings=(0.01, 0.1, 1.0)), solves=(2,)),
        "four squarings": replace(DEFAULT, squarings=4),
    }


def with_level(**changes: object) -> VoxelOpt:
    return replace(DEFAULT, level=replace(LEVEL, **changes))  # type: ignore[arg-type]


def with_features(**changes: object) -> VoxelOpt:
    return replace(DEFAULT, features=LocalContrast(**changes))  # type: ignore[arg-type]


def prepared(method: Method, volumes: torch.Tensor) -> list[Features]:
    return [method.prepare(v[None, None], torch.ones_like(v)[None, None]) for v in volumes]


def timed(method: Method, fixed: Features, moving: Features) -> tuple[Displacement, float]:
    pair = torch.zeros(1, 2, dtype=torch.int32)
    start = time.perf_counter()
    displacement = method.register(fixed, moving, pair).displacement
    return displacement, time.perf_counter() - start


def measure(
    method: Method, published: list[Features], volumes: torch.Tensor, labels: torch.Tensor
) -> tuple[str, ...]:
    """Means over the pairs, the median seconds of a pair and their ratio to the published ones."""
    features, structures = prepared(method, volumes), labels.unique()[1:].long()
    rows, seconds, ratios = [], [], []
    for fixed, moving in PAIRS:
        _, theirs = timed(PUBLISHED, published[fixed], published[moving])
        displacement, ours = timed(method, features[fixed], features[moving])
        seconds.append(ours)
        ratios.append(ours / theirs)
        moved = displacement.warp(labels[moving][None, None].float(), interpolation="nearest")
        smooth = jacobian_measures(displacement.full())
        before = dice(labels[fixed], labels[moving], structures).nanmean().item()
        after = dice(labels[fixed], moved[0, 0].int(), structures).nanmean().item()
        rows.append((before, after, smooth.sdlogj.item(), smooth.folding.item()))
    means = (f"{mean:.4f}" for mean in np.mean(rows, axis=0))
    return *means, f"{statistics.median(seconds):.2f}", f"{statistics.median(ratios):.2f}"


def write_quality(
    description: str | None, results: Path, methods: Callable[[], Mapping[str, Method]]
) -> None:
    """Register the pairs of the arrays named on the command line with each method in turn.

    With ``--only`` these alone, and the rows of the others stay as they are.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path, help="ixi6_affine_2mm.npz")
    parser.add_argument("--only", nargs="+", help="these settings; the rows of others stay")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = methods()
    if unknown := set(arguments.only or ()) - chosen.keys():
        parser.error(f"unknown settings: {', '.join(sorted(unknown))}; known: {', '.join(chosen)}")
    rows = rows_there(results) if arguments.only else {}
    with np.load(arguments.data) as data:
        volumes = torch.from_numpy(data["vols"])
        labels = torch.from_numpy(data["labs"].astype(np.int32))
    with torch.inference_mode():
        published = prepared(PUBLISHED, volumes)
        for name in arguments.only or chosen:
            rows[name] = measure(chosen[name], published, volumes, labels)
            print(name, *rows[name], sep="  ", flush=True)
            write_rows(results, {key: rows[key] for key in [*chosen, *rows] if key in rows})


def rows_there(results: Path) -> dict[str, tuple[str, ...]]:
    """Rows that were measured before, by their settings."""
    if not results.exists():
        return {}
    with results.open(newline="") as file:
        return {name: tuple(rest) for name, *rest in list(csv.reader(file))[1:]}


def write_rows(results: Path, rows: Mapping[str, tuple[str, ...]]) -> None:
    """All rows at once, so that an interrupt leaves those of before or these."""
    beside = results.with_suffix(".new")
    with beside.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *((name, *row) for name, row in rows.items())])
    beside.replace(results)


if __name__ == "__main__":
    write_quality(__doc__, RESULTS, tried)
