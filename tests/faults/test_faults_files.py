"""F9 to F12: values, orientation, grids and gzip streams, where other tests have no case.

The tables of test_bad_input, test_header_forms and test_nifti hold the rest.
"""

import gzip
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_cohort import GRID, volume, write_cohort, write_subject

from cohort.data.geometry import Grid
from cohort.data.ingest import IngestSettings, ingest
from cohort.data.nifti import read_nifti, write_nifti
from cohort.data.store import CohortStore
from cohort.errors import SubjectError

pytestmark = pytest.mark.faults
SETTINGS = IngestSettings(grid="12x14x10@2mm")


def _rewritten(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nib.load(path)
    data = change(np.asarray(image.dataobj))
    nib.save(nib.Nifti1Image(data, image.affine, dtype=data.dtype), path)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: data * 0, "E_CONSTANT"),
        (lambda data: data[:1, :1, :1], "E_NDIM"),
        (lambda data: np.full_like(data, -np.inf), "E_NONFINITE"),
        (lambda data: data.astype(np.float64) * 1e300, "E_NONFINITE"),
        (lambda data: data.astype(np.complex128), "E_DTYPE"),
    ],
    ids=["all zero", "one voxel", "all infinite", "beyond float32", "complex"],
)
def test_values_that_are_no_volume_are_refused(tmp_path, change, code):
    source = write_cohort(tmp_path / "source")
    _rewritten(source / "images/b.nii.gz", change)
    report = ingest(source, tmp_path / "s", SETTINGS)
    assert report.ingested == ("a", "c")
    assert report.quarantined["b"][0] == code


@pytest.mark.parametrize(
    "change",
    [lambda data: -data - 500, lambda data: np.rint(data).astype(np.int64)],
    ids=["negative", "int64"],
)
def test_values_that_are_unusual_are_taken_as_they_are(tmp_path, change):
    source = write_cohort(tmp_path / "source")
    _rewritten(source / "images/b.nii.gz", change)
    like = IngestSettings(like=source / "images/a.nii.gz")
    assert not ingest(source, tmp_path / "s", like).quarantined
    found = CohortStore.open(tmp_path / "s").read("b").volume
    np.testing.assert_allclose(found, change(volume(1)), atol=1e-4)


@pytest.mark.parametrize("codes", ["LPS", "PSR", "IAL"])
def test_another_order_of_the_axes_gives_the_same_subject(tmp_path, codes):
    source = write_cohort(tmp_path / "source")
    ingest(source, tmp_path / "ras", SETTINGS)
    for folder in ("images", "labels"):
        path = source / folder / "b.nii.gz"
        image = nib.load(path)
        wanted = nib.orientations.axcodes2ornt(codes)
        nib.save(
            image.as_reoriented(
                nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted)
            ),
            path,
        )
    ingest(source, tmp_path / "turned", SETTINGS)
    stores = [CohortStore.open(tmp_path / name) for name in ("ras", "turned")]
    assert stores[0].digest == stores[1].digest


def test_an_oblique_scan_lands_where_the_straight_one_does(tmp_path):
    """A smooth ball, scanned along axes turned by 20 degrees, within 1 % of its range."""

    def ball(grid: Grid) -> np.ndarray:
        voxels = np.stack(np.indices(grid.shape), axis=-1)
        away = np.linalg.norm(grid.voxel_to_world(voxels) - (8, -2, 5), axis=-1)
        return (1000 / (1 + np.exp((away - 12) / 3))).astype(np.float32)

    straight = Grid.axis_aligned((24, 26, 22), (1.5, 1.5, 1.5), (5, -3, 7))
    turn, angle = np.eye(4), np.deg2rad(20)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    centre = np.eye(4)
    centre[:3, 3] = straight.center_mm
    larger = Grid.axis_aligned((34, 36, 22), (1.5, 1.5, 1.5), (5, -3, 7))
    oblique = Grid(larger.shape, centre @ turn @ np.linalg.inv(centre) @ larger.affine)
    for name, grid in (("a", straight), ("b", oblique)):
        (tmp_path / "source/images").mkdir(parents=True, exist_ok=True)
        write_nifti(tmp_path / f"source/images/{name}.nii.gz", ball(grid), grid.affine)
    like = IngestSettings(like=tmp_path / "source/images/a.nii.gz")
    assert not ingest(tmp_path / "source", tmp_path / "s", like).quarantined
    store = CohortStore.open(tmp_path / "s")
    inner = (slice(4, -4),) * 3
    difference = np.abs(store.read("a").volume - store.read("b").volume)[inner]
    assert difference.max() < 0.01 * 1000


def test_subjects_of_other_shapes_and_voxels_share_the_working_grid(tmp_path):
    source = write_cohort(tmp_path / "source")
    other = Grid.axis_aligned((9, 20, 15), (3.0, 1.5, 1.2), GRID.center_mm)
    write_subject(source, "d", 3, other)
    report = ingest(source, tmp_path / "s", SETTINGS)
    assert not report.quarantined
    store = CohortStore.open(tmp_path / "s")
    assert {store.read(name).volume.shape for name in store.subject_ids} == {GRID.shape}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.nii.gz"
    write_nifti(path, volume(0), GRID.affine)
    return path


