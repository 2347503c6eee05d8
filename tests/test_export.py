"""`cohort export`: the formats other than ITK's, what stands beside the files, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from command_line import Cohort
from native_cohort import GRIDS, native_run
from scipy.ndimage import map_coordinates

from cohort.data.geometry import Grid
from cohort.engine.workbench import Workbench
from cohort.errors import UsageError
from cohort.studies import export as export_module
from cohort.studies.bids_names import bids_label, check_labels, transform_stem
from cohort.studies.export import export
from cohort.studies.learn2reg import challenge_numbers
from cohort.studies.native_space import Route, native_pair

A, B, C = GRIDS
PAIR = ("--fixed", A, "--moving", B)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return native_run(tmp_path_factory.mktemp("export"))


def test_nifti_holds_ras_displacements_and_the_jacobian(run: Workbench, tmp_path: Path) -> None:
    facts = export(run, Route(A, B), "nifti", tmp_path / "out").facts
    stem = f"from-{B}_to-{A}_mode-image"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{stem}.json", f"{stem}_displacement.nii.gz", f"{stem}_jacobian.nii.gz",
    ]  # fmt: skip
    field = nib.load(tmp_path / "out" / f"{stem}_displacement.nii.gz")
    assert field.shape == (*GRIDS[A].shape, 1, 3)
    assert int(field.header["intent_code"]) == 1006
    assert field.header["descrip"].item().startswith(b"RAS mm: ")
    voxel = np.array([15, 11, 8])
    point = GRIDS[A].voxel_to_world(voxel)
    away = np.asarray(field.dataobj)[tuple(voxel)][0]
    expected = native_pair(run, Route(A, B)).chain.map_points(point)
    np.testing.assert_allclose(point + away, expected, atol=1e-4)
    assert set(facts["files"]) == {f"{stem}_displacement.nii.gz", f"{stem}_jacobian.nii.gz"}


def test_learn2reg_is_what_map_coordinates_and_warp_both_take(
    run: Workbench, tmp_path: Path
) -> None:
    export(run, Route(A, B), "learn2reg", tmp_path)
    with np.load(tmp_path / "disp_0001_0002.npz") as packed:
        vectors = packed["arr_0"]
    image = nib.load(tmp_path / "disp_0001_0002.nii.gz")
    assert vectors.shape == (3, *run.store.grid.shape)
    assert image.shape == (*run.store.grid.shape, 3)
    assert vectors.dtype == image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.moveaxis(np.asarray(image.dataobj), -1, 0), vectors)
    np.testing.assert_allclose(image.affine, run.store.grid.affine, atol=1e-5)
    with torch.inference_mode():
        displacement = run.register(A, B).displacement
    moving = run.store.read(B).volume
    warped = displacement.warp(torch.from_numpy(moving)[None, None])[0, 0].numpy()
    positions = np.indices(moving.shape) + vectors
    theirs = map_coordinates(moving, positions, order=1, mode="grid-constant", cval=0.0)
    np.testing.assert_allclose(theirs, warped, atol=1e-3)
    assert np.abs(vectors).max() > 0.5
    assert json.loads((tmp_path / "subjects.json").read_text()) == {
        A: "0001", B: "0002", C: "0003"
    }  # fmt: skip


def test_learn2reg_pairs_share_a_folder_and_know_each_other(run: Workbench, tmp_path: Path) -> None:
    for route in (Route(A, B), Route(B, A), Route(B, A, via=(C,))):
        if route.via:
            with pytest.raises(UsageError, match=r"disp_0002_0001\S* is there already"):
                export(run, route, "learn2reg", tmp_path)
        else:
            export(run, route, "learn2reg", tmp_path)
    assert len(list(tmp_path.glob("disp_*.npz"))) == 2
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("ids", "numbers"),
    [
        (("sub-07", "sub-12"), ["0007", "0012"]),
        (("a1", "b1"), ["0001", "0002"]),
        (("case", "b7"), ["0001", "0002"]),
        (("s00012345", "s2"), ["0001", "0002"]),
        (("IXI002-Guys-0828", "IXI013-HH-1212"), ["0828", "1212"]),
    ],
)
def test_numbers_are_those_of_the_ids_if_they_can_be(ids, numbers) -> None:
    assert list(challenge_numbers(ids).values()) == numbers


def test_too_many_subjects_for_four_digits() -> None:
    with pytest.raises(UsageError, match="counts 9999 subjects, this run has 10000"):
        challenge_numbers(tuple(map(str, range(10000))))


def test_bids_has_its_names_and_says_who_is_who(run: Workbench, tmp_path: Path) -> None:
    exported = export(run, Route(A, B), "bids", tmp_path, jacobian=True)
    export(run, Route(A, B, inverse=True), "bids", tmp_path)
    stem, back = "sub-a1_from-b2_to-orig_mode-image", "sub-b2_from-a1_to-orig_mode-image"
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written >= {
        "dataset_description.json",
        f"sub-a1/anat/{stem}_xfm.nii.gz",
        f"sub-a1/anat/{stem}_xfm.json",
        f"sub-a1/anat/{stem}_jacobian.nii.gz",
        f"sub-b2/anat/{back}_desc-inverse_xfm.nii.gz",
        f"sub-b2/anat/{back}_desc-inverse_xfm.json",
    }
    described = json.loads((tmp_path / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"][0]["Name"] == "triton-reg"
    assert described["GeneratedBy"][0]["Version"]
    record = json.loads(exported.record.read_text())
    assert record["direction"] == f"resamples images of {B} onto {A} and maps points of {A} to {B}"
    assert record["subject_labels"] == {A: "a1", B: "b2"}
    assert record["images"][A].endswith(f"{A}.nii.gz")


def test_bids_labels_are_letters_and_digits_and_stay_apart() -> None:
    assert bids_label("sub-01_ses-2.x") == "01ses2x"
    bids_image = Path("sub-01_ses-2_T2w.nii.gz")
    of_session = transform_stem("sub-01_ses-2", "sub-01_ses-1", bids_image, inverse=False)
    name = "sub-01_ses-2_from-01ses1_to-T2w_mode-image"
    assert of_session == f"sub-01/ses-2/anat/{name}"
    stem = transform_stem("sub-01", "IXI_7", bids_image, inverse=False)
    assert stem == "sub-01/anat/sub-01_from-IXI7_to-T2w_mode-image"
    with pytest.raises(UsageError, match="makes sub-ab of 'a_b' as of 'a-b'"):
        check_labels(("a-b", "c", "a_b"))


def test_what_is_there_stays_and_nothing_is_left_behind(
    run: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(run, Route(A, B), "itk", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=r"is there already; choose another folder") as refused:
        export(run, Route(A, B), "itk", tmp_path)
    assert refused.value.code == "E_EXISTS"

    def fail(*_: object) -> None:
        raise UsageError("E_X", "broken off")

    monkeypatch.setattr(export_module, "write_itk_affine", fail)
    with pytest.raises(UsageError, match="broken off"):
        export(run, Route(A, C), "itk", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_file_is_no_folder_to_export_into(run: Workbench, tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"scan")
    with pytest.raises(UsageError, match=r"scan\.nii\.gz is a file; need a folder"):
        export(run, Route(A, B), "itk", tmp_path / "scan.nii.gz")
    assert (tmp_path / "scan.nii.gz").read_bytes() == b"scan"


def test_itk_cannot_hold_a_sheared_grid(
    run: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = native_pair(run, Route(A, B))
    shear = np.eye(4)
    shear[0, 1] = 0.1
    sheared = replace(pair.onto, grid=Grid(pair.onto.grid.shape, shear @ pair.onto.grid.affine))
    monkeypatch.setattr(export_module, "native_pair", lambda *_: replace(pair, onto=sheared))
    with pytest.raises(UsageError, match=r"sub-a1 are not at right angles \(a cosine of 0\.0\d"):
        export(run, Route(A, B), "itk", tmp_path / "itk")
    export(run, Route(A, B), "nifti", tmp_path / "nifti")
    (path,) = (tmp_path / "nifti").glob("*_displacement.nii.gz")
    header = nib.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)


def test_the_command_says_the_direction_and_how_exact_the_field_is(
    cohort: Cohort, run: Workbench, tmp_path: Path
) -> None:
    shown = cohort("export", run.run_dir, *PAIR, "--to", "itk", "--out", tmp_path / "text")
    assert shown.code == 0
    assert f"maps points of {A} to {B}" in shown.out
    assert "mm from the transform" in shown.out
    assert f"from-{B}_to-{A}_mode-image_affine.tfm" in shown.out
    inverse = ("--to", "nifti", "--inverse", "--out", tmp_path / "json", "--json")
    facts = cohort("export", run.run_dir, *PAIR, *inverse).json
    assert (facts["onto"], facts["resampled"], facts["inverse"]) == (B, A, True)
    assert 0 < facts["inverse_residual_voxels"][1] < 0.01
    record = Path(facts["record"])
    assert json.loads(record.read_text())["files"] == facts["files"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*PAIR, "--to", "fsl"), "--to is 'fsl'; need one of itk, nifti, learn2reg, bids"),
        (("--fixed", A, "--to", "itk"), "need a moving subject of the run"),
        ((*PAIR, "--to", "itk", "--via", B), f"need two subjects, got '{B}' as both"),
    ],
)
def test_wrong_usage_writes_nothing(
    cohort: Cohort, run: Workbench, tmp_path: Path, arguments, message: str
) -> None:
    shown = cohort("export", run.run_dir, *arguments, "--out", tmp_path / "out")
    assert shown.code == 2
    assert message in shown.err
    assert not (tmp_path / "out").exists()
