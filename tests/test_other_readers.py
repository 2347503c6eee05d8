"""Where other tools place a file otherwise than a transform that is exported for them says so."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command_line import Cohort
from native_cohort import GRIDS, native_run

from cohort.data.geometry import Grid
from cohort.data.header_choices import HeaderChoices
from cohort.studies import other_readers
from cohort.studies.native_space import NativeSubject
from cohort.studies.other_readers import caution

A, B, _ = GRIDS
GRID = GRIDS[A]
MOVED = np.eye(4)
MOVED[:3, 3] = (12.0, 0.0, 5.0)
MOVED = MOVED @ GRID.affine
SHEARED = GRID.affine @ (np.eye(4) + 0.1 * np.eye(4, k=1) * [0, 1, 1, 0])


def subject(
    folder: Path,
    sform: tuple[np.ndarray | None, int],
    qform: tuple[np.ndarray | None, int],
    *fixed: str,
    unit: int = 2,
    zooms: tuple[float, float, float] = GRID.spacing_mm,
    affine: np.ndarray = GRID.affine,
    kind: type[nib.Nifti1Image] = nib.Nifti1Image,
) -> NativeSubject:
    """A file with these forms and codes, whose voxels were taken to lie at ``affine``."""
    image = kind(np.zeros(GRID.shape, np.uint8), None)
    image.set_sform(*sform)
    image.set_qform(*qform)
    image.header["xyzt_units"] = unit
    image.header["pixdim"][1:4] = zooms
    nib.save(image, folder / "x.nii")
    grid = Grid(GRID.shape, affine)
    return NativeSubject("x", grid, np.eye(4), folder / "x.nii", {}, HeaderChoices(), fixed)


@pytest.mark.parametrize("itk", [False, True], ids=["nibabel", "itk"])
@pytest.mark.parametrize(
    ("sform", "qform"),
    [((GRID.affine, 1), (GRID.affine, 1)), ((GRID.affine, 2), (None, 0)),
     ((None, 0), (GRID.affine, 1)), ((GRID.affine, 4), (GRID.affine, 1))],
    ids=["both", "sform", "qform", "template"],
)  # fmt: skip
def test_nothing_is_said_of_a_file_that_all_read_alike(tmp_path, sform, qform, itk) -> None:
    pytest.importorskip("SimpleITK")
    assert caution(subject(tmp_path, sform, qform), itk=itk) is None


def test_itk_takes_the_scanners_form_before_a_templates(tmp_path: Path) -> None:
    """As SPM and FSL leave files that are registered to a template, read by that sform."""
    pytest.importorskip("SimpleITK")
    told = subject(tmp_path, (GRID.affine, 4), (MOVED, 1), "sform")
    said = caution(told, itk=True)
    assert said is not None
    assert said.startswith(
        f"ITK places the voxels of {tmp_path / 'x.nii'} up to 13.0 mm from where"
    )
    assert "(by ingest's choice of sform): give them a copy of x whose sform and qform" in said
    assert caution(told, itk=False) is None


def test_itk_believes_units_that_ingest_was_told_to_ignore(tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    told = subject(tmp_path, (GRID.affine, 1), (GRID.affine, 1), "ignore-units", unit=3)
    assert "mm from where" in (caution(told, itk=True) or "")


def test_itk_takes_voxel_sizes_from_pixdim_although_the_sform_has_others(tmp_path: Path) -> None:
    """As nibabel writes a file whose sform alone was set."""
    pytest.importorskip("SimpleITK")
    told = subject(tmp_path, (GRID.affine, 1), (None, 0), zooms=(1.0, 1.0, 1.0))
    assert "mm from where this transform takes them to lie: give" in (caution(told, itk=True) or "")
    assert caution(told, itk=False) is None


def test_nibabel_takes_an_sform_that_ingest_was_told_to_leave(tmp_path: Path) -> None:
    told = subject(tmp_path, (MOVED, 1), (GRID.affine, 1), "qform")
    assert "nibabel places the voxels of" in (caution(told, itk=False) or "")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image], ids=["sheared", "nifti-2"])
def test_what_itk_cannot_read_is_said(tmp_path: Path, kind: type[nib.Nifti1Image]) -> None:
    pytest.importorskip("SimpleITK")
    affine = SHEARED if kind is nib.Nifti1Image else GRID.affine
    told = subject(tmp_path, (affine, 1), (None, 0), affine=affine, kind=kind)
    assert f"ITK cannot read {tmp_path / 'x.nii'}: give it a copy in" in (
        caution(told, itk=True) or ""
    )


def test_a_file_that_is_gone_leaves_what_the_user_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = subject(tmp_path, (GRID.affine, 4), (MOVED, 1), "sform")
    gone = replace(told, image=tmp_path / "gone.nii")
    assert "other tools may place the voxels of" in (caution(gone, itk=False) or "")
    assert caution(replace(gone, fixed=()), itk=False) is None
    monkeypatch.setattr(other_readers, "can_write_composite", lambda: False)
    assert "other tools may place the voxels of" in (caution(told, itk=True) or "")


def test_export_says_it_in_its_record_and_on_the_terminal(cohort: Cohort, tmp_path: Path) -> None:
    run = native_run(tmp_path)
    path = tmp_path / "nifti" / "images" / f"{B}.nii.gz"
    image = nib.load(path)
    image.set_sform(MOVED, 1)
    nib.save(nib.Nifti1Image(image.get_fdata(), None, image.header), path)
    pair = ("export", run.run_dir, "--fixed", A, "--moving", B, "--to", "nifti")
    facts = cohort(*pair, "--out", tmp_path / "json", "--json").json
    assert list(facts["cautions"]) == [B]
    np.testing.assert_array_equal(facts["affines"][B], GRIDS[B].affine)
    shown = cohort(*pair, "--out", tmp_path / "text")
    assert f"but {B}" in shown.out
    learn2reg = cohort(*pair[:-1], "learn2reg", "--out", tmp_path / "numbers", "--json")
    assert learn2reg.json["cautions"] == {}
