"""Affine alignment of raw brains: seconds, overlap before any deformable step, robustness.

    taskset -c 1 python benchmarks/affine.py ../shared/data/ixi_t1_2mm

24 heads of 2 mm as scanned, 148 labels from an automatic segmentation, ingested on a grid of
96 x 112 x 96 voxels of 2 mm; the reference is the first subject. ``dice_mean`` is over all pairs
and the structures that both have, with labels moved by the nearest neighbour. ``register_s`` is the
median of registration alone, ``ingest_s`` all of ingest by subject, files and labels included, on
one thread. ``reference looked at`` is where the labels of the reference are, with 10 mm around
them, or near its centre, as for scans without labels.

Robustness: a scan is turned by up to 30 degrees about each axis, shifted by up to 60 mm along each
and resampled; registering it should find the same place. ``shift_mm`` is the mean distance between
both answers over the reference's labels and ``turn_degrees`` the rotation between them;
``robust_share`` counts the trials below 0.5 mm and 0.5 degrees. Rows are written to
``benchmarks/results/affine.csv``.
"""

# ruff: noqa: T201

import argparse
import csv
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from cohort.data.entries import SourceEntry
from cohort.data.ingest import ingest
from cohort.data.ingest_settings import IngestSettings
from cohort.data.native import Native, load_native
from cohort.data.registered import mask_of, search_settings
from cohort.data.sources import find_subjects
from cohort.data.store import CohortStore, Subject
from triton_reg import PlacedVolume, register_affine
from triton_reg.metrics.overlap import dice_of_counts, label_counts

