"""Real scans through `apply` and `export`, in native space, with ITK as the judge."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import shared_data

from cohort.config.method import MethodConfig
from cohort.data.ingest import ingest
from cohort.data.ingest_settings import IngestSettings
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.workbench import Workbench
from cohort.studies.apply import Task, apply
from cohort.studies.apply_to_all import apply_to_all
from cohort.studies.export import export
from cohort.studies.native_space import Route, native_pair, pairs_with

pytestmark = pytest.mark.slow
SUBJECTS = 4


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A few brains as they were scanned; the first moves onto the others."""
    folder, source = tmp_path_factory.mktemp("brains"), shared_data("ixi_t1_2mm")
    for role in ("images", "labels"):
        (folder / "nifti" / role).mkdir(parents=True)
        for path in sorted((source / role).glob("*.nii.gz"))[:SUBJECTS]:
            shutil.copy(path, folder / "nifti" / role / path.name)
    settings = IngestSettings(grid="96x112x96@2mm", align="affine")
    assert not ingest(folder / "nifti", folder / "cohort.zarr", settings).quarantined
    store = CohortStore.open(folder / "cohort.zarr")
    first = store.subject_ids[0]
    open_run(folder / "run", store, PlanSettings(MethodConfig(), f"atlas:{first}"))
    return Workbench.open(folder / "run")


def native(workbench: Workbench, role: str, subject_id: str) -> Path:
    return workbench.run_dir.parent / "nifti" / role / f"{subject_id}.nii.gz"


def mean_dice(found: np.ndarray, expected: np.ndarray) -> float:
    names = sorted({*np.unique(found), *np.unique(expected)} - {0})
    scores = [
        2 * np.count_nonzero((found == name) & (expected == name))
        / (np.count_nonzero(found == name) + np.count_nonzero(expected == name))
        for name in names
    ]  # fmt: skip
    return float(np.mean(scores))


def test_an_atlas_labels_native_scans(brains: Workbench, tmp_path: Path) -> None:
    pairs = pairs_with(brains, None)
    atlas = pairs[0][1]
    labels = native(brains, "labels", atlas)
    found = apply_to_all(brains, pairs, Task("labels", labels), tmp_path / "out")
    assert len(found.done) == SUBJECTS - 1
    assert not found.failed
    for subject_id, applied in found.done.items():
        ours = np.asarray(nib.load(applied.out).dataobj)
        own = nib.load(native(brains, "labels", subject_id))
        assert mean_dice(ours, np.asarray(own.dataobj)) > 0.5
        whole_mm3 = applied.volumes["volume_mm3"].sum()
        voxel_mm3 = abs(np.linalg.det(own.affine[:3, :3]))
        expected_mm3 = np.count_nonzero(np.asarray(own.dataobj)) * voxel_mm3
        assert whole_mm3 == pytest.approx(expected_mm3, rel=0.1)


def test_itk_and_apply_agree_on_a_real_pair(brains: Workbench, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    fixed, moving = pairs_with(brains, None)[0]
    route, image = Route(fixed, moving), native(brains, "images", moving)
    apply(brains, route, Task("volume", image), tmp_path / "ours.nii.gz")
    facts = export(brains, route, "itk", tmp_path / "itk").facts
    ours = np.asarray(nib.load(tmp_path / "ours.nii.gz").dataobj)
    outside = float(np.asarray(nib.load(image).dataobj).min())
    (path,) = (tmp_path / "itk").glob("*_displacement.nii.gz")
    field = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    (composite,) = (tmp_path / "itk").glob("*.h5")
    onto = sitk.ReadImage(str(native(brains, "images", fixed)))
    of = sitk.ReadImage(str(image), sitk.sitkFloat32)
    pair = native_pair(brains, route)
    voxels = np.indices(ours.shape).reshape(3, -1).astype(float)
    positions = pair.chain.map(voxels, pair.onto.grid, pair.of.grid)
    edges = np.stack([positions + 0.5, positions - np.reshape(pair.of.grid.shape, (3, 1)) + 0.5])
    # the image ends there, and the field is float32
    on_edge = (np.abs(edges) < 1e-4).any(axis=(0, 1)).reshape(ours.shape)
    assert on_edge.mean() < 1e-3
    for transform in (field, sitk.ReadTransform(str(composite))):
        resampled = sitk.Resample(of, onto, transform, sitk.sitkLinear, outside)
        theirs = sitk.GetArrayFromImage(resampled).T
        assert np.abs(ours - theirs)[~on_edge].max() < 1e-3 * np.ptp(ours)
    assert facts["between_voxels"]["mean_mm"] < 0.05


def test_the_inverse_of_a_real_pair_leads_back(brains: Workbench) -> None:
    fixed, moving = pairs_with(brains, None)[0]
    there = native_pair(brains, Route(fixed, moving))
    back = native_pair(brains, Route(fixed, moving, inverse=True))
    assert back.residual_voxels is not None
    assert back.residual_voxels[1] < 0.01
    grid = there.onto.grid
    shape = np.array(grid.shape)
    inside = np.random.default_rng(0).uniform(0.25 * shape, 0.75 * shape, (2000, 3))
    points_mm = grid.voxel_to_world(inside)
    again = back.chain.map_points(there.chain.map_points(points_mm))
    away_mm = np.linalg.norm(again - points_mm, axis=1)
    assert np.median(away_mm) < 0.1
    assert np.quantile(away_mm, 0.99) < 1
