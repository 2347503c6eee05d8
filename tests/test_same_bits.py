"""The same bits for any number of workers, tile size, batch, order and memory."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from helpers import tiny_cohort
from small_run import QUICK, decided

from cohort.config.method import MethodConfig, method_config
from cohort.data.store import CohortStore
from cohort.engine.budgets import Budgets
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run, tiles_of
from cohort.engine.run import DriverOptions, run
from cohort.engine.spec import RunSpec
from cohort.engine.team import Team
from cohort.engine.tile import run_tile
from cohort.engine.workbench import Workbench

METHODS = {
    "voxelopt": QUICK,
    "pdd_net": method_config("pdd_net", None, ["spacing=4", "width=5", "extent=4"]),
    "dio": method_config("dio", None, ["iterations=6,4,3"]),
}
SUBJECTS = 5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    return tiny_cohort(tmp_path_factory.mktemp("same") / "cohort.zarr", SUBJECTS)


def planned(folder: Path, store: CohortStore, method: MethodConfig, side: int) -> Path:
    open_run(folder, store, PlanSettings(method, tile_size=side))
    return folder


@pytest.fixture(scope="module", params=list(METHODS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def alone(store: CohortStore, name: str, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The rows of single pairs, one after another, each prepared anew."""
    folder = planned(tmp_path_factory.mktemp("alone") / "run", store, METHODS[name], 1)
    for tile in tiles_of(folder, RunSpec.load(folder)):
        run_tile(replace(Workbench.open(folder), asked_batch=1), tile)
    rows = decided(folder)
    assert set(rows["status"]) == {"ok"}
    assert rows["ncc"].n_unique() > SUBJECTS
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "batch", "at_hand"), [(2, 1, 4), (2, 5, 0), (8, 5, 4), (8, 16, 0)]
)
def test_rows_depend_on_no_cut(
    store: CohortStore, name: str, alone: pl.DataFrame, tmp_path: Path, side: int, batch: int,
    at_hand: int,
) -> None:  # fmt: skip
    folder = planned(tmp_path / "run", store, METHODS[name], side)
    workbench = Workbench.open(folder, batch=batch)
    for tile in reversed(list(tiles_of(folder, workbench.spec, at_hand))):
        run_tile(workbench, tile)
    assert decided(folder).equals(alone)


def test_rows_do_not_depend_on_memory(
    store: CohortStore, name: str, alone: pl.DataFrame, tmp_path: Path
) -> None:
    folder = planned(tmp_path / "run", store, METHODS[name], 8)
    workbench = Workbench.open(folder, batch=4)
    workbench.budgets = Budgets(device=0, host=10**9)  # every subject goes and comes back
    for tile in tiles_of(folder, workbench.spec):
        run_tile(workbench, tile)
    assert decided(folder).equals(alone)
    assert workbench.subjects.prepared == SUBJECTS


@pytest.mark.slow
def test_rows_do_not_depend_on_workers(
    store: CohortStore, name: str, alone: pl.DataFrame, tmp_path: Path
) -> None:
    folder = planned(tmp_path / "run", store, METHODS[name], 2)
    run(folder, store, team=Team(2), options=DriverOptions(batch=2))
    assert decided(folder).equals(alone)
