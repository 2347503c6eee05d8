"""Runs of the engine on the GPU that is not there. Run by ``test_cuda_paths.py``."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from helpers import tiny_cohort
from pretend_cuda import gpu

from cohort.config.dio import DioSettings
from cohort.config.method import MethodConfig
from cohort.config.pdd_net import PddNetSettings
from cohort.config.sums import SumSettings
from cohort.config.voxelopt import VoxelOptSettings
from cohort.data.store import CohortStore
from cohort.engine.budgets import Budgets
from cohort.engine.choices import PlanSettings
from cohort.engine.families import MEASURES
from cohort.engine.plan import open_run, tiles_of
from cohort.engine.regenerate import regenerate_pair
from cohort.engine.results import read_rows
from cohort.engine.tile import run_tile
from cohort.engine.warm import warm
from cohort.engine.workbench import Workbench

pytestmark = pytest.mark.usefixtures("gpu")
__all__ = ["gpu"]  # a fixture for all tests here

VOXELOPT = MethodConfig(
    name="voxelopt",
    settings=VoxelOptSettings(
        features="intensity", levels=2, solves=(1,), squarings=1, couplings=(0.1,)
    ),
)
METHODS = {
    "voxelopt": VOXELOPT,
    "dio": MethodConfig(name="dio", settings=DioSettings(levels=(2, 1), iterations=(2, 2))),
    "pdd_net": MethodConfig(name="pdd_net", settings=PddNetSettings()),
}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@dataclass(frozen=True)
class Run:
    """A store of three subjects, and runs of it."""

    folder: Path
    store: CohortStore

    def workbench(self, method: MethodConfig = VOXELOPT, **chosen: Any) -> Workbench:
        settings = PlanSettings(method, **{"tile_size": 2, "device": "cuda", **chosen})
        open_run(self.folder, self.store, settings)
        return Workbench.open(self.folder)

    def rows(self, workbench: Workbench) -> pl.DataFrame:
        for tile in tiles_of(self.folder, workbench.spec):
            workbench.subjects.read_ahead(tile.subject_ids)
            run_tile(workbench, tile)
        found = read_rows(self.folder)
        assert found["message"].drop_nulls().to_list() == []
        assert found["status"].unique().to_list() == ["ok"]
        return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", tiny_cohort(tmp_path / "cohort.zarr", subjects=3))


@methods
def test_all_that_a_run_can_measure_and_keep(run: Run, method: MethodConfig) -> None:
    chosen = {"metrics": tuple(MEASURES), "keep_displacements": "all", "keep_uncertainty": True}
    workbench = run.workbench(method, **chosen)
    assert workbench.device.type == "cuda"
    rows = run.rows(workbench)
    assert rows.height == 6
    assert all(one.is_cuda for one in workbench.subject("sub-00").features)
    for name in ("dice_mean", "surface_dice_mean", "lncc"):
        assert rows[name].null_count() == 0


def test_subjects_that_the_gpu_has_no_room_for_wait_on_the_host(run: Run) -> None:
    workbench = run.workbench()
    workbench.budgets = Budgets(1, 10**9)
    run.rows(workbench)
    assert len(workbench.subjects) == 2
    assert workbench.subjects.prepared == 3
    workbench.subjects.make_room()


@methods
def test_subjects_of_which_more_is_known(tmp_path: Path, run: Run, method: MethodConfig) -> None:
    """Masks, keypoints and true displacements, each on the device where it is used."""
    store = CohortStore.create(tmp_path / "more.zarr", run.store.grid, settings={})
    still = np.zeros((3, *store.grid.shape), np.float32)
    for name in run.store.subject_ids:
        subject = run.store.read(name)
        more = {
            "mask": (subject.volume > 1).astype(np.uint8),
            "keypoints_mm": np.array([[1.0, 2, 3], [-3, 2, 1]]),
            "to_template": still,
            "from_template": still,
        }
        store.commit(replace(subject, **more), {"source": None})
    known = Run(tmp_path / "known", store)
    pairs = {"pairs": "to:sub-00"}
    rows = known.rows(known.workbench(method, metrics=tuple(MEASURES), **pairs))
    for name in ("tre_mm", "epe_mm", "dice_mean"):
        assert rows[name].null_count() == 0
    prompted = method.settings.model_copy(update={"prompts": "both"})
    if method is not VOXELOPT:
        told = Run(tmp_path / "told", store)
        told.rows(told.workbench(MethodConfig(name=method.name, settings=prompted), **pairs))


def test_features_that_are_kept_in_the_store(run: Run) -> None:
    for _ in range(2):
        workbench = run.workbench()
        workbench.keeps_features = True
        assert all(one.is_cuda for one in workbench.subject("sub-00").features)
        workbench.register("sub-00", "sub-01")


def test_sums_of_a_template_and_a_pair_once_more(run: Run) -> None:
    sums = SumSettings(bins=4, detail=True)
    settings = {"sums": sums, "pairs": "to:sub-00"}
    workbench = run.workbench(**settings)
    assert run.rows(workbench).height == 2
    images = regenerate_pair(workbench, "sub-00", "sub-01")
    assert images.displacement.shape == (3, *run.store.grid.shape)


@methods
def test_a_worker_is_warmed_where_it_registers(
    run: Run,
    method: MethodConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    workbench, devices = run.workbench(method), []
    prepare = type(workbench.method).prepare

    def told(self: object, volume: torch.Tensor, mask: torch.Tensor) -> object:
        devices.append(volume.device.type)
        return prepare(self, volume, mask)

    monkeypatch.setattr(type(workbench.method), "prepare", told)
    with caplog.at_level(logging.INFO, "cohort"):
        warm(workbench)
    assert devices == ["cuda"]
    assert not caplog.records  # what goes wrong is logged there, and no more