def test_two_hundred_flipped_bits_of_a_gzip_file(tmp_path: Path, good: Path) -> None:
    """Bits of the gzip header that say nothing of the data may change, the values may not."""
    stored, unnoticed = good.read_bytes(), 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        damaged = bytearray(stored)
        position = int(random.integers(len(stored))) if seed % 4 else int(random.integers(10))
        damaged[position] ^= 1 << int(random.integers(8))
        (tmp_path / "x.nii.gz").write_bytes(damaged)
        try:
            found = read_nifti(tmp_path / "x.nii.gz")
        except SubjectError:
            continue
        assert position < 10, f"seed {seed}: byte {position} changed unnoticed"
        np.testing.assert_array_equal(found.data, volume(0))
        unnoticed += 1
    assert 0 < unnoticed < 50


def test_a_stream_of_no_gzip_and_one_that_says_it_is_empty(tmp_path: Path, good: Path) -> None:
    for name, content, code in (
        ("bzip", b"BZh91AY" + good.read_bytes(), "E_NOT_NIFTI"),
        ("nothing", gzip.compress(b""), "E_NOT_NIFTI"),
        ("stored", good.read_bytes()[:10], "E_NOT_NIFTI"),
        ("flags", good.read_bytes()[:3] + b"\xff" + good.read_bytes()[4:], "E_GZIP_CRC"),
    ):
        (tmp_path / "x.nii.gz").write_bytes(content)
        with pytest.raises(SubjectError) as caught:
            read_nifti(tmp_path / "x.nii.gz")
        assert caught.value.code in {code, "E_TRUNCATED"}, name


_MEASURED = """
import sys
from pathlib import Path
from cohort.data.nifti import read_nifti
from cohort.errors import SubjectError
from cohort.studies.bench.machine import forget_peak, peak_bytes
read_nifti(Path(sys.argv[1]))  # all that is imported and allocated for any file
before = forget_peak()
try:
    read_nifti(Path(sys.argv[2]))
    print("read")
except SubjectError as error:
    print(error.code)
print(peak_bytes() - before)
"""


def _read_apart(good: Path, path: Path) -> tuple[str, int]:
    """What reading gives, and by how many bytes the process grew at its peak."""
    shown = subprocess.run(
        [sys.executable, "-c", _MEASURED, good, path], capture_output=True, text=True, check=True
    )
    code, grown = shown.stdout.split()
    return code, int(grown)


def _zeros_packed(start: bytes, count: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [packer.compress(start)]
    pieces += [packer.compress(bytes(1 << 20)) for _ in range(count >> 20)]
    return b"".join([*pieces, packer.flush()])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "unpacked", "code"),
    [
        ((12, 14, 10), 1 << 30, "E_BOMB"),
        ((20000, 20000, 20000), 1 << 20, "E_BOMB"),
        ((1000, 1000, 1000), 1 << 20, "E_TRUNCATED"),
    ],
    ids=["1 GiB behind a small header", "a header of 32 TB", "a header of 4 GB, 1 MiB of data"],
)
def test_a_bomb_is_refused_within_little_memory(
    tmp_path: Path, good: Path, shape: tuple[int, int, int], unpacked: int, code: str
) -> None:
    header = bytearray(gzip.decompress(good.read_bytes())[:352])
    header[40:48] = struct.pack("<4h", 3, *shape)
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(_zeros_packed(bytes(header), unpacked))
    assert bomb.stat().st_size < 1.1 * 2**20
    found, grown = _read_apart(good, bomb)
    assert found == code
    assert grown < 64 << 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["large.nii", "large.nii.gz"])
@pytest.mark.parametrize("scale", [None, (0.37, -3.1)], ids=["as it is", "scaled"])
def test_an_honest_file_takes_less_than_twice_its_volume(
    tmp_path: Path, good: Path, name: str, scale: tuple[float, float] | None
) -> None:
    large = np.random.default_rng(0).integers(0, 500, (192, 192, 192), dtype=np.int16)
    content = bytearray(nib.Nifti1Image(large, GRID.affine).to_bytes())
    content[123] = 2  # mm
    if scale is not None:
        content[112:120] = struct.pack("<2f", *scale)
    (tmp_path / name).write_bytes(
        gzip.compress(content, 1) if name.endswith(".gz") else bytes(content)
    )
    found, grown = _read_apart(good, tmp_path / name)
    assert found == "read"
    volume_bytes = large.size * np.dtype(np.float32).itemsize
    assert volume_bytes * 0.9 < grown < 2 * volume_bytes


def test_a_device_or_a_pipe_is_no_file(tmp_path: Path) -> None:
    source = write_cohort(tmp_path / "source")
    os.mkfifo(source / "images/d.nii.gz")
    (source / "images/e.nii.gz").mkdir()
    report = ingest(source, tmp_path / "s", SETTINGS)
    assert {name: code for name, (code, _) in report.quarantined.items()} == {
        "d": "E_MISSING", "e": "E_MISSING",
    }  # fmt: skip
