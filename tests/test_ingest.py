from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_cohort import GRID, labels, volume, write_cohort, write_subject

from cohort.data.geometry import Grid
from cohort.data.ingest import IngestEvent, IngestSettings, ingest
from cohort.data.nifti import write_nifti
from cohort.data.store import CohortStore
from cohort.errors import UsageError

AS_FILE = IngestSettings(grid="12x14x10@2mm")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_cohort(tmp_path / "source")


def _like(path: Path) -> IngestSettings:
    return IngestSettings(like=path / "images" / "a.nii.gz")


def _move(path: Path, shift_mm: tuple[float, float, float]) -> None:
    image = nib.load(path)
    affine = image.affine.copy()
    affine[:3, 3] += shift_mm
    write_nifti(path, np.asarray(image.dataobj), affine)


def test_a_subject_that_lies_on_the_grid_is_not_touched(source, tmp_path):
    report = ingest(source, tmp_path / "s", _like(source))
    assert report.ingested == ("a", "b", "c")
    assert report.outside == {"a": 0.0, "b": 0.0, "c": 0.0}
    subject = CohortStore.open(tmp_path / "s").read("b")
    np.testing.assert_allclose(subject.volume, volume(1), rtol=1e-6)
    np.testing.assert_array_equal(subject.labels, labels(1))


def test_the_grid_is_centred_on_the_labels_of_the_reference(source, tmp_path):
    report = ingest(source, tmp_path / "s", AS_FILE)
    found = np.nonzero(labels(0))
    middle = [(axis.min() + axis.max()) / 2 for axis in found]
    np.testing.assert_allclose(report.grid.center_mm, GRID.voxel_to_world(middle), atol=1e-4)


def test_without_labels_the_grid_is_centred_on_the_image(source, tmp_path):
    for path in (source / "labels").iterdir():
        path.unlink()
    report = ingest(source, tmp_path / "s", AS_FILE)
    np.testing.assert_allclose(report.grid.center_mm, GRID.center_mm, atol=1e-4)
    assert report.outside == {}
    assert not CohortStore.open(tmp_path / "s").has_labels


def test_a_grid_from_the_data_has_room_for_the_largest_in_steps_of_16(source, tmp_path):
    write_subject(source, "d", 3, Grid.axis_aligned((17, 20, 33), (2.0, 2.0, 1.0), (0, 0, 0)))
    report = ingest(source, tmp_path / "s")
    assert report.grid.spacing_mm == (2.0, 2.0, 2.0)
    assert report.grid.shape == (32, 32, 32)


@pytest.mark.parametrize("align", ["grid", "center"])
def test_alignment_undoes_a_shift_between_scanners(source, tmp_path, align):
    shift_mm = (31.0, -17.0, 6.0)
    write_nifti(source / "images/b.nii.gz", volume(0), GRID.affine)
    write_nifti(source / "labels/b.nii.gz", labels(0), GRID.affine)
    for folder in ("images", "labels"):
        _move(source / folder / "b.nii.gz", shift_mm)
    store = tmp_path / "s"
    ingest(source, store, IngestSettings(grid=AS_FILE.grid, align=align))
    one, other = (CohortStore.open(store).read(name) for name in "ab")
    np.testing.assert_allclose(one.volume, other.volume, atol=2e-3)
    np.testing.assert_array_equal(one.labels, other.labels)
    moved = CohortStore.open(store).record("b")["provenance"]["translation_mm"]
    np.testing.assert_allclose(moved, np.negative(shift_mm), atol=1e-4)


def test_labels_half_a_voxel_off_the_grid_lose_no_plane(tmp_path: Path) -> None:
    """Headers hold 3.3 mm as 3.29999995: what rounds down on one side goes up on the other."""
    grid = Grid.axis_aligned((48, 54, 16), (3.3, 3.3, 3.3), (0, 0, 0))
    planes = np.broadcast_to(np.arange(48)[:, None, None], grid.shape).astype(np.uint16)
    for folder, values in (("images", volume(0, grid)), ("labels", planes)):
        (tmp_path / folder).mkdir()
        write_nifti(tmp_path / folder / "a.nii.gz", values, grid.affine)
    ingest(tmp_path, tmp_path / "s", IngestSettings(grid="48x54x16@3.3mm"))
    found = CohortStore.open(tmp_path / "s").read("a").labels
    assert found is not None
    np.testing.assert_array_equal(found[:-1, 20, 5], np.arange(1, 48))


def test_labels_that_fall_off_the_grid_are_counted(source, tmp_path):
    for folder in ("images", "labels"):
        _move(source / folder / "b.nii.gz", (8.0, 0, 0))
    report = ingest(source, tmp_path / "s", _like(source))
    lost = labels(1)[8:] > 0
    assert report.outside["b"] == pytest.approx(lost.sum() / (labels(1) > 0).sum())
    assert report.outside["b"] > 0


def test_outside_of_the_image_the_volume_has_its_minimum_and_labels_are_zero(source, tmp_path):
    ingest(source, tmp_path / "s", IngestSettings(grid="40x14x10@2mm"))
    subject = CohortStore.open(tmp_path / "s").read("a")
    assert (subject.volume[:5] == volume(0).min()).all()
    assert not subject.labels[:5].any()


