"""Every way a subject can be broken: a code, a sentence that helps, no harm to the others."""

import gzip
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_cohort import GRID, half_written, labels, volume, write_cohort

from cohort.data.ingest import IngestSettings, ingest
from cohort.data.nifti import write_nifti
from cohort.data.store import CohortStore

pytestmark = pytest.mark.faults
Break = Callable[[Path], None]
SETTINGS = IngestSettings(grid="12x14x10@2mm")


def _edit_bytes(edit: Callable[[bytes], bytes]) -> Break:
    """Change the file as it lies on the disk."""
    return lambda path: path.write_bytes(edit(path.read_bytes())) and None


def _edit_header(**fields: object) -> Break:
    """Change header fields and compress again, so that only the header is wrong."""

    def edit(path: Path) -> None:
        content = gzip.decompress(path.read_bytes())
        header = nib.Nifti1Header(content[:348], check=False)
        for name, value in fields.items():
            header[name] = value
        path.write_bytes(gzip.compress(header.binaryblock + content[348:]))

    return edit


def _edit_data(edit: Callable[[np.ndarray], np.ndarray]) -> Break:
    """Write other values into the same kind of file."""

    def write(path: Path) -> None:
        image = nib.load(path)
        data = edit(np.asarray(image.dataobj))
        nib.save(nib.Nifti1Image(data, image.affine, dtype=data.dtype), path)

    return write


def _set(value: float) -> Break:
    def edit(data: np.ndarray) -> np.ndarray:
        changed = data.astype(np.float32)
        changed[3, 4, 5] = value
        return changed

    return _edit_data(edit)


def _wrong_crc(stored: bytes) -> bytes:
    crc, size = struct.unpack("<II", stored[-8:])
    return stored[:-8] + struct.pack("<II", crc ^ 1, size)


def _bomb(path: Path) -> None:
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(5_000_000)))


def _pair(path: Path) -> None:
    path.unlink()
    nib.save(nib.Nifti1Pair(volume(1), GRID.affine), path.with_name("b.img"))


def _no_codes(path: Path) -> None:
    _edit_header(sform_code=0, qform_code=0)(path)


def _other_labels(edit: Break) -> Break:
    return lambda path: edit(path.parents[1] / "labels" / path.name)


def _mask(values: np.ndarray) -> Break:
    def write(path: Path) -> None:
        (path.parents[1] / "masks").mkdir()
        write_nifti(path.parents[1] / "masks" / path.name, values, GRID.affine)

    return write


def _keypoints(text: str) -> Break:
    def write(path: Path) -> None:
        (path.parents[1] / "keypoints").mkdir()
        (path.parents[1] / "keypoints" / "b.csv").write_text(text)

    return write


def _link(target: str) -> Break:
    def link(path: Path) -> None:
        path.unlink()
        path.symlink_to(path.name if target == "itself" else target)

    return link


def _scalar_truth(path: Path) -> None:
    (path.parents[1] / "truth").mkdir()
    write_nifti(path.parents[1] / "truth" / "b_to-template.nii.gz", volume(1), GRID.affine)


