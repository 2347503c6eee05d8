"""Whole runs on real scans: what registration gains there, and that nothing fails."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import shared_data

from cohort.config.method import MethodConfig, method_config
from cohort.data.ingest import IngestSettings, ingest
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.registered_pair import warped_labels
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.engine.summary import Summary, summarise
from triton_reg import register_pair
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.overlap import dice

pytestmark = pytest.mark.slow


def register_cohort(
    source: Path, folder: Path, ingesting: IngestSettings, pairs: str, method: MethodConfig
) -> Summary:
    """Ingest a folder of scans and register some of its pairs, in this process."""
    report = ingest(source, folder / "cohort.zarr", ingesting)
    assert not report.quarantined
    assert max(report.outside.values()) == 0
    store = CohortStore.open(folder / "cohort.zarr")
    open_run(folder / "run", store, PlanSettings(method, pairs))
    run(folder / "run", store)
    return summarise(read_rows(folder / "run"))


def test_brains_aligned_by_their_centres_reach_half_overlap(tmp_path: Path) -> None:
    summary = register_cohort(
        shared_data("ixi_t1_2mm"),
        tmp_path,
        IngestSettings(grid="96x112x96@2mm", align="center"),
        "random:12",
        method_config("voxelopt", None, ["features=mind"]),
    )
    assert (summary.ok, summary.failed) == (12, 0)
    assert summary.dice_before is not None
    assert summary.dice_mean is not None
    assert summary.dice_before < 0.25
    assert summary.dice_mean >= 0.50


def test_hippocampi_reach_the_overlap_of_the_published_code(tmp_path: Path) -> None:
    summary = register_cohort(
        shared_data("hippocampus_msd"),
        tmp_path,
        IngestSettings(grid="48x64x48@1mm", align="grid"),
        "random:30",
        method_config("voxelopt", None, ["features=mind"]),
    )
    assert (summary.ok, summary.failed) == (30, 0)
    assert summary.dice_mean is not None
    assert summary.dice_mean > 0.72


def test_parity_reproduces_the_published_codes_overlap() -> None:
    """Mean Dice of six affinely aligned pairs: .593 with the published code and MIND."""
    overlap, _ = six_pairs("preset=parity", "downsample=1", "features=mind", "window=(1,99)")
    assert overlap == pytest.approx(0.593, abs=0.005)


def test_the_defaults_overlap_better_and_are_smooth() -> None:
    overlap, roughness = six_pairs()
    assert overlap >= 0.615
    assert roughness <= 0.32


def test_pdd_net_overlaps_and_is_smooth() -> None:
    overlap, roughness = six_pairs(name="pdd_net")
    assert overlap >= 0.59
    assert roughness <= 0.26


def six_pairs(*settings: str, name: str = "voxelopt") -> tuple[float, float]:
    """Mean Dice and sd of ln det J of six affinely aligned pairs."""
    method = method_config(name, None, list(settings)).build()
    with np.load(shared_data("ixi6_affine_2mm") / "ixi6_affine_2mm.npz") as data:
        volumes = torch.from_numpy(data["vols"])
        labels = torch.from_numpy(data["labs"].astype(np.int32))
    structures = labels.unique()[1:].long()
    scores, roughness = [], []
    for fixed, moving in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0)):
        with torch.inference_mode():
            displacement = register_pair(method, volumes[fixed], volumes[moving]).displacement
        moved = warped_labels(labels[moving][None, None], displacement)[0, 0]
        scores.append(dice(labels[fixed], moved, structures).nanmean().item())
        roughness.append(jacobian_measures(displacement.full()).sdlogj.item())
    return float(np.mean(scores)), float(np.mean(roughness))
