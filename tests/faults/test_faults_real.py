"""Chaos with real brains and the real method: the same rows as a run that nobody disturbed."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fault_runs import assert_whole, decided, drawn_strikes, ended, strike
from helpers import shared_data

from cohort.data.ingest import IngestSettings, ingest
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.run import run
from cohort.engine.verify import verify

pytestmark = [pytest.mark.faults, pytest.mark.slow]
_BRAINS, _SEED = 7, 0


def brains(folder: Path) -> CohortStore:
    """Some brains of 2 mm with their 148 structures."""
    source = shared_data("ixi_t1_2mm")
    for name in sorted(path.name for path in (source / "images").iterdir())[:_BRAINS]:
        for kind in ("images", "labels"):
            (folder / "scans" / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(source / kind / name, folder / "scans" / kind / name)
    settings = IngestSettings(grid="96x112x96@2mm", align="center")
    ingest(folder / "scans", folder / "cohort.zarr", settings)
    return CohortStore.open(folder / "cohort.zarr")


def test_brains_registered_under_fire_are_registered_alike(tmp_path: Path) -> None:
    store, source = brains(tmp_path), random.Random(_SEED)
    plain, run_dir = tmp_path / "plain", tmp_path / "run"
    for folder in (plain, run_dir):
        open_run(folder, store, PlanSettings(tile_size=2))
    run(plain, store)
    command = [str(Path(sys.executable).with_name("cohort")), "register", str(store.path),
               str(run_dir), "--workers", "2"]  # fmt: skip
    strikes = drawn_strikes(source, workers=4, drivers=2)
    print(f"seed {_SEED}: to be killed after so many parts: {strikes}")  # noqa: T201
    for _ in range(10):
        driver = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        strike(driver, run_dir, strikes, source)
        code, err = ended(driver)
        if code == 0:
            break
        assert code in (-9, 5), err
    assert not strikes
    assert_whole(run_dir, decided(plain))
    assert not verify(run_dir).findings
