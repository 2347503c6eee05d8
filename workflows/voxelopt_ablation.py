"""The ablations of the VoxelOpt paper on any cohort with labels.

    python workflows/voxelopt_ablation.py cohort.zarr ablation --pairs random:40 --workers 2

Table 2 of Zhang et al. (2025): features, search radius, adaptive filter, cost filter, each with
each; and 1 to 9 iterations of coupled argmins. "Not adaptive" is the released constant kernel, as
in the paper. Every row is a run below the output folder: the same command again goes on where it
was. Writes ``ablation.csv`` and prints it.
"""

# ruff: noqa: T201

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import polars as pl

from cohort.config.method import MethodConfig, method_config
from cohort.data.store import CohortStore
from cohort.endings import ended
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.engine.summary import summarise
from cohort.engine.team import Team

# each iteration pulls about three times harder, on from the six of the released code
COUPLINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Variant(NamedTuple):
    """One row of the tables."""

    features: str
    radius: int = 1
    adaptive: bool = True
    cost_filter: bool = True
    iterations: int = 6

    def method(self, common: list[str]) -> MethodConfig:
        own = [
            f"features={self.features}",
            f"radius={self.radius}",
            f"smoothing={'adaptive' if self.adaptive else 'released'}",
            f"filter_cost={self.cost_filter}",
            f"couplings=[{','.join(map(str, COUPLINGS[: self.iterations]))}]",
        ]
        return method_config("voxelopt", None, [*common, *own])


def variants(features: list[str], radii: list[int]) -> Iterator[Variant]:
    switch = (False, True)
    yield from (Variant(*row) for row in product(features, radii, switch, switch))
    yield from (Variant(features[-1], iterations=n) for n in range(1, 10) if n != 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", default="all", help="as for cohort register")
    parser.add_argument("--workers", type=int, default=0, help="0 is a plain loop")
    parser.add_argument("--features", nargs="+", default=["intensity", "mind"])
    parser.add_argument("--radius", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--set", nargs="+", default=["preset=parity", "window=1,99"])
    asked = parser.parse_args()
    store, table = CohortStore.open(asked.store), []
    for variant in variants(asked.features, asked.radius):
        run_dir = asked.out / "-".join(map(str, variant))
        settings = PlanSettings(variant.method(asked.set), asked.pairs, metrics=("surface",))
        open_run(run_dir, store, settings)
        run(run_dir, store, team=Team(asked.workers))
        rows = read_rows(run_dir)
        summary = summarise(rows)
        measured = {
            "dice": summary.dice_mean,
            "hd95_mm": summary.hd95_mm_mean,
            "sdlogj": summary.sdlogj,
            "folding": summary.folding,
        }
        table.append({**variant._asdict(), **measured, "register_s": rows["register_s"].median()})
        print(*variant, "Dice", summary.dice_mean, flush=True)
    frame = pl.DataFrame(table)
    frame.write_csv(asked.out / "ablation.csv")
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160, float_precision=4):
        print(frame)


if __name__ == "__main__":
    ended(main)
