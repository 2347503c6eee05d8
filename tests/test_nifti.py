import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_cohort import GRID, labels, volume

from cohort.data.header_choices import HeaderChoices
from cohort.data.nifti import read_grid, read_nifti, write_nifti
from cohort.errors import SubjectError


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.nii.gz"
    write_nifti(path, volume(0), GRID.affine)
    return path


def _refused(path: Path, code: str, message: str, **settings) -> None:
    with pytest.raises(SubjectError, match=message) as caught:
        read_nifti(path, **settings)
    assert caught.value.code == code
    assert str(path) in caught.value.message


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_what_is_written_is_read_again(tmp_path, name, dtype):
    data = volume(0).astype(dtype)
    write_nifti(tmp_path / name, data, GRID.affine)
    found = read_nifti(tmp_path / name)
    assert found.data.dtype == np.float32
    np.testing.assert_array_equal(found.data, data)
    np.testing.assert_allclose(found.affine, GRID.affine)
    assert found.header["dtype"] == np.dtype(dtype).name
    assert found.header["form"] == "sform"


def test_other_readers_understand_what_is_written(tmp_path):
    write_nifti(tmp_path / "x.nii.gz", volume(0), GRID.affine)
    image = nib.load(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(), volume(0))
    assert image.header.get_xyzt_units()[0] == "mm"
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(image.header.get_qform(), GRID.affine, atol=1e-5)


def test_vectors_are_stored_as_nifti_wants_them_and_come_back(tmp_path):
    field = np.random.default_rng(0).random((3, *GRID.shape), dtype=np.float32)
    write_nifti(tmp_path / "u.nii.gz", field, GRID.affine, intent="vector")
    assert nib.load(tmp_path / "u.nii.gz").shape == (*GRID.shape, 1, 3)
    assert nib.load(tmp_path / "u.nii.gz").header["intent_code"] == 1007
    found = read_nifti(tmp_path / "u.nii.gz", content="vectors")
    np.testing.assert_array_equal(found.data, field)
    assert found.grid.shape == GRID.shape
    _refused(tmp_path / "u.nii.gz", "E_NDIM", "one value per voxel")


def test_equal_data_are_equal_bytes_and_nothing_else_is_left(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_nifti(tmp_path / name / "x.nii.gz", volume(0), GRID.affine)
        assert [path.name for path in (tmp_path / name).iterdir()] == ["x.nii.gz"]
    one, two = (tmp_path / name / "x.nii.gz" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.faults
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR", "LIA", "ASL"])
def test_every_orientation_is_read_as_nibabel_makes_it_canonical(tmp_path, codes):
    ras = nib.Nifti1Image(volume(0), GRID.affine)
    wanted = nib.orientations.axcodes2ornt(codes)
    turned = ras.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(ras.affine), wanted)
    )
    nib.save(turned, tmp_path / "turned.nii.gz")
    found = read_nifti(tmp_path / "turned.nii.gz")
    assert found.header["axcodes"] == codes
    np.testing.assert_array_equal(found.data, volume(0))
    np.testing.assert_allclose(found.affine, GRID.affine, atol=1e-5)
    assert read_grid(tmp_path / "turned.nii.gz").distance(found.grid) == 0


def test_nifti_2_and_big_endian_and_scaled_files_are_read_as_nibabel_reads_them(tmp_path):
    stored = np.arange(np.prod(GRID.shape), dtype=np.int16).reshape(GRID.shape)
    scaled = nib.Nifti1Image(stored, GRID.affine)
    scaled.header.set_slope_inter(0.5, -7)
    big = nib.Nifti1Image(stored, GRID.affine, nib.Nifti1Header(endianness=">"))
    for name, image in {
        "nifti2.nii.gz": nib.Nifti2Image(stored, GRID.affine),
        "scaled.nii": scaled,
        "big.nii.gz": big,
        "trailing.nii": nib.Nifti1Image(stored[..., None, None], GRID.affine),
    }.items():
        image.to_filename(tmp_path / name)
        expected = nib.load(tmp_path / name).get_fdata(dtype=np.float32).reshape(GRID.shape)
        np.testing.assert_array_equal(read_nifti(tmp_path / name).data, expected)


@pytest.mark.faults
def test_a_slope_that_is_no_number_means_no_scaling(tmp_path, good):
    content = bytearray(gzip.decompress(good.read_bytes()))
    content[112:116] = np.float32(np.nan).tobytes()
    (tmp_path / "slope.nii").write_bytes(content)
    np.testing.assert_array_equal(read_nifti(tmp_path / "slope.nii").data, volume(0))


