"""A cohort with masks is compared inside them, without being told."""

from pathlib import Path

import numpy as np
from small_cohort import GRID, write_cohort
from small_run import QUICK

from cohort.data.ingest import IngestSettings, ingest
from cohort.data.nifti import write_nifti
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows
from cohort.engine.run import run


def stored(folder: Path, masked: tuple[str, ...]) -> CohortStore:
    source = write_cohort(folder / "source")
    mask = np.zeros(GRID.shape, np.uint8)
    mask[2:-2, 2:-2, 2:-2] = 1
    (source / "masks").mkdir()
    for subject_id in masked:
        write_nifti(source / "masks" / f"{subject_id}.nii.gz", mask, GRID.affine)
    ingest(source, folder / "cohort.zarr", IngestSettings(grid="16x16x16@2mm", align="center"))
    return CohortStore.open(folder / "cohort.zarr")


def test_one_mask_is_enough(tmp_path: Path) -> None:
    store = stored(tmp_path, ("b",))
    spec = open_run(tmp_path / "run", store, PlanSettings(QUICK))
    assert spec.method.settings.masked is True
    run(tmp_path / "run", store)
    assert set(read_rows(tmp_path / "run")["status"]) == {"ok"}
    assert open_run(tmp_path / "run", store, PlanSettings(QUICK)) == spec


def test_without_masks_nothing_changes(tmp_path: Path) -> None:
    spec = open_run(tmp_path / "run", stored(tmp_path, ()), PlanSettings(QUICK))
    assert spec.method.settings.masked is None


def test_the_user_may_say_otherwise(tmp_path: Path) -> None:
    store = stored(tmp_path, ("a", "b", "c"))
    settings = QUICK.settings.model_copy(update={"masked": False})
    method = QUICK.model_copy(update={"settings": settings})
    spec = open_run(tmp_path / "run", store, PlanSettings(method))
    assert spec.method.settings.masked is False
