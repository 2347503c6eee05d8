"""Multi-atlas segmentation of brains, leave one out: every rule against the likest single atlas.

    cohort ingest ../shared/data/ixi_t1_2mm ixi.zarr --grid 96x112x96@2mm --align affine
    PYTHONPATH=. taskset -c 0 python benchmarks/fusion_brains.py ixi.zarr /tmp/fused

Every subject is a target, all others are its atlases, registered by VoxelOpt as it comes; the 8
likest of them after registration vote. Labels are automatic segmentations, 148 structures: the
numbers say how well these are reproduced, not how well an expert is. Radius, search, alpha, beta
and power were chosen with the first four targets in view, so that the others stand in rows of their
own. ``target_cpu_s`` is the processor time of a target, registrations apart: 23 atlases read,
warped and scored, 8 fused, files written. Rows are written to
``benchmarks/results/fusion_brains.csv``.
"""

# ruff: noqa: T201

import argparse
import csv
import time
from pathlib import Path

import polars as pl

from cohort.data.store import CohortStore
from cohort.studies.bench.machine import cpu_name, peak_bytes
from cohort.studies.fusion import fuse, register_atlases
from cohort.studies.fusion_plan import plan_fusion
from triton_reg.ops.label_fusion import FusionSettings

RESULTS = Path(__file__).parent / "results" / "fusion_brains.csv"
VOTES = 8
SEEN = 4  # targets by which settings were chosen
TRIED = {
    "majority": FusionSettings("majority"),
    "local": FusionSettings("local"),
    "joint": FusionSettings("joint"),
    "local, no search": FusionSettings("local", search=0),
    "joint, no search": FusionSettings("joint", search=0),
    "joint, alpha 0.1": FusionSettings("joint", alpha=0.1),
}


def rows_of(name: str, table: pl.DataFrame, target_cpu_s: float) -> list[dict[str, object]]:
    """All targets, and those that no setting was chosen by."""
    rows = []
    for which, part in (("all", table), ("unseen", table.slice(SEEN))):
        rows.append({
            "rule": name,
            "targets": which,
            "count": len(part),
            "atlases": VOTES,
            **{
                f"{column}_{kind}": round(getattr(part[column], kind)(), 4)
                for column in ("fused", "likest_dice", "best_dice")
                for kind in ("mean", "std")
            },
            "least_gain": round((part["fused"] - part["likest_dice"]).min(), 4),  # type: ignore[arg-type]
            "target_cpu_s": round(target_cpu_s, 2),
            "peak_mib": peak_bytes() >> 20,
            "cpu": cpu_name(),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--run", type=Path, help="of all pairs, with all displacements kept")
    asked = parser.parse_args()
    store = CohortStore.open(asked.store)
    everyone = plan_fusion(store)
    run_dir = asked.run or register_atlases(store, asked.out, everyone)
    rows = []
    for name, settings in TRIED.items():
        task = plan_fusion(store, settings=settings, select=VOTES)
        folder = asked.out / name.replace(", ", "-").replace(" ", "-")
        start = time.process_time()
        report = fuse(store, run_dir, folder, task)
        target_cpu_s = (time.process_time() - start) / max(report.now, 1)
        rows += rows_of(name, report.table, target_cpu_s)
        print(rows[-2], flush=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
