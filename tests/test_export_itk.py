"""ITK is the judge: what it does with the exported files is what `apply` does, voxel by voxel."""

import json
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from native_cohort import native_run

from cohort.data.geometry import ras_to_lps
from cohort.engine.workbench import Workbench
from cohort.errors import StorageError
from cohort.studies import itk_composite
from cohort.studies.apply import Task, apply
from cohort.studies.export import export
from cohort.studies.native_space import NativePair, Route, native_pair

sitk = pytest.importorskip("SimpleITK")
ROUTES = {
    "straight": Route("sub-a1", "sub-b2"),
    "flipped": Route("sub-b2", "sub-c3"),
    "inverse": Route("sub-c3", "sub-a1", inverse=True),
    "via": Route("sub-c3", "sub-b2", via=("sub-a1",)),
    "back": Route("sub-a1", "sub-c3", via=("sub-b2",), inverse=True),
}


class Case(NamedTuple):
    folder: Path
    workbench: Workbench
    pair: NativePair
    files: Path

    def image(self, role: str, subject_id: str) -> Path:
        return self.folder / "nifti" / role / f"{subject_id}.nii.gz"


@pytest.fixture(scope="module", params=["center", "affine"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("native")
    return folder, native_run(folder, request.param)


@pytest.fixture(scope="module", params=ROUTES.values(), ids=ROUTES)
def case(request: pytest.FixtureRequest, run, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder, workbench = run
    out = tmp_path_factory.mktemp("itk")
    export(workbench, request.param, "itk", out, jacobian=True)
    return Case(folder, workbench, native_pair(workbench, request.param), out)


def exported(case: Case, ending: str) -> Path:
    (path,) = case.files.glob(f"*_{ending}")
    return path


def field_transform(case: Case):
    field = sitk.ReadImage(str(exported(case, "displacement.nii.gz")), sitk.sitkVectorFloat64)
    return sitk.DisplacementFieldTransform(field)


def resampled(case: Case, role: str, transform, interpolator, outside: float) -> np.ndarray:
    """ITK's own reading of both files, brought together: in the axis order of NIfTI."""
    onto = sitk.ReadImage(str(case.image("images", case.pair.onto.subject_id)))
    of = sitk.ReadImage(str(case.image(role, case.pair.of.subject_id)))
    return sitk.GetArrayFromImage(sitk.Resample(of, onto, transform, interpolator, outside)).T


def voxels_inside(case: Case, count: int = 200) -> np.ndarray:
    shape = np.array(case.pair.onto.grid.shape)
    return np.random.default_rng(0).uniform(1, shape - 2, (count, 3))


def mapped(transform, points_mm: np.ndarray) -> np.ndarray:
    return ras_to_lps([transform.TransformPoint(point) for point in ras_to_lps(points_mm).tolist()])


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["displacement.nii.gz", "composite.h5"])
def test_itk_gives_the_voxels_of_our_own_apply(case: Case, ending: str, tmp_path: Path) -> None:
    whole = field_transform(case)
    if ending == "composite.h5":
        whole = sitk.ReadTransform(str(exported(case, ending)))
    of = case.image("images", case.pair.of.subject_id)
    apply(case.workbench, case.pair.route, Task("volume", of), tmp_path / "ours.nii.gz")
    ours = np.asarray(nib.load(tmp_path / "ours.nii.gz").dataobj)
    lowest = float(nib.load(of).get_fdata().min())
    theirs = resampled(case, "images", whole, sitk.sitkLinear, lowest)
    assert np.abs(ours - theirs).max() < 1e-4 * np.ptp(ours)
    assert np.ptp(ours) > 60


def test_itk_gives_the_labels_of_our_own_apply(case: Case, tmp_path: Path) -> None:
    labels = case.image("labels", case.pair.of.subject_id)
    apply(case.workbench, case.pair.route, Task("labels", labels), tmp_path / "ours.nii.gz")
    ours = np.asarray(nib.load(tmp_path / "ours.nii.gz").dataobj)
    nearest = sitk.sitkNearestNeighbor
    theirs = resampled(case, "labels", field_transform(case), nearest, 0)
    assert ours.dtype == np.uint8
    assert set(np.unique(ours)) == {0, 1, 2, 3}
    assert np.mean(ours != theirs) < 1e-4


def test_the_field_is_the_chain_at_its_voxels(case: Case) -> None:
    voxels = np.round(voxels_inside(case))
    points_mm = case.pair.onto.grid.voxel_to_world(voxels)
    away = mapped(field_transform(case), points_mm) - case.pair.chain.map_points(points_mm)
    assert np.linalg.norm(away, axis=1).max() < 0.01


def test_the_field_between_its_voxels_differs_as_the_record_says(case: Case) -> None:
    points_mm = case.pair.onto.grid.voxel_to_world(voxels_inside(case))
    away = mapped(field_transform(case), points_mm) - case.pair.chain.map_points(points_mm)
    (record,) = case.files.glob("*.json")
    said = json.loads(record.read_text())["between_voxels"]
    assert np.linalg.norm(away, axis=1).max() <= 1.2 * said["largest_mm"] + 1e-4
    assert np.linalg.norm(away, axis=1).mean() == pytest.approx(said["mean_mm"], rel=0.3, abs=1e-4)


def test_the_composite_is_the_chain_everywhere(case: Case) -> None:
    composite = sitk.ReadTransform(str(exported(case, "composite.h5")))
    corners = case.pair.onto.grid.corners()
    voxels = np.concatenate([voxels_inside(case), corners])
    points_mm = case.pair.onto.grid.voxel_to_world(voxels)
    away = mapped(composite, points_mm) - case.pair.chain.map_points(points_mm)
    assert np.linalg.norm(away, axis=1).max() < 1e-3


@pytest.mark.parametrize("ending", ["affine.tfm", "affine.mat"])
def test_itk_reads_the_alignment(case: Case, ending: str) -> None:
    affine = sitk.ReadTransform(str(exported(case, ending)))
    points_mm = case.pair.onto.grid.voxel_to_world(voxels_inside(case))
    matrix = case.pair.chain.alignment
    expected = points_mm @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(mapped(affine, points_mm), expected, atol=1e-4)
    fixed = affine.GetFixedParameters()
    np.testing.assert_allclose(fixed, ras_to_lps(case.pair.onto.grid.center_mm), atol=1e-4)


def test_the_header_says_what_the_field_is(case: Case) -> None:
    field = nib.load(exported(case, "displacement.nii.gz"))
    assert field.shape == (*case.pair.onto.grid.shape, 1, 3)
    assert field.header.get_intent()[0] == "vector"
    np.testing.assert_array_equal(field.affine, case.pair.onto.grid.affine)
    said = field.header["descrip"].item().decode()
    onto, of = case.pair.onto.subject_id, case.pair.of.subject_id
    assert said.startswith(f"LPS mm: {of} resampled onto {onto}; points of {onto} to {of}")


def test_the_jacobian_map_is_how_small_boxes_change(case: Case) -> None:
    jacobian = np.asarray(nib.load(exported(case, "jacobian.nii.gz")).dataobj)
    voxels = np.round(voxels_inside(case, 50))
    points_mm = case.pair.onto.grid.voxel_to_world(voxels)
    # a box of some working voxels: derivatives of a field that is linear in pieces jump
    columns = [
        case.pair.chain.map_points(points_mm + step) - case.pair.chain.map_points(points_mm - step)
        for step in 4.0 * np.eye(3)
    ]
    expected = np.linalg.det(np.stack(columns, axis=-1) / 8)
    found = jacobian[tuple(voxels.astype(int).T)]
    assert np.abs(found - expected).mean() < 0.02
    assert np.corrcoef(found, expected)[0, 1] > 0.9


def test_without_simpleitk_the_record_says_how_to_get_it(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(itk_composite, "find_spec", lambda name: None)
    facts = export(run[1], ROUTES["straight"], "itk", tmp_path / "out").facts
    assert "pip install 'triton-reg[itk]'" in facts["composite"]
    assert not list((tmp_path / "out").glob("*.h5"))
    assert not [name for name in facts["files"] if name.endswith(".h5")]


def test_what_itk_cannot_write_is_a_sentence(case: Case, tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "t.h5"
    with pytest.raises(StorageError, match=r"ITK cannot write .*t\.h5"):
        itk_composite.write_composite(missing, case.pair.chain, case.pair.onto.grid)
