"""An atlas that is a file outside of the cohort: pairs with it, its labels, how a run keeps it."""

from pathlib import Path

import numpy as np
import pytest
from command_line import Cohort
from small_cohort import GRID, labels, volume, write_cohort
from small_run import QUICK

from cohort.data.geometry import Grid
from cohort.data.ingest import IngestSettings, ingest
from cohort.data.nifti import write_nifti
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.errors import UsageError

# another shape, other voxels and another place than the cohort's scans
ATLAS_GRID = Grid.axis_aligned((20, 18, 16), (1.5, 2.0, 1.25), (60.0, 40.0, -20.0))


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    source = write_cohort(tmp_path / "source")
    settings = IngestSettings(grid="16x16x16@2mm", align="center", reference="a")
    ingest(source, tmp_path / "cohort.zarr", settings)
    return CohortStore.open(tmp_path / "cohort.zarr")


@pytest.fixture
def atlas(tmp_path: Path) -> PlanSettings:
    write_nifti(tmp_path / "mni.nii.gz", volume(7, ATLAS_GRID), ATLAS_GRID.affine)
    write_nifti(tmp_path / "mni_labels.nii.gz", labels(7, ATLAS_GRID), ATLAS_GRID.affine)
    pairs = f"atlas:{tmp_path / 'mni.nii.gz'}"
    return PlanSettings(QUICK, pairs, atlas_labels=tmp_path / "mni_labels.nii.gz")


def test_an_atlas_file_moves_onto_every_subject(
    store: CohortStore, atlas: PlanSettings, tmp_path: Path
) -> None:
    digest = store.digest
    spec = open_run(tmp_path / "run", store, atlas)
    run(tmp_path / "run", store)
    rows = read_rows(tmp_path / "run")
    assert spec.atlas == "mni"
    assert sorted(rows["fixed"]) == ["a", "b", "c"]
    assert set(rows["moving"]) == {"mni"}
    assert set(rows["status"]) == {"ok"}
    assert rows["dice_mean"].min() > 0  # its labels came along, and were brought over by intensity
    assert CohortStore.open(store.path).digest == digest


def test_every_subject_moves_onto_an_atlas_file(
    store: CohortStore, atlas: PlanSettings, tmp_path: Path
) -> None:
    pairs = (atlas.pairs or "").replace("atlas:", "to:")
    open_run(tmp_path / "run", store, PlanSettings(QUICK, pairs))
    run(tmp_path / "run", store)
    rows = read_rows(tmp_path / "run")
    assert set(rows["fixed"]) == {"mni"}
    assert sorted(rows["moving"]) == ["a", "b", "c"]
    assert rows["dice_mean"].null_count() == 3  # no labels were given


def test_a_run_needs_the_file_only_once(
    store: CohortStore, atlas: PlanSettings, tmp_path: Path
) -> None:
    planned = open_run(tmp_path / "run", store, atlas)
    (tmp_path / "mni.nii.gz").unlink()
    (tmp_path / "mni_labels.nii.gz").unlink()
    assert open_run(tmp_path / "run", store, PlanSettings()) == planned
    assert run(tmp_path / "run", store).pairs == 3


def test_another_atlas_is_another_run(
    store: CohortStore, atlas: PlanSettings, tmp_path: Path
) -> None:
    planned = open_run(tmp_path / "run", store, atlas)
    assert open_run(tmp_path / "run", store, atlas) == planned
    write_nifti(tmp_path / "mni.nii.gz", volume(8, ATLAS_GRID), ATLAS_GRID.affine)
    with pytest.raises(UsageError, match=r"E_PLAN_MISMATCH: .*its image was .*mni\.nii\.gz"):
        open_run(tmp_path / "run", store, atlas)


def test_labels_on_another_grid_are_refused(
    store: CohortStore, atlas: PlanSettings, tmp_path: Path
) -> None:
    write_nifti(tmp_path / "mni_labels.nii.gz", labels(7), GRID.affine)
    with pytest.raises(UsageError, match=r"E_ATLAS: .*mni_labels\.nii\.gz has shape 12x14x10"):
        open_run(tmp_path / "run", store, atlas)
    assert not (tmp_path / "run").exists()


def test_a_name_that_the_store_has_is_refused(store: CohortStore, tmp_path: Path) -> None:
    write_nifti(tmp_path / "B.nii.gz", volume(7), GRID.affine)
    with pytest.raises(UsageError, match=r"E_ATLAS: the store has a subject 'B'"):
        open_run(tmp_path / "run", store, PlanSettings(QUICK, f"to:{tmp_path / 'B.nii.gz'}"))


@pytest.mark.parametrize(
    ("pairs", "labelled", "message"),
    [
        ("atlas:nowhere.nii.gz", False, "E_ATLAS: the atlas nowhere.nii.gz is no file"),
        ("all", True, "E_ATLAS: labels of an atlas need the atlas"),
        ("atlas:nobody", False, "E_PAIRS: atlas:nobody: no subject 'nobody'"),
    ],
)
def test_what_is_no_atlas_is_named(
    store: CohortStore, tmp_path: Path, pairs: str, labelled: bool, message: str
) -> None:
    settings = PlanSettings(QUICK, pairs, atlas_labels=tmp_path / "x.nii.gz" if labelled else None)
    with pytest.raises(UsageError, match=message):
        open_run(tmp_path / "run", store, settings)


@pytest.mark.slow
def test_the_command_takes_an_atlas_file(
    store: CohortStore, atlas: PlanSettings, tmp_path: Path, cohort: Cohort
) -> None:
    where = (str(store.path), str(tmp_path / "run"))
    chosen = ("--pairs", str(atlas.pairs), "--atlas-labels", str(atlas.atlas_labels))
    quick = ("--set", "features=intensity", "--set", "levels=2")
    done = cohort("register", *where, *chosen, *quick, "--workers", "1", "--json")
    assert done.code == 0, done.err
    assert done.json["summary"]["ok"] == 3
    again = cohort("register", *where, "--workers", "0", "--json")
    assert again.json["already_done"] == 3
    assert np.isfinite(again.json["summary"]["dice_mean"])


def test_the_same_atlas_by_another_path_is_the_same_plan(
    store: CohortStore, atlas: PlanSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = open_run(tmp_path / "run", store, atlas)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mni.nii.gz").rename(tmp_path / "moved.nii.gz")
    for pairs in ("atlas:moved.nii.gz", f"atlas:{tmp_path / 'moved.nii.gz'}"):
        assert open_run(tmp_path / "run", store, PlanSettings(QUICK, pairs)) == planned
    with pytest.raises(UsageError, match="E_PLAN_MISMATCH"):
        open_run(tmp_path / "run", store, PlanSettings(QUICK, "to:moved.nii.gz"))