def test_two_forms_that_agree_are_one_and_two_that_disagree_are_shown(tmp_path):
    image = nib.Nifti1Image(volume(0), GRID.affine)
    moved = GRID.affine.copy()
    moved[0, 3] += 0.1
    for shift, name in ((0.1, "near.nii"), (0.4, "far.nii")):
        moved[0, 3] = GRID.affine[0, 3] + shift
        image.set_sform(GRID.affine, 1)
        image.set_qform(moved, 1)
        nib.save(image, tmp_path / name)
    np.testing.assert_allclose(read_nifti(tmp_path / "near.nii").affine, GRID.affine)
    _refused(tmp_path / "far.nii", "E_FORM", r"0\.20 voxels apart: sform .* and qform")


@pytest.mark.faults
def test_a_file_without_orientation_is_refused_or_assumed(tmp_path):
    image = nib.Nifti1Image(volume(0), GRID.affine)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "x.nii.gz")
    _refused(
        tmp_path / "x.nii.gz", "E_ORIENT", "sform code 0, qform code 0.*--assume-orientation RAS"
    )
    found = read_nifti(tmp_path / "x.nii.gz", choices=HeaderChoices("RAS"))
    assert found.header["form"] == "assumed"
    assert found.grid.spacing_mm == (2, 2, 2)
    np.testing.assert_allclose(found.grid.center_mm, 0)


@pytest.mark.faults
def test_every_flipped_bit_of_a_gzip_stream_is_found(tmp_path, good):
    stored = good.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(stored)
        # the ten bytes of the gzip header hold a time and a system, which say nothing of the data
        position = int(random.integers(10, len(stored)))
        damaged[position] ^= 1 << int(random.integers(8))
        (tmp_path / "x.nii.gz").write_bytes(damaged)
        with pytest.raises(SubjectError):
            read_nifti(tmp_path / "x.nii.gz")


@pytest.mark.faults
@pytest.mark.parametrize("kept", [5, 200, 400, -4, -1])
def test_every_cut_of_a_gzip_file_is_found(tmp_path, good, kept):
    (tmp_path / "x.nii.gz").write_bytes(good.read_bytes()[:kept])
    with pytest.raises(SubjectError, match=r"x\.nii\.gz") as caught:
        read_nifti(tmp_path / "x.nii.gz")
    assert caught.value.code in {"E_TRUNCATED", "E_NOT_NIFTI"}


@pytest.mark.faults
def test_an_uncompressed_file_must_end_where_its_header_says(tmp_path, good):
    content = gzip.decompress(good.read_bytes())
    (tmp_path / "short.nii").write_bytes(content[:-3])
    (tmp_path / "long.nii").write_bytes(content + b"more")
    _refused(tmp_path / "short.nii", "E_TRUNCATED", "3 are missing")
    _refused(tmp_path / "long.nii", "E_TRAILING", "4 bytes after")


@pytest.mark.faults
def test_a_limit_is_kept_before_anything_is_unpacked(good):
    message = r"asks for 7072 bytes .12x14x10 float32.; at most 7000"
    _refused(good, "E_BOMB", message, max_bytes=7000)
    assert read_nifti(good, max_bytes=7072).data.shape == GRID.shape


def test_labels_must_be_whole_numbers_in_range(tmp_path):
    values = labels(0).astype(np.float32)
    write_nifti(tmp_path / "good.nii.gz", values, GRID.affine)
    assert read_nifti(tmp_path / "good.nii.gz", content="labels").data.max() == 3
    for wrong in (0.5, -1, 65536, 16777216):
        values[2, 3, 4] = wrong
        write_nifti(tmp_path / "x.nii.gz", values, GRID.affine)
        _refused(
            tmp_path / "x.nii.gz", "E_LABEL_VALUES", f"1 values such as {wrong};", content="labels"
        )


def test_writing_refuses_other_shapes(tmp_path):
    with pytest.raises(ValueError, match=r"need \[D, H, W\], got shape \(3, 4\)"):
        write_nifti(tmp_path / "x.nii", np.zeros((3, 4)), GRID.affine)
    with pytest.raises(ValueError, match=r"need \[3, D, H, W\]"):
        write_nifti(tmp_path / "x.nii", np.zeros((4, 4, 4, 3)), GRID.affine, intent="vector")
    assert not list(tmp_path.iterdir())