HUGE = np.array([3, 20000, 20000, 20000, 1, 1, 1, 1])
BROKEN: list[tuple[str, Break, str, str]] = [
    ("truncated", _edit_bytes(lambda raw: raw[:-500]), "E_TRUNCATED", r"\d+ of 7072 bytes, \d+ by"),
    (
        "trailer missing",
        _edit_bytes(lambda raw: raw[:-8]),
        "E_TRUNCATED",
        "gzip trailer is missing",
    ),
    ("wrong crc", _edit_bytes(_wrong_crc), "E_GZIP_CRC", "incorrect data check"),
    (
        "trailing bytes",
        _edit_bytes(lambda raw: raw + b"junk"),
        "E_TRAILING",
        "4 bytes after the end",
    ),
    ("two members", _edit_bytes(lambda raw: raw * 2), "E_TRAILING", "need one gzip member"),
    ("bomb", _bomb, "E_BOMB", "unpacks to more than the 7072 bytes"),
    (
        "header lies",
        _edit_header(dim=HUGE),
        "E_BOMB",
        "asks for 32000000000352 .*at most 4294967296",
    ),
    ("data far away", _edit_header(vox_offset=2e9), "E_TRUNCATED", "are missing"),
    (
        "data in the header",
        _edit_header(vox_offset=3),
        "E_HEADER",
        "start at byte 3.0; need at least",
    ),
    ("no axes", _edit_header(dim=np.zeros(8)), "E_HEADER", "need 1 to 7 axes"),
    ("empty", _edit_bytes(lambda raw: b""), "E_EMPTY_FILE", "0 bytes, need a NIfTI file"),
    ("text", _edit_bytes(lambda raw: b"hello" * 99), "E_NOT_NIFTI", "no n.1 or n.2 signature"),
    ("text in gzip", _edit_bytes(lambda raw: gzip.compress(b"x")), "E_NOT_NIFTI", "is not NIfTI"),
    ("pair", _pair, "E_PAIR", "half of a .hdr/.img pair; need one file"),
    ("nan", _set(np.nan), "E_NONFINITE", "1 values of 1680 that are NaN"),
    ("inf", _set(np.inf), "E_NONFINITE", "infinite; need none"),
    ("constant", _edit_data(lambda data: data * 0 + 7), "E_CONSTANT", "is 7 everywhere; need"),
    ("2d", _edit_data(lambda data: data[:, :, 0]), "E_NDIM", "shape 12x14; need a 3D volume"),
    ("slice", _edit_data(lambda data: data[:, :, :1]), "E_NDIM", "shape 12x14x1; need a 3D volume"),
    (
        "4d",
        _edit_data(lambda data: np.stack([data] * 2, -1)),
        "E_NDIM",
        "12x14x10x2; need one value",
    ),
    ("complex", _edit_data(lambda data: data.astype(np.complex64)), "E_DTYPE", "complex64"),
    ("colour", _edit_header(datatype=128), "E_DTYPE", r"data type 128 \(RGB\); need integers"),
    ("unknown type", _edit_header(datatype=999), "E_DTYPE", r"999 \(unknown\)"),
    (
        "zero affine",
        _edit_header(srow_x=0, srow_y=0, srow_z=0),
        "E_AFFINE_ZERO",
        "voxel size above 0.*--fix-headers qform takes its qform instead",
    ),
    (
        "flat affine",
        _edit_header(srow_x=[2, 0, 2, 0], srow_z=0),
        "E_AFFINE_SINGULAR",
        "sform that places no voxels: .*in one plane",
    ),
    (
        "affine of no numbers",
        _edit_header(srow_x=[np.nan, 0, 0, 0], qform_code=0),
        "E_AFFINE_NAN",
        "must be finite",
    ),
    ("bad quaternion", _edit_header(quatern_b=2, sform_code=0), "E_QFORM", "is no rotation"),
    (
        "negative voxel size",
        _edit_header(pixdim=[1, -2, 2, 2, 0, 0, 0, 0]),
        "E_QFORM",
        "should be positive; --fix-headers sform takes its sform instead",
    ),
    (
        "sheared",
        _edit_header(srow_x=[2, 0.2, 0, -6], qform_code=0),
        "E_SHEAR",
        "5.71 degrees off right angles.*there is no qform.*--fix-headers sform to take it",
    ),
    (
        "mirrored",
        _edit_header(srow_x=[-2, 0, 0, 16]),
        "E_MIRROR",
        r"sform \(axes LAS\) and a qform \(axes RAS\).*left and right are exchanged",
    ),
    (
        "metres",
        _edit_header(xyzt_units=1),
        "E_UNITS",
        r"are metres \(xyzt_units 1\), so that a voxel is 2000 x 2000 x 2000 mm",
    ),
    ("microns", _edit_header(xyzt_units=3), "E_UNITS", "0.002 x 0.002 x 0.002 mm; many programs"),
    ("forms differ", _edit_header(qoffset_x=50), "E_FORM", r"sform \(code 1\).*qform \(code 1\)"),
    ("no orientation", _no_codes, "E_ORIENT", "sform code 0, qform code 0.*--assume-orientation"),
    (
        "labels of another shape",
        _other_labels(_edit_data(lambda data: data[:-1])),
        "E_LABEL_SHAPE",
        "has shape 11x14x10; need the grid of .*12x14x10",
    ),
    (
        "labels elsewhere",
        _other_labels(_edit_header(srow_x=[2, 0, 0, 0], qform_code=0)),
        "E_LABEL_SHAPE",
        "voxels away",
    ),
    ("fractions", _other_labels(_set(1.5)), "E_LABEL_VALUES", "1 values such as 1.5; need whole"),
    ("negative", _other_labels(_set(-2)), "E_LABEL_VALUES", "such as -2; need .* 0 to 65535"),
    ("label nan", _other_labels(_set(np.nan)), "E_NONFINITE", "labels/b.nii.gz has 1 values"),
    ("mask empty", _mask(np.zeros(GRID.shape, np.uint8)), "E_MASK_EMPTY", "is 0 everywhere"),
    ("mask shape", _mask(np.ones((4, 4, 4), np.uint8)), "E_MASK_SHAPE", "has shape 4x4x4; need"),
    ("keypoint columns", _keypoints("a,b\n1,2\n"), "E_KEYPOINTS", "need a CSV .*header x,y,z"),
    ("keypoint text", _keypoints("x,y,z\n1,2,up\n"), "E_KEYPOINTS", "could not convert"),
    ("no keypoints", _keypoints("x,y,z\n"), "E_KEYPOINTS", "values of shape"),
    ("keypoint nan", _keypoints("x,y,z\n1,2,nan\n"), "E_KEYPOINTS", "found NaN"),
    ("truth without vectors", _scalar_truth, "E_NDIM", "need one vector of 3 per voxel"),
    ("link outside", _link("/etc/passwd"), "E_SYMLINK", "link to /etc/passwd, outside of"),
    ("dangling link", _link("nowhere.nii.gz"), "E_MISSING", "is no file; need the image"),
    ("circular link", _link("itself"), "E_MISSING", "is no file; need the image"),
    (
        "far away",
        _edit_header(srow_x=[2, 0, 0, 9e4], qform_code=0),
        "E_OUTSIDE",
        r"subject b, [\d.]+ x [\d.]+ x [\d.]+ mm, lies around .* aligning by grid",
    ),
]


