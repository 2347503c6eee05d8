"""Which form places the voxels, what is refused, and what a choice of the user changes."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_cohort import GRID, volume, write_cohort

from cohort.data.geometry import Grid
from cohort.data.header_choices import HeaderChoices, parse_fixes
from cohort.data.ingest import IngestSettings, ingest
from cohort.data.nifti import Nifti, read_grid, read_nifti, write_nifti
from cohort.data.store import CohortStore
from cohort.errors import SubjectError

pytestmark = pytest.mark.faults
SHEARED = GRID.affine.copy()
SHEARED[0, 1] = 0.2
BARELY_SHEARED = GRID.affine.copy()
BARELY_SHEARED[0, 1] = 0.004
MIRRORED = GRID.affine @ np.diag([-1, 1, 1, 1]).astype(float)
MOVED = GRID.affine.copy()
MOVED[1, 3] += 6


def write(path: Path, sform: np.ndarray | None, qform: np.ndarray | None, unit: int = 2) -> Path:
    """A file with these forms, as nibabel writes them."""
    image = nib.Nifti1Image(volume(1), None)
    image.set_sform(sform, 0 if sform is None else 1)
    image.set_qform(qform, 0 if qform is None else 1)
    image.header["xyzt_units"] = unit
    nib.save(image, path)
    return path


def read(path: Path, *fixes: str) -> Nifti:
    found = read_nifti(path, choices=HeaderChoices.parse(fixes))
    assert read_grid(path, choices=HeaderChoices.parse(fixes)).distance(found.grid) == 0
    return found


@pytest.mark.parametrize(
    ("sform", "qform", "form"),
    [
        (GRID.affine, GRID.affine, "sform"),
        (GRID.affine, None, "sform"),
        (None, GRID.affine, "qform"),
        (BARELY_SHEARED, GRID.affine, "qform"),
    ],
    ids=["both", "sform", "qform", "a sheared sform within 0.1 voxel of the qform"],
)
def test_an_orthogonal_sform_counts_and_else_the_qform(tmp_path, sform, qform, form):
    found = read(write(tmp_path / "x.nii", sform, qform), "sform", "units")
    assert found.header["form"] == form
    assert found.header["fixed"] == []
    np.testing.assert_allclose(found.affine, GRID.affine, atol=1e-5)


@pytest.mark.parametrize(
    ("sform", "qform", "code", "message"),
    [
        (SHEARED, None, "E_SHEAR", r"5\.71 degrees off .* there is no qform.*--fix-headers sform"),
        (SHEARED, GRID.affine, "E_SHEAR", r"the qform lies .* voxels away.*--fix-headers qform"),
        (MIRRORED, GRID.affine, "E_MIRROR", r"axes LAS.*axes RAS.*left and right are exchanged"),
        (MOVED, GRID.affine, "E_FORM", r"3\.00 voxels apart.*--fix-headers sform or"),
        (np.diag([0, 0, 0, 1.0]), GRID.affine, "E_AFFINE_ZERO", r"0 along i, j, k.*headers qform"),
    ],
    ids=["sheared", "sheared and moved", "mirrored", "moved", "zero"],
)
def test_a_conflict_is_refused_and_names_the_choice(tmp_path, sform, qform, code, message):
    path = write(tmp_path / "x.nii", sform, qform)
    with pytest.raises(SubjectError, match=message) as caught:
        read(path)
    assert caught.value.code == code
    assert caught.value.message.startswith(str(path))


@pytest.mark.parametrize("form", ["sform", "qform"])
@pytest.mark.parametrize("sform", [SHEARED, MIRRORED, MOVED], ids=["sheared", "mirrored", "moved"])
def test_a_choice_decides_a_conflict_and_is_kept(tmp_path, sform, form):
    found = read(write(tmp_path / "x.nii", sform, GRID.affine), form)
    assert (found.header["form"], found.header["fixed"]) == (form, [form])
    expected = Grid(GRID.shape, sform if form == "sform" else GRID.affine).oriented("RAS")
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)


def test_a_choice_cannot_take_a_form_that_is_broken_or_absent(tmp_path):
    broken = write(tmp_path / "x.nii", np.diag([0, 0, 0, 1.0]), GRID.affine)
    assert read(broken, "qform").header["fixed"] == ["qform"]
    with pytest.raises(SubjectError, match="E_AFFINE_ZERO"):
        read(broken, "sform")
    with pytest.raises(SubjectError, match="E_SHEAR"):
        read(write(tmp_path / "y.nii", SHEARED, None), "qform")


def test_a_left_handed_file_is_legal_and_said_to_be_one(tmp_path):
    found = read(write(tmp_path / "x.nii", MIRRORED, MIRRORED))
    assert (found.header["handedness"], found.header["axcodes"]) == ("left", "LAS")
    np.testing.assert_array_equal(found.data, volume(1)[::-1])
    assert found.grid.is_right_handed


@pytest.mark.parametrize(
    ("unit", "to_mm", "message"),
    [
        (1, 1000, r"are metres \(xyzt_units 1\), so that a voxel is 2000 x 2000 x 2000 mm; many"),
        (3, 0.001, r"are micrometres \(xyzt_units 3\), so that a voxel is 0.002 x 0.002 x 0.002"),
    ],
)
def test_other_units_than_mm_are_refused_scaled_or_ignored(tmp_path, unit, to_mm, message):
    path = write(tmp_path / "x.nii", GRID.affine, GRID.affine, unit)
    with pytest.raises(SubjectError, match=message) as caught:
        read(path)
    assert caught.value.code == "E_UNITS"
    scaled, ignored = read(path, "units"), read(path, "ignore-units", "sform")
    np.testing.assert_allclose(scaled.grid.center_mm, GRID.center_mm * to_mm)
    np.testing.assert_allclose(scaled.header["spacing_mm"], 2 * to_mm)
    assert scaled.header["fixed"] == ["units"]
    np.testing.assert_allclose(ignored.affine, GRID.affine)
    assert ignored.header["fixed"] == ["ignore-units"]


@pytest.mark.parametrize("unit", [0, 5, 10], ids=["none", "unheard of", "mm and seconds"])
def test_unknown_units_are_taken_for_mm(tmp_path, unit):
    found = read(write(tmp_path / "x.nii", GRID.affine, GRID.affine, unit), "units")
    np.testing.assert_allclose(found.grid.spacing_mm, 2)
    assert found.header["fixed"] == []
    assert found.header["units"] == ("mm" if unit == 10 else "unknown")


def test_a_quaternion_with_factor_zero_is_read_as_the_standard_says(tmp_path):
    path = write(tmp_path / "x.nii", None, GRID.affine)
    content = bytearray(path.read_bytes())
    content[76:80] = np.float32(0).tobytes()
    path.write_bytes(content)
    np.testing.assert_allclose(read(path).affine, GRID.affine, atol=1e-5)


def test_what_we_write_with_a_sheared_affine_does_not_contradict_itself(tmp_path):
    write_nifti(tmp_path / "x.nii", volume(1), SHEARED)
    assert int(nib.load(tmp_path / "x.nii").header["qform_code"]) == 0
    np.testing.assert_allclose(read(tmp_path / "x.nii", "sform").affine, SHEARED, atol=1e-5)


def test_choices_are_read_from_text():
    assert parse_fixes("qform, ignore-units,") == ("qform", "ignore-units")
    assert parse_fixes("") == ()
    assert HeaderChoices.parse(parse_fixes("qform,units"), "RAS").names == (
        "orientation", "qform", "units",
    )  # fmt: skip


def test_a_choice_is_recorded_and_read_again_when_it_is_withdrawn(tmp_path):
    source = write_cohort(tmp_path / "source")
    for folder in ("images", "labels"):
        path = source / folder / "b.nii.gz"
        image = nib.load(path)
        image.set_sform(MOVED, 1)
        nib.save(image, path)
    plain = IngestSettings(grid="12x14x10@2mm")
    believed = IngestSettings(grid="12x14x10@2mm", fix_headers=("qform",))
    assert ingest(source, tmp_path / "s", plain).quarantined["b"][0] == "E_FORM"
    assert ingest(source, tmp_path / "s", believed).ingested == ("b",)
    provenance = CohortStore.open(tmp_path / "s").record("b")["provenance"]
    assert provenance["header"]["fixed"] == ["qform"]
    assert provenance["fixed"] == {"image": ["qform"], "labels": ["qform"]}
    assert provenance["settings"]["header_choices"] == ["qform"]
    assert "b" in ingest(source, tmp_path / "s", believed).unchanged
    other = IngestSettings(grid="12x14x10@2mm", fix_headers=("sform",))
    assert ingest(source, tmp_path / "s", other).ingested == ("b",)
    assert ingest(source, tmp_path / "s", plain).quarantined["b"][0] == "E_FORM"


def write_with_nan(path: Path, *extra: float) -> Path:
    values = volume(1)
    values[:2] = np.nan
    values[3, 0, : len(extra)] = extra
    nib.save(nib.Nifti1Image(values, GRID.affine), path)
    return path


def test_nan_is_background_by_choice(tmp_path: Path) -> None:
    path = write_with_nan(tmp_path / "a.nii")
    with pytest.raises(SubjectError, match=r"need none, or --fix-headers nan-back"):
        read(path)
    found = read(path, "nan-background")
    np.testing.assert_array_equal(found.data[:2], volume(1)[2:].min())
    np.testing.assert_array_equal(found.data[2:], volume(1)[2:])
    assert found.header["fixed"] == ["nan-background"]
    write_nifti(tmp_path / "b.nii", volume(1), GRID.affine)
    assert read(tmp_path / "b.nii", "nan-background").header["fixed"] == []


@pytest.mark.parametrize(
    ("values", "content"),
    [((np.inf,), "volume"), ((), "labels")],
    ids=["infinity", "labels"],
)
def test_nan_is_no_background_of_what_is_broken_otherwise(
    tmp_path: Path, values: tuple[float, ...], content: str
) -> None:
    path = write_with_nan(tmp_path / "a.nii", *values)
    with pytest.raises(SubjectError, match=r"need none$"):
        read_nifti(path, content=content, choices=HeaderChoices.parse(("nan-background",)))


def test_a_subject_with_nan_is_ingested_by_choice_and_leaves_with_it(tmp_path: Path) -> None:
    source = write_cohort(tmp_path / "source")
    path = sorted((source / "images").iterdir())[0]
    write_with_nan(path)
    where = tmp_path / "cohort.zarr"
    settings = IngestSettings(grid="16x16x16@2mm", align="center")
    name = path.name.partition(".")[0]
    assert name in ingest(source, where, settings).quarantined
    chosen = replace(settings, fix_headers=("nan-background",))
    assert name in ingest(source, where, chosen).ingested
    record = CohortStore.open(where).record(name)
    assert record["provenance"]["fixed"] == {"image": ["nan-background"]}
    assert name in ingest(source, where, settings).quarantined
