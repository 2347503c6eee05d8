"""A template of brains: what it gains on subjects that it was not made of, and beside ANTsPy's.

    cohort ingest ../shared/data/ixi_t1_2mm ixi.zarr --grid 96x112x96@2mm --align affine
    PYTHONPATH=. taskset -c 0 python benchmarks/atlas_brains.py ixi.zarr --ants      (Linux)

The template is made of the first 18 of the 24 scans, in 4 iterations, by VoxelOpt as it comes, in a
plain loop on one core. The other six are registered to each template, as `cohort register --pairs
to:FILE` does, and their labels are carried there: overlap is the mean Dice of the 15 pairs of them
over the structures that both have. The labels are those of an automatic segmentation. ``affine`` is
where ingest left them, ``affine mean`` their registration to the mean of the 18 where ingest left
those. Sharpness is the mean squared gradient inside the foreground.

``starts``: five templates from five subjects, each registered to each of the others: rigidly, then
by DIO, which follows fractions of a voxel (VoxelOpt's search leaves what nearly fits where it is);
the distance is the mean length of the displacement inside the foreground.

``--ants`` makes the template of ANTsPy of the same 18 images as they lie in the store, in
``.venv-peers`` (`make peers`), with 4 iterations and otherwise as it comes, on one thread; it takes
half an hour or more. Seconds are those of the processor.

Rows are written to ``benchmarks/results/atlas_brains.csv``.
"""

# ruff: noqa: T201

import argparse
import datetime
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results_table import renewed
from cohort.config.atlas import AtlasSettings
from cohort.config.sums import SumSettings
from cohort.data.nifti import read_nifti, write_nifti
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.run import run
from cohort.engine.sums import read_labels
from cohort.studies.atlas.build import build_template
from cohort.studies.atlas.label_maps import label_rows
from cohort.studies.atlas.one_pass import Build
from cohort.studies.atlas.start import affine_mean_volume
from cohort.studies.atlas.update import sharpness
from cohort.studies.bench.machine import cpu_name
from triton_reg import (
    DIO,
    AffineSettings,
    Displacement,
    PlacedVolume,
    register_affine,
    register_pair,
)
from triton_reg.metrics.overlap import dice

RESULTS = Path(__file__).parent / "results" / "atlas_brains.csv"
PEERS = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"
MADE_OF, ITERATIONS, STARTS = 18, 4, 5
Row = tuple[str, str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="the 24 brains, see above")
    parser.add_argument("--ants", action="store_true", help="ANTsPy's template too")
    parser.add_argument("--ants-image", type=Path, help="that template, made before")
    arguments = parser.parse_args()
    store = CohortStore.open(arguments.store)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    columns = ("template", "measure", "value", "cpu", "date")
    with renewed(RESULTS, columns) as add, tempfile.TemporaryDirectory() as folder:
        for row in measured(store, Path(folder), arguments):
            print(*row, sep="  ", flush=True)
            add((*row[:2], f"{row[2]:.5f}", cpu_name(), date))