@pytest.mark.parametrize(
    ("breaks", "code", "message"),
    [case[1:] for case in BROKEN],
    ids=[case[0] for case in BROKEN],
)
def test_a_broken_subject_is_quarantined_and_the_others_are_there(tmp_path, breaks, code, message):
    source = write_cohort(tmp_path / "source")
    if code == "E_OUTSIDE":  # the labels stay behind, which would be reported first
        (source / "labels/b.nii.gz").unlink()
    breaks(source / "images/b.nii.gz")
    report = ingest(source, tmp_path / "s", SETTINGS)
    assert report.ingested == ("a", "c")
    assert list(report.quarantined) == ["b"]
    found_code, found_message = report.quarantined["b"]
    assert found_code == code
    assert str(source) in found_message or "subject b" in found_message
    assert re.search(message, found_message)
    store = CohortStore.open(tmp_path / "s")
    assert store.subject_ids == ("a", "c")
    assert store.read("c").labels.max() == 3
    assert store.quarantined["b"]["message"] == found_message
    assert not half_written(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_a_file_without_permission_is_that_subject_s_fault(tmp_path):
    source = write_cohort(tmp_path / "source")
    (source / "images/b.nii.gz").chmod(0)
    assert ingest(source, tmp_path / "s", SETTINGS).quarantined["b"][0] == "E_UNREADABLE"


def test_labels_that_differ_in_storage_order_only_are_the_same_labels(tmp_path):
    source = write_cohort(tmp_path / "source")
    image = nib.Nifti1Image(labels(1), GRID.affine)
    flipped = image.as_reoriented(np.array([[0, -1], [1, 1], [2, -1]]))
    nib.save(flipped, source / "labels/b.nii.gz")
    assert ingest(source, tmp_path / "s", SETTINGS).quarantined == {}