@pytest.mark.parametrize("codes", ["PSR", "LPI", "SLA"])
def test_a_file_in_another_orientation_gives_the_same_subject(source, tmp_path, codes):
    ingest(source, tmp_path / "straight", _like(source))
    wanted = nib.orientations.axcodes2ornt(codes)
    for folder in ("images", "labels"):
        path = source / folder / "b.nii.gz"
        image = nib.Nifti1Image.from_bytes(nib.load(path).to_bytes())
        turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted)
        nib.save(image.as_reoriented(turn), path)
    ingest(source, tmp_path / "turned", _like(source))
    straight, turned = (CohortStore.open(tmp_path / name) for name in ("straight", "turned"))
    assert turned.record("b")["provenance"]["header"]["axcodes"] == codes
    np.testing.assert_allclose(turned.read("b").volume, straight.read("b").volume, atol=1e-4)
    np.testing.assert_array_equal(turned.read("b").labels, straight.read("b").labels)


def test_known_truth_leads_from_the_subject_to_the_template_and_back(source, tmp_path):
    field_grid = Grid.axis_aligned((6, 6, 6), (6.0, 6.0, 6.0), GRID.center_mm)
    forth = np.broadcast_to(np.float32([4.0, -2.0, 1.0])[:, None, None, None], (3, 6, 6, 6))
    (source / "truth").mkdir()
    for name, sign in (("to", 1), ("from", -1)):
        path = source / "truth" / f"b_{name}-template.nii.gz"
        write_nifti(path, sign * forth, field_grid.affine, intent="vector")
    for folder in ("images", "labels"):
        _move(source / folder / "b.nii.gz", (10.0, 0, 0))
    settings = IngestSettings(grid="12x14x10@2mm", align="grid")
    ingest(source, tmp_path / "s", settings)
    store = CohortStore.open(tmp_path / "s")
    subject = store.read("b")
    # working w = native n - 10 mm, template = n + (4, -2, 1): from w it is (14, -2, 1) mm away
    np.testing.assert_allclose(subject.to_template[:, 3, 4, 5], (7.0, -1.0, 0.5), atol=1e-5)
    np.testing.assert_allclose(subject.from_template[:, 3, 4, 5], (-7.0, 1.0, -0.5), atol=1e-5)
    assert store.has_truth
    assert store.read("a").to_template is None


def test_masks_and_keypoints_come_along(source, tmp_path):
    (source / "masks").mkdir()
    (source / "keypoints").mkdir()
    write_nifti(source / "masks/a.nii.gz", labels(0) > 0, GRID.affine)
    (source / "keypoints/a.csv").write_text("x,y,z\n1,2,3\n-4.5,5,6\n")
    _move(source / "images/a.nii.gz", (0, 0, 0))
    settings = IngestSettings(like=_like(source).like, align="grid", reference="b")
    ingest(source, tmp_path / "s", settings)
    subject = CohortStore.open(tmp_path / "s").read("a")
    np.testing.assert_array_equal(subject.mask, labels(0) > 0)
    np.testing.assert_allclose(subject.keypoints_mm, [[1, 2, 3], [-4.5, 5, 6]], atol=1e-5)


def test_the_record_tells_where_a_subject_came_from(source, tmp_path):
    ingest(source, tmp_path / "s", AS_FILE)
    record = CohortStore.open(tmp_path / "s").record("b")
    assert record["source"]["labels"]["path"] == str(source / "labels/b.nii.gz")
    assert len(record["source"]["image"]["sha256"]) == 64
    provenance = record["provenance"]
    assert provenance["header"]["shape"] == [12, 14, 10]
    assert provenance["header"]["sform_code"] == 1
    assert Grid.from_json(provenance["native_grid"]).distance(GRID) < 1e-4
    assert provenance["settings"]["reference"] == "a"
    assert provenance["version"]


def test_progress_hears_of_every_subject_once(source, tmp_path):
    (source / "images/c.nii.gz").write_bytes(b"")
    events: list[IngestEvent] = []
    ingest(source, tmp_path / "s", AS_FILE, progress=events.append)
    assert [(event.subject_id, event.status) for event in events] == [
        ("a", "ingested"),
        ("b", "ingested"),
        ("c", "quarantined"),
    ]
    assert [(event.done, event.total) for event in events] == [(1, 3), (2, 3), (3, 3)]
    assert "0 bytes" in events[-1].message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"align": "elastic"}, "need none, grid or center, or to register: rigid or affine"),
        ({"grid": "2mm"}, "for example"),
        ({"grid": "8x8x8@2mm", "like": Path("x.nii")}, "both choose"),
        ({"assume_orientation": "LPS"}, "need RAS"),
        ({"fix_headers": ("qfrom",)}, "'qfrom'; need some of sform, qform, units, ignore-units"),
        ({"fix_headers": ("sform", "qform")}, "both sform and qform; need one"),
    ],
)
def test_settings_are_checked_when_they_are_made(settings, message):
    with pytest.raises(UsageError, match=message):
        IngestSettings(**settings)


def test_a_reference_that_cannot_serve_is_named(source, tmp_path):
    (source / "images/b.nii.gz").write_bytes(b"")
    for name, message in (("z", "no subject 'z'"), ("b", "'b' cannot be read: E_EMPTY_FILE")):
        with pytest.raises(UsageError, match=message):
            ingest(source, tmp_path / "s", IngestSettings(reference=name))
    assert not (tmp_path / "s").exists()


def test_a_grid_on_which_no_volume_change_can_be_measured_is_refused() -> None:
    with pytest.raises(UsageError, match="grid '12x4x10@2mm' is too small: need at least 5") as bad:
        IngestSettings(grid="12x4x10@2mm")
    assert bad.value.code == "E_GRID"
