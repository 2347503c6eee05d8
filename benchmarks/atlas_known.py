"""Whether a template has the mean shape of a population whose mean shape is known.

    PYTHONPATH=. taskset -c 0 python benchmarks/atlas_known.py

A synthetic population: each subject is the same head, moved by its own known diffeomorphism. The
mean of where the head's points lie in the subjects is the mean shape; its labels are known at any
position. The template is built by VoxelOpt as it comes, in 4 iterations, from the voxel mean and
from the subject that is furthest from the mean shape (the skewed start). The error is the mean
distance between the surfaces of the template's labels (the majority of the subjects') and those of
the mean shape, over all structures, in voxels. Beside it stands the majority of the labels where
the subjects lie, and of a template made with the affine part alone: none of these subjects has any.

Rows are written to ``benchmarks/results/atlas_known.csv``.
"""

# ruff: noqa: T201

import argparse
import datetime
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.results_table import renewed
from cohort.config.atlas import AtlasSettings
from cohort.config.method import MethodConfig
from cohort.data.ingest import IngestSettings, ingest
from cohort.data.nifti import read_nifti
from cohort.data.phantom import sample_head
from cohort.data.store import CohortStore
from cohort.data.synth import SynthSettings, synthesise_population
from cohort.studies.atlas.build import build_template
from cohort.studies.atlas.one_pass import Build
from cohort.studies.bench.machine import cpu_name
from triton_reg import Displacement
from triton_reg.metrics.label_surfaces import label_surfaces
from triton_reg.metrics.surface import surface_measures

RESULTS = Path(__file__).parent / "results" / "atlas_known.csv"
ITERATIONS = 4
VOXELOPT = MethodConfig()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=16)
    subjects = parser.parse_args().subjects
    settings = SynthSettings(subjects=subjects, shape=(96, 108, 96), spacing_mm=1.6667)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    columns = ("start", "subjects", "error_voxels", "worst_voxels", "cpu", "date")
    with renewed(RESULTS, columns) as add, tempfile.TemporaryDirectory() as folder:
        for start, mean, worst in measured(Path(folder), settings):
            row = (start, subjects, f"{mean:.4f}", f"{worst:.4f}", cpu_name(), date)
            print(*row, sep="  ", flush=True)
            add(row)


def measured(
    folder: Path, settings: SynthSettings, method: MethodConfig = VOXELOPT
) -> Iterator[tuple[str, float, float]]:
    """What the template starts from, and its mean and worst error over the structures."""
    synthesise_population(folder / "nifti", settings)
    ingest(folder / "nifti", folder / "cohort.zarr", IngestSettings(align="none"))
    store = CohortStore.open(folder / "cohort.zarr")
    truth, lengths = mean_shape(store)
    yield "none: majority where they lie", *error_voxels(majority(store), truth)
    skewed = max(lengths, key=lambda name: lengths[name])
    for start in ("mean", skewed):
        out = folder / f"from-{start}"
        chosen = AtlasSettings(subjects=store.subject_ids, start=start, method=method)
        build_template(Build(store, out, chosen), ITERATIONS)
        found = read_nifti(out / "tpl-template" / "tpl-template_dseg.nii.gz", content="labels")
        name = "mean" if start == "mean" else "skewed"
        yield name, *error_voxels(found.data.astype(np.int32), truth)


def mean_shape(store: CohortStore) -> tuple[np.ndarray, dict[str, float]]:
    """Labels of the mean shape ``[D, H, W]``, and how far each subject is from it on average."""
    fields = {name: store.read(name).from_template for name in store.subject_ids}
    mean = np.mean([one for one in fields.values() if one is not None], axis=0)
    lengths = {
        name: float(np.linalg.norm(one - mean, axis=0).mean())
        for name, one in fields.items()
        if one is not None
    }
    shape = store.grid.shape
    moved = Displacement(torch.from_numpy(mean)[None], shape, shape)
    inverse = moved.inverse(iterations=60, tolerance=1e-3).displacement.vectors[0].numpy()
    voxels = np.indices(shape, dtype=np.float64).reshape(3, -1)
    head = voxels + inverse.reshape(3, -1)
    _, labels = sample_head(store.grid.voxel_to_world(head.T).T)
    return labels.reshape(shape).astype(np.int32), lengths


def majority(store: CohortStore) -> np.ndarray:
    """Of the labels where the subjects lie."""
    labels = [store.read(name).labels for name in store.subject_ids]
    stacked = np.stack([one for one in labels if one is not None])
    counts = np.stack([(stacked == value).sum(axis=0) for value in range(stacked.max() + 1)])
    return counts.argmax(axis=0).astype(np.int32)


def error_voxels(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Mean and largest of the structures' mean surface distances; absent ones count as 10."""
    structures = torch.from_numpy(np.unique(truth[truth > 0]).astype(np.int64))
    surfaces = [label_surfaces(torch.from_numpy(one), structures) for one in (found, truth)]
    found_to = surface_measures(surfaces[0], surfaces[1], (1.0, 1.0, 1.0), 1.0)
    distances = (found_to.to_warped_mm + found_to.to_fixed_mm) / 2
    distances = distances.nan_to_num(10.0)
    return distances.mean().item(), distances.max().item()


if __name__ == "__main__":
    main()
