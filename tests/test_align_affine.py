import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import Cohort
from scipy.spatial.transform import Rotation

from cohort.data import align, registered
from cohort.data.align import bring_to_grid
from cohort.data.geometry import Grid
from cohort.data.ingest import ingest
from cohort.data.ingest_settings import IngestSettings, parse_degrees
from cohort.data.native import load_native
from cohort.data.nifti import write_nifti
from cohort.data.sources import find_subjects
from cohort.data.store import CohortStore
from cohort.errors import StorageError, SubjectError, UsageError

GRID = Grid.axis_aligned((32, 30, 28), (3.0, 3.0, 3.0), (5.0, -3.0, 7.0))
# centre, half axes (mm) and height of the parts of a body without any symmetry
PARTS = (
    ((0.0, 0.0, 0.0), (36.0, 30.0, 24.0), 100.0),
    ((18.0, 8.0, -6.0), (9.0, 12.0, 8.0), 90.0),
    ((-16.0, -10.0, 6.0), (12.0, 8.0, 10.0), 60.0),
    ((-4.0, 14.0, 6.0), (8.0, 8.0, 12.0), -70.0),
)
POINTS = np.array([[5.0, -3.0, 7.0], [20.0, 5.0, 0.0], [-10.0, -12.0, 12.0]])
RIGID = IngestSettings(grid="32x30x28@3mm", align="rigid")