RESULTS = Path(__file__).parent / "results" / "affine.csv"
# fmt: off
COLUMNS = (
    "case", "reference looked at", "subjects", "dice_mean", "dice_worst_subject", "register_s",
    "ingest_s", "trials", "robust_share", "shift_mm_median", "shift_mm_p95", "turn_degrees_p95",
)
# fmt: on
GRID = "96x112x96@2mm"
LARGEST_DEGREES, LARGEST_MM = 30.0, 60.0
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--trials", type=int, default=48)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    entries = find_subjects(asked.source).entries
    rows = [ingested(asked.source, align) for align in ("none", "center", "rigid", "affine")]
    natives = [load_native(entry) for entry in entries]
    for row, transform in zip(rows[2:], ("rigid", "affine"), strict=True):
        row["register_s"] = round(seconds(natives, natives[0], transform), 3)
        row |= robustness(natives, natives[0], transform, asked.trials)
        print(row)
    row, unlabelled = without_labels(entries, natives), replace(natives[0], labels=None)
    row["register_s"] = round(seconds(natives, unlabelled, "affine"), 3)
    row |= robustness(natives, unlabelled, "affine", asked.trials)
    print(row)
    rows.append(row)
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def ingested(source: Path, align: Any, **settings: Any) -> Row:
    """Overlap of all pairs of a store that is made and thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cohort.zarr"
        report = ingest(source, path, IngestSettings(grid=GRID, align=align, **settings))
        store = CohortStore.open(path)
        labels = [labels_of(store.read(name)) for name in store.subject_ids]
    overlap = all_pairs_dice([torch.from_numpy(one) for one in labels])
    row = {
        "case": align,
        "reference looked at": "labels" if align in ("rigid", "affine") else "",
        "subjects": len(labels),
        "ingest_s": round(report.elapsed_s / len(labels), 3),
        **overlap,
    }
    print(row, flush=True)
    return row


def without_labels(entries: Sequence[SourceEntry], natives: Sequence[Native]) -> Row:
    """Affine as for scans that have no labels, scored with the labels all the same."""
    with tempfile.TemporaryDirectory() as folder:
        images, path = Path(folder) / "images", Path(folder) / "cohort.zarr"
        images.mkdir()
        for entry in entries:
            shutil.copy(entry.image, images)
        report = ingest(images.parent, path, IngestSettings(grid=GRID, align="affine"))
        store = CohortStore.open(path)
        moved = []
        for native in natives:
            found = store.record(native.subject_id)["provenance"]["registration"]
            matrix = np.linalg.inv(native.grid.affine) @ found["to_native_mm"] @ store.grid.affine
            labels = affine_transform(
                labels_of(native), matrix, output_shape=store.grid.shape, order=0
            )
            moved.append(torch.from_numpy(labels))
    elapsed_s = round(report.elapsed_s / len(natives), 3)
    return {"case": "affine", "reference looked at": "centre", "subjects": len(natives),
            "ingest_s": elapsed_s, **all_pairs_dice(moved)}  # fmt: skip


def labels_of(subject: Native | Subject) -> np.ndarray:
    if subject.labels is None:
        raise SystemExit(f"{subject.subject_id} has no labels to score overlap with")
    return subject.labels.astype(np.int32)


def all_pairs_dice(labels: Sequence[torch.Tensor]) -> Row:
    """Mean over all pairs, and over the pairs of the subject that fits the others worst."""
    scores = np.zeros((len(labels), len(labels)))
    for one, other in combinations(range(len(labels)), 2):
        structures = dice_of_counts(label_counts(labels[one], labels[other]))[1:]
        scores[one, other] = scores[other, one] = float(structures.nanmean())
    by_subject = scores.sum(axis=1) / (len(labels) - 1)
    return {
        "dice_mean": round(float(by_subject.mean()), 4),
        "dice_worst_subject": round(float(by_subject.min()), 4),
    }


def placed(native: Native, mask: np.ndarray | None = None) -> PlacedVolume:
    return PlacedVolume(
        torch.from_numpy(native.volume),
        torch.tensor(native.grid.affine),
        None if mask is None else torch.from_numpy(mask),
    )


def seconds(natives: Sequence[Native], reference: Native, transform: str) -> float:
    fixed, settings = placed(reference, mask_of(reference)), search_settings(transform, 0.0)
    taken = []
    for native in natives[1:]:
        moving = placed(native)
        started = time.perf_counter()
        register_affine([fixed], [moving], settings)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def robustness(natives: Sequence[Native], reference: Native, transform: str, trials: int) -> Row:
    """How far answers move when scans are turned and shifted."""
    generator, settings = np.random.default_rng(0), search_settings(transform, 0.0)
    fixed = placed(reference, mask_of(reference))
    labelled = natives[0].grid.voxel_to_world(np.argwhere(labels_of(natives[0]) > 0)[::50])
    shifts, turns = [], []
    for trial in range(trials):
        native = natives[1 + trial % (len(natives) - 1)]
        volume, motion = turned(native, generator)
        straight, other = register_affine([fixed] * 2, [placed(native), volume], settings).matrices
        back = np.linalg.inv(motion) @ other.numpy()
        change = np.linalg.inv(straight.numpy()) @ back
        away = labelled @ change[:3, :3].T + change[:3, 3] - labelled
        shifts.append(float(np.linalg.norm(away, axis=1).mean()))
        left, _, right = np.linalg.svd(change[:3, :3])
        turns.append(float(np.rad2deg(Rotation.from_matrix(left @ right).magnitude())))
    robust = [shift < 0.5 and turn < 0.5 for shift, turn in zip(shifts, turns, strict=True)]
    return {
        "trials": trials,
        "robust_share": round(sum(robust) / trials, 3),
        "shift_mm_median": round(statistics.median(shifts), 3),
        "shift_mm_p95": round(float(np.quantile(shifts, 0.95)), 3),
        "turn_degrees_p95": round(float(np.quantile(turns, 0.95)), 3),
    }


def turned(native: Native, generator: np.random.Generator) -> tuple[PlacedVolume, np.ndarray]:
    """A scan turned about its middle, shifted and resampled, and the motion of its world."""
    motion, grid = np.eye(4), native.grid
    angles = generator.uniform(-LARGEST_DEGREES, LARGEST_DEGREES, 3)
    motion[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    motion[:3, 3] = grid.center_mm - motion[:3, :3] @ grid.center_mm
    motion[:3, 3] += generator.uniform(-LARGEST_MM, LARGEST_MM, 3)
    corners = grid.voxel_to_world(grid.corners()) @ motion[:3, :3].T + motion[:3, 3]
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = corners.min(axis=0)
    shape = np.ceil(np.ptp(corners, axis=0) / 2).astype(int) + 1
    to_native = np.linalg.inv(grid.affine) @ np.linalg.inv(motion) @ affine
    lowest = float(native.volume.min())
    volume = affine_transform(
        native.volume, to_native, output_shape=tuple(shape), order=1, cval=lowest
    )
    return PlacedVolume(torch.from_numpy(volume), torch.tensor(affine)), motion


if __name__ == "__main__":
    main()
