"""A template's files, in a world of its own: the middle of the cohort in size and pose.

``OUT/tpl-NAME`` holds them under the names that TemplateFlow gives to templates.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from cohort.config.atlas import AtlasSettings
from cohort.data.storage import to_json, write_atomic
from cohort.data.store import CohortStore
from cohort.engine.sums import Sums, read_labels
from cohort.studies.atlas.label_maps import (
    count_labels,
    label_rows,
    majority,
    write_label_maps,
)
from cohort.studies.atlas.means import mean_log_jacobian
from cohort.studies.atlas.passes import rows_of
from cohort.studies.atlas.update import NextTemplate, moved_volume, sharpened
from cohort.studies.atlas.world import World
from cohort.studies.bids_names import BIDS_VERSION, bids_label
from cohort.studies.nifti_images import write_image
from cohort.studies.published import is_published
from triton_reg import __version__
from triton_reg.metrics.overlap import dice_of_counts, label_counts

DOCUMENT = "template.json"
TABLE = "subjects.csv"
_ROWS = ("ncc", "ncc_before", "sdlogj", "folding", "displacement_mean_mm", "status", "message")


def stem_of(settings: AtlasSettings) -> str:
    """``tpl-NAME``: the folder of the files and the start of their names."""
    return f"tpl-{bids_label(settings.name)}"


def image_file(out: Path, settings: AtlasSettings) -> Path:
    """Where the template lies."""
    stem = stem_of(settings)
    return out / stem / f"{stem}_{settings.suffix}.nii.gz"


def is_current(out: Path, runs: Sequence[Path], passes: int) -> bool:
    """Whether what is published is of these runs, and all of them hold it."""
    done = document_of(out)
    same = done.get("runs") == [one.name for one in runs] and len(done["passes"]) == passes
    return same and all(map(is_published, runs))


def document_of(out: Path) -> dict[str, Any]:
    """What was published last; nothing if nothing was."""
    path = out / DOCUMENT
    return json.loads(path.read_bytes()) if path.exists() else {}


def publish(
    out: Path,
    runs: Sequence[Path],
    store: CohortStore,
    settings: AtlasSettings,
    sums: Sums,
    found: NextTemplate,
    passes: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Write a template's files; returns its document.

    Args:
        out: the template's folder.
        runs: of the last pass, and of subjects who were added to it.
        store: the cohort.
        settings: what it is made of.
        sums: of those runs.
        found: what they give.
        passes: what each pass found.

    Raises:
        StorageError: if something cannot be read or written.
    """
    world = World.of(store, settings, sums, found)
    stem = out / stem_of(settings) / stem_of(settings)
    stem.parent.mkdir(parents=True, exist_ok=True)
    image = image_file(out, settings)
    volume = moved_volume(found.mean, found.inverse, store.grid, world.grid, world.to_working_mm)
    write_image(image, sharpened(volume, settings.sharpen), world.grid, f"template {settings.name}")
    _volume_changes(stem, world, sums)
    overlaps = _labels(out, runs, stem, world, sums, store)
    write_atomic(out / TABLE, _table(runs, settings, overlaps).write_csv().encode())
    for run_dir in runs:
        world.published(image).save(run_dir)
    document = {
        "name": settings.name,
        "image": str(image.relative_to(out)),
        "runs": [run_dir.name for run_dir in runs],
        "subjects": len(settings.subjects),
        "registered": len(sums.subjects),
        "passes": list(passes),
        "to_working_mm": world.to_working_mm.tolist(),
        "grid": world.grid.to_json(),
        "version": __version__,
    }
    write_atomic(stem.parent / "template_description.json", to_json(_description(settings)))
    write_atomic(out / DOCUMENT, to_json(document))
    return document


def _volume_changes(stem: Path, world: World, sums: Sums) -> None:
    """Mean and spread of ln det J of the way from the template to the subjects, affine apart."""
    mean, spread = mean_log_jacobian(sums)
    maps = {"mean": world.brought(mean) + world.log_jacobian(), "std": world.brought(spread)}
    for name, values in maps.items():
        path = stem.with_name(f"{stem.name}_stat-{name}_desc-logjacobian_map.nii.gz")
        write_image(path, values, world.grid, f"{name} of ln det J, template to subject")


def _labels(
    out: Path, runs: Sequence[Path], stem: Path, world: World, sums: Sums, store: CohortStore
) -> dict[str, float]:
    """Write probabilities and majority; returns each subject's overlap with the majority."""
    rows = [row for run_dir in runs for row in label_rows(run_dir)]
    if not rows:
        return {}
    temporary = out / ".shares.npy"
    try:
        maps = count_labels(rows, sums.subjects, temporary)
        probabilities = stem.with_name(f"{stem.name}_probseg.nii.gz")
        labels = write_label_maps(maps, world.moved, world.grid, probabilities)
        working = torch.from_numpy(majority(maps))
    finally:
        temporary.unlink(missing_ok=True)
    segmentation = stem.with_name(f"{stem.name}_dseg.nii.gz")
    write_image(segmentation, labels, world.grid, "majority of the labels")
    names = store.settings.get("structures") or {}
    lines = ["index\tname"] + [f"{one}\t{names.get(str(one), one)}" for one in maps.structures]
    write_atomic(stem.with_name(f"{stem.name}_dseg.tsv"), "\n".join([*lines, ""]).encode())
    return _overlaps(rows, working)


def _overlaps(rows: Sequence[tuple[str, Path, int]], majority: Tensor) -> dict[str, float]:
    """Mean Dice of each subject's warped labels with the majority, over what both have."""
    found = {}
    for subject_id, tile, row in rows:
        warped = torch.from_numpy(read_labels(tile, row).astype(np.int64))
        counts = label_counts(majority, warped)
        shared = counts[:, 1:][:, counts[:2, 1:].bool().all(0)]
        found[subject_id] = dice_of_counts(shared).mean().item()
    return found


def _table(
    runs: Sequence[Path], settings: AtlasSettings, overlaps: dict[str, float]
) -> pl.DataFrame:
    """A row a subject: how well it fits, and how far from the middle of the others that is."""
    rows = rows_of(runs).rename({"moving": "subject"}).select("subject", *_ROWS)
    weights = [settings.weights.get(name, 1.0) for name in rows["subject"]]
    fits = [overlaps.get(name) for name in rows["subject"]]
    rows = rows.with_columns(
        pl.Series("weight", weights, dtype=pl.Float64), pl.Series("dice", fits, dtype=pl.Float64)
    )
    away = (pl.col("ncc").median() - pl.col("ncc")).alias("away")
    spread = 1.4826 * (pl.col("ncc") - pl.col("ncc").median()).abs().median()
    # deviations of the median: above 3 or so a subject is worth a look
    return rows.with_columns((away / spread).alias("misfit")).sort("subject")


def _description(settings: AtlasSettings) -> dict[str, Any]:
    """``template_description.json`` as TemplateFlow has it."""
    return {
        "Identifier": bids_label(settings.name),
        "Name": settings.name,
        "BIDSVersion": BIDS_VERSION,
        "TemplateFlowVersion": "1.0.0",
        "Species": "",
        "GeneratedBy": [{"Name": "triton-reg", "Version": __version__}],
    }