def measured(store: CohortStore, folder: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    made_of, held_out = store.subject_ids[:MADE_OF], store.subject_ids[MADE_OF:]
    settings = AtlasSettings(subjects=made_of)
    before = [store.read(one).labels for one in held_out]
    yield "affine", "overlap", pairwise_overlap([one for one in before if one is not None])
    mean = affine_mean_volume(store, settings, 1)
    image = folder / "affine-mean.nii.gz"
    write_nifti(image, mean, store.grid.affine)
    yield "affine mean", "overlap", overlap_through(store, image, held_out, folder / "mean")
    start = time.process_time()
    made = build_template(Build(store, folder / "ours", settings), ITERATIONS)
    yield "ours", "cpu_s", time.process_time() - start
    for one in made["passes"]:
        for name in ("drift_voxels", "drift_mm", "left_voxels", "moved_voxels", "ncc", "sdlogj"):
            yield "ours", f"{name} in pass {one['pass']}", one[name]
    image = folder / "ours" / made["image"]
    yield "ours", "overlap", overlap_through(store, image, held_out, folder / "through")
    mask = mean > mean.mean()
    plain = sharpness(mean, mask, store.grid)
    yield "affine mean", "sharpness", plain
    yield "ours", "sharpness", made["passes"][-1]["sharpness"]
    yield "ours", "sharpness over the affine mean's", made["passes"][-1]["sharpness"] / plain
    yield from distances_of_starts(store, made_of, folder)
    yield from beside_ants(store, made_of, held_out, folder, arguments)


def overlap_through(
    store: CohortStore, template: Path, subjects: tuple[str, ...], run_dir: Path
) -> float:
    """Of the subjects' labels on the template that they are registered to."""
    plan = PlanSettings(pairs=f"to:{template}", sums=SumSettings(detail=True), tile_size=1)
    open_run(run_dir, store, plan)
    run(run_dir, store)
    rows = [row for row in label_rows(run_dir) if row[0] in subjects]
    return pairwise_overlap([read_labels(tile, row) for _, tile, row in rows])


def pairwise_overlap(labels: list[np.ndarray]) -> float:
    """Mean Dice of all pairs of label maps over what both have."""
    found = []
    for one, other in combinations([torch.from_numpy(one.astype(np.int32)) for one in labels], 2):
        shared = np.intersect1d(one.unique(), other.unique())
        found.append(dice(one, other, torch.from_numpy(shared[shared > 0])).nanmean().item())
    return statistics.mean(found)


def distances_of_starts(
    store: CohortStore, made_of: tuple[str, ...], folder: Path
) -> Iterator[Row]:
    """How far templates from several starts lie apart."""
    volumes = []
    for start in made_of[:: max(1, len(made_of) // STARTS)][:STARTS]:
        out = folder / f"from-{start}"
        settings = AtlasSettings(subjects=made_of, start=start)
        made = build_template(Build(store, out, settings), ITERATIONS)
        volumes.append(read_nifti(out / made["image"]))
    found = [distance_mm(one, other) for one, other in combinations(volumes, 2)]
    yield "starts", "largest distance, mm", max(found)
    yield "starts", "mean distance, mm", statistics.mean(found)


def distance_mm(one: Any, other: Any) -> float:
    """Mean length of the displacement between two images after rigid alignment, mm."""
    fixed, moving = (torch.from_numpy(image.data)[None, None] for image in (one, other))
    placed = [
        PlacedVolume(torch.from_numpy(image.data), torch.from_numpy(image.grid.affine.copy()))
        for image in (one, other)
    ]
    rigid = register_affine([placed[0]], [placed[1]], AffineSettings(transform="rigid"))
    matrix = np.linalg.inv(other.grid.affine) @ rigid.matrices[0].numpy() @ one.grid.affine
    voxels = np.indices(one.grid.shape, dtype=np.float64).reshape(3, -1)
    away = matrix[:3, :3] @ voxels + matrix[:3, 3:] - voxels
    moved = torch.from_numpy(away.reshape(1, 3, *one.grid.shape).astype(np.float32))
    aligned = Displacement(moved, one.grid.shape, other.grid.shape).warp(moving, padding="border")
    found = register_pair(DIO(), fixed[0, 0], aligned[0, 0]).displacement.full()[0].numpy()
    mask = one.data > one.data.mean()
    lengths = np.linalg.norm(found[:, mask] * np.array(one.grid.spacing_mm)[:, None], axis=0)
    return float(lengths.mean())


def beside_ants(
    store: CohortStore,
    made_of: tuple[str, ...],
    held_out: tuple[str, ...],
    folder: Path,
    arguments: argparse.Namespace,
) -> Iterator[Row]:
    """ANTsPy's template: its time, and what it is worth to the same six."""
    image = arguments.ants_image or folder / "antspy.nii.gz"
    if arguments.ants:
        images = folder / "images"
        images.mkdir()
        for one in made_of:
            write_nifti(images / f"{one}.nii.gz", store.read(one).volume, store.grid.affine)
        script = Path(__file__).with_name("atlas_ants.py")
        command = [str(PEERS), str(script), str(images), str(image), str(ITERATIONS)]
        subprocess.run(command, check=True, capture_output=True)
    if image.exists():
        spent = json.loads(Path(f"{image}.json").read_text())
        yield f"ANTsPy {spent['version']}", "cpu_s", spent["cpu_s"]
        yield "ANTsPy", "overlap", overlap_through(store, image, held_out, folder / "antspy")


if __name__ == "__main__":
    main()