def body(points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Volume and labels of the body at world positions ``[..., 3]``."""
    volume, labels = np.zeros(points_mm.shape[:-1]), np.zeros(points_mm.shape[:-1], np.uint16)
    for part, (center, half, height) in enumerate(PARTS, start=1):
        away = (points_mm - GRID.center_mm - center) / half
        radius = np.linalg.norm(away, axis=-1)
        volume += height / (1 + np.exp(8 * (radius - 1)))
        labels[radius < 1] = part
    return volume.astype(np.float32), labels


def motion(degrees: tuple[float, float, float], shift_mm: tuple[float, float, float]) -> np.ndarray:
    """Body world -> subject world, ``[4, 4]``, about the middle of the body."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = GRID.center_mm + shift_mm - matrix[:3, :3] @ GRID.center_mm
    return matrix


MOTIONS = {
    "a": np.eye(4),
    "b": motion((8, -6, 12), (20, -9, 6)),
    "c": motion((-5, 9, -7), (-12, 14, 3)),
}


def write(source: Path, subject_id: str, matrix: np.ndarray, *, labels: bool = True) -> None:
    grid = Grid.axis_aligned((40, 38, 48), (3.0, 3.0, 2.5), matrix[:3] @ [*GRID.center_mm, 1])
    voxels = np.stack(np.indices(grid.shape), axis=-1)
    back = np.linalg.inv(matrix)
    volume, structures = body(grid.voxel_to_world(voxels) @ back[:3, :3].T + back[:3, 3])
    (source / "images").mkdir(parents=True, exist_ok=True)
    write_nifti(source / f"images/{subject_id}.nii.gz", volume, grid.affine)
    if labels:
        (source / "labels").mkdir(exist_ok=True)
        write_nifti(source / f"labels/{subject_id}.nii.gz", structures, grid.affine)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for subject_id, matrix in MOTIONS.items():
        write(tmp_path / "source", subject_id, matrix)
    return tmp_path / "source"


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    scores = [
        2 * ((one == part) & (other == part)).sum() / ((one == part).sum() + (other == part).sum())
        for part in (1, 2, 3, 4)
    ]
    return float(np.mean(scores))


def distance_mm(found: list[list[float]], wanted: np.ndarray) -> float:
    change = np.asarray(found) - wanted
    return float(np.abs(POINTS @ change[:3, :3].T + change[:3, 3]).max())


@pytest.mark.parametrize("way", ["rigid", "affine"])
def test_subjects_that_were_turned_come_to_lie_on_the_reference(source, tmp_path, way):
    report = ingest(source, tmp_path / "s", IngestSettings(grid=RIGID.grid, align=way))
    assert report.ingested == ("a", "b", "c")
    store = CohortStore.open(tmp_path / "s")
    reference = store.read("a")
    for name in "bc":
        subject = store.read(name)
        # the nearest label twice, on 3 mm: the body itself would not reach 0.9
        assert overlap(subject.labels, reference.labels) > 0.85
        assert np.abs(subject.volume - reference.volume).mean() < 2
        found = store.record(name)["provenance"]["registration"]
        assert distance_mm(found["to_native_mm"], MOTIONS[name]) < 0.6


def test_the_record_tells_how_a_subject_was_aligned(source, tmp_path):
    ingest(source, tmp_path / "s", RIGID)
    store = CohortStore.open(tmp_path / "s")
    provenance = store.record("b")["provenance"]
    found = provenance["registration"]
    assert found["score_end"] > found["score_start"]
    assert found["accepted"] is True
    assert found["iterations"] > 0
    assert found["start"].split()[0] in {"header", "center", "axes"}
    assert provenance["settings"]["align"] == "rigid"
    assert provenance["settings"]["reference_facts"] == store.settings["reference_facts"]
    image = store.record("a")["source"]["image"]
    assert store.settings["reference_facts"]["image_sha256"] == image["sha256"]
    assert store.record("a")["provenance"]["registration"] == {
        "to_native_mm": np.eye(4).tolist(),
        "start": "reference",
    }


def test_keypoints_go_where_the_body_goes(source, tmp_path):
    (source / "keypoints").mkdir()
    for name, matrix in MOTIONS.items():
        moved = POINTS @ matrix[:3, :3].T + matrix[:3, 3]
        lines = "\n".join(",".join(map(str, point)) for point in moved)
        (source / f"keypoints/{name}.csv").write_text(f"x,y,z\n{lines}\n")
    ingest(source, tmp_path / "s", RIGID)
    store = CohortStore.open(tmp_path / "s")
    for name in MOTIONS:
        np.testing.assert_allclose(store.read(name).keypoints_mm, POINTS, atol=0.6)


def test_a_subject_is_interpolated_once(source, monkeypatch):
    native = load_native(find_subjects(source).entries[1])
    orders = []
    sample = align._sample

    def counted(values, matrix, shape, order):
        orders.append(order)
        return sample(values, matrix, shape, order)

    monkeypatch.setattr(align, "_sample", counted)
    subject = bring_to_grid(native, GRID, MOTIONS["b"])
    assert orders == [1, 0]  # volume, labels
    volume, labels = body(GRID.voxel_to_world(np.stack(np.indices(GRID.shape), axis=-1)))
    assert np.abs(subject.volume - volume).mean() < 1.5
    assert overlap(subject.labels, labels) > 0.9


def test_known_truth_goes_through_the_affine_exactly(source, tmp_path):
    matrix = MOTIONS["b"]
    linear = np.array([[0.02, 0.01, 0.0], [0.0, -0.03, 0.01], [0.01, 0.0, 0.02]])
    grid = Grid.axis_aligned((24, 24, 24), (12.0, 12.0, 12.0), GRID.center_mm)
    world = grid.voxel_to_world(np.stack(np.indices(grid.shape), axis=-1))
    field = np.moveaxis(world @ linear.T + 2.0, -1, 0).astype(np.float32)
    (source / "truth").mkdir()
    for way in ("to", "from"):
        path = source / "truth" / f"b_{way}-template.nii.gz"
        write_nifti(path, field, grid.affine, intent="vector")
    entry = next(one for one in find_subjects(source).entries if one.subject_id == "b")
    subject = bring_to_grid(load_native(entry), GRID, matrix)
    voxels = np.array([[10, 11, 12], [20, 9, 15], [15, 20, 8]])
    working = GRID.voxel_to_world(voxels)
    native = working @ matrix[:3, :3].T + matrix[:3, 3]
    template = native + native @ linear.T + 2.0
    at_native = working + working @ linear.T + 2.0
    back = np.linalg.inv(matrix)
    arrived = at_native @ back[:3, :3].T + back[:3, 3]
    for found, wanted in ((subject.to_template, template), (subject.from_template, arrived)):
        vectors = found[:, voxels[:, 0], voxels[:, 1], voxels[:, 2]].T
        np.testing.assert_allclose(vectors * GRID.spacing_mm, wanted - working, atol=1e-3)


def test_a_file_as_reference_chooses_the_grid(source, tmp_path):
    atlas = tmp_path / "atlas.nii.gz"
    volume, _ = body(GRID.voxel_to_world(np.stack(np.indices(GRID.shape), axis=-1)))
    write_nifti(atlas, volume, GRID.affine)
    settings = IngestSettings(align="rigid", reference=str(atlas))
    report = ingest(source, tmp_path / "s", settings)
    assert report.grid.distance(GRID) < 1e-3
    store = CohortStore.open(tmp_path / "s")
    for name, matrix in MOTIONS.items():
        found = store.record(name)["provenance"]["registration"]
        assert distance_mm(found["to_native_mm"], matrix) < 0.6
    assert ingest(source, tmp_path / "s", settings).unchanged == ("a", "b", "c")
    write_nifti(atlas, 2 * volume, GRID.affine)
    with pytest.raises(UsageError, match="which is not the same file"):
        ingest(source, tmp_path / "s", settings)


def test_auto_takes_the_subject_that_is_most_like_the_others(tmp_path):
    for subject_id in "bcd":
        write(tmp_path / "source", subject_id, np.eye(4))
    write(tmp_path / "source", "a", np.eye(4))
    odd = tmp_path / "source/images/a.nii.gz"
    noise = np.random.default_rng(0).random((40, 38, 48), np.float32)
    write_nifti(odd, noise, Grid.axis_aligned((40, 38, 48), (3, 3, 2.5), GRID.center_mm).affine)
    settings = IngestSettings(grid=RIGID.grid, align="rigid", reference="auto")
    ingest(tmp_path / "source", tmp_path / "s", settings)
    assert CohortStore.open(tmp_path / "s").settings["reference"] in {"b", "c", "d"}
    again = ingest(tmp_path / "source", tmp_path / "s", settings)
    assert len(again.unchanged) == 4


def test_later_subjects_are_aligned_to_the_reference_that_was_kept(source, tmp_path):
    ingest(source, tmp_path / "s", RIGID)
    for folder in ("images", "labels"):
        (source / folder / "a.nii.gz").unlink()
    write(source, "d", MOTIONS["c"])
    report = ingest(source, tmp_path / "s", IngestSettings(align="rigid"))
    assert report.ingested == ("d",)
    store = CohortStore.open(tmp_path / "s")
    np.testing.assert_array_equal(store.read("d").volume, store.read("c").volume)


def test_a_store_that_died_before_it_had_its_reference_gets_it(source, tmp_path):
    ingest(source, tmp_path / "s", RIGID)
    (tmp_path / "s/reference.npz").rename(tmp_path / "s/.tmp-reference.npz")
    registered._kept_reference.cache_clear()  # another process would have none
    write(source, "d", MOTIONS["c"])
    assert ingest(source, tmp_path / "s", IngestSettings(align="rigid")).ingested == ("d",)


def test_a_reference_that_was_changed_in_the_store_stops_the_ingest(source, tmp_path):
    ingest(source, tmp_path / "s", RIGID)
    path = tmp_path / "s/reference.npz"
    with np.load(path) as packed:
        arrays = dict(packed)
    changed = io.BytesIO()
    np.savez(changed, **(arrays | {"volume": arrays["volume"] + 1}))
    write(source, "d", MOTIONS["c"])
    for content, message in (
        (changed.getvalue(), "is not the reference that the store was made with"),
        (changed.getvalue()[:500], "is damaged"),
    ):
        path.write_bytes(content)
        registered._kept_reference.cache_clear()  # another process would have none
        with pytest.raises(StorageError, match=message):
            ingest(source, tmp_path / "s", IngestSettings(align="rigid"))


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_store(source, tmp_path):
    for workers in (1, 2):
        ingest(source, tmp_path / f"s{workers}", RIGID, workers=workers)
    one, other = (CohortStore.open(tmp_path / name).digest for name in ("s1", "s2"))
    assert one == other


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"align": "center", "reference": "mni.nii.gz"}, "needs align rigid or affine"),
        ({"align": "none", "align_search_degrees": 30}, "align search needs align rigid or affine"),
        ({"align": "rigid", "align_search_degrees": 400}, "need 0 to 180"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        IngestSettings(**settings)


@pytest.mark.parametrize(
    ("reference", "message"),
    [("z", "no subject 'z'"), ("gone.nii.gz", "reference gone.nii.gz cannot be read")],
)
def test_a_bad_reference_is_named(source, tmp_path, reference, message):
    settings = IngestSettings(align="affine", reference=reference)
    with pytest.raises(UsageError, match=message):
        ingest(source, tmp_path / "s", settings)
    assert not (tmp_path / "s").exists()


def test_a_folder_that_holds_something_else_is_left_as_it_is(source, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        ingest(source, folder, RIGID)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_another_reference_or_search_needs_another_store(source, tmp_path):
    ingest(source, tmp_path / "s", RIGID)
    asked = ({"reference": "b"}, {"reference": "auto"}, {"align_search_degrees": 30})
    for change in asked:
        with pytest.raises(UsageError, match="was made with"):
            ingest(source, tmp_path / "s", IngestSettings(align="rigid", **change))


def test_the_angle_of_the_search_is_read_with_and_without_its_unit():
    assert parse_degrees("30deg") == parse_degrees(" 30") == 30.0
    with pytest.raises(UsageError, match="cannot read the angle 'wide'"):
        parse_degrees("wide")


@pytest.mark.slow
def test_the_command_aligns_and_searches(cohort: Cohort, source, tmp_path):
    write(source, "d", motion((-24, 25, 28), (9, 4, -8)))
    store = tmp_path / "s"
    options = ("--align", "rigid", "--align-search", "30deg", "--grid", RIGID.grid)
    shown = cohort("ingest", source, store, *options, "--reference", "c", "--json")
    assert shown.code == 0
    assert shown.json["ingested"] == ["a", "b", "c", "d"]
    settings = json.loads((store / "zarr.json").read_text())["attributes"]["cohort"]["settings"]
    assert (settings["reference"], settings["align_search_degrees"]) == ("c", 30.0)
    opened = CohortStore.open(store)
    assert overlap(opened.read("d").labels, opened.read("c").labels) > 0.85


def test_importing_ingest_does_not_import_torch():
    check = "import sys, cohort.data.ingest; print('torch' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "False"


def test_a_mask_that_misses_the_working_grid_is_refused(source):
    mask = np.zeros(GRID.shape, np.uint8)
    mask[0, 0, 0] = 1
    native = replace(load_native(find_subjects(source).entries[0]), mask=mask)
    away = GRID.centered_on(GRID.center_mm + 20.0)
    with pytest.raises(SubjectError, match=r"E_MASK_EMPTY: the mask of subject a holds no voxel"):
        bring_to_grid(native, away, np.eye(4))
