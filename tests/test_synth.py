import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from cohort.data.nifti import read_nifti
from cohort.data.phantom import LABELS, sample_head
from cohort.data.synth import (
    SynthReport,
    SynthSettings,
    synthesise_population,
    synthesise_subject,
)
from cohort.data.velocity import SmoothVelocity
from cohort.errors import UsageError

SMALL = SynthSettings(subjects=2, shape=(32, 36, 32), spacing_mm=5.0, seed=3)


def _dice(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    values = list(LABELS.values())
    return np.array(
        [
            2 * np.sum((one == v) & (other == v)) / np.sum((one == v) + 1 * (other == v))
            for v in values
        ]
    )


@pytest.fixture(scope="module")
def pair():
    settings = SynthSettings()
    return settings, synthesise_subject(settings, 0), synthesise_subject(settings, 1)


@pytest.fixture
def population(tmp_path: Path) -> tuple[Path, SynthReport]:
    return tmp_path / "population", synthesise_population(tmp_path / "population", SMALL)


def test_a_flow_and_its_inverse_meet_again():
    settings = SynthSettings()
    extent_mm = settings.grid.extent_mm()
    velocity = SmoothVelocity.draw(np.random.default_rng(0), extent_mm, settings.deformation_mm)
    points = (np.random.default_rng(1).random((2000, 3)) - 0.5) * extent_mm
    there = points + (-velocity).flow(points)
    back = there + velocity.flow(there)
    assert np.abs(back - points).max() < 1e-4 * settings.spacing_mm


def test_a_velocity_vanishes_on_the_border():
    extent_mm = np.array([160.0, 180.0, 160.0])
    velocity = SmoothVelocity.draw(np.random.default_rng(0), extent_mm, 5.0)
    face = (np.random.default_rng(1).random((100, 3)) - 0.5) * extent_mm
    face[:, 1] = extent_mm[1] / 2
    np.testing.assert_allclose(velocity(face), 0, atol=1e-12)


@pytest.mark.slow
def test_the_written_displacements_are_inverse_to_each_other(pair):
    settings, subject, _ = pair
    positions = np.indices(settings.shape) + subject.from_template_mm / settings.spacing_mm
    forth = np.stack(
        [map_coordinates(u, positions, order=3, mode="nearest") for u in subject.to_template_mm]
    )
    inner = (slice(None), *(slice(2, -2),) * 3)
    error_mm = np.linalg.norm((forth + subject.from_template_mm)[inner], axis=0)
    assert error_mm.max() < 0.05 * settings.spacing_mm


@pytest.mark.slow
def test_no_deformation_folds(pair):
    settings, *subjects = pair
    for subject in subjects:
        gradient = np.gradient(subject.to_template_mm, settings.spacing_mm, axis=(1, 2, 3))
        jacobian = np.moveaxis(np.stack(gradient), (0, 1), (-1, -2)) + np.eye(3)
        assert np.linalg.det(jacobian).min() > 0.2


@pytest.mark.slow
def test_images_and_labels_are_the_template_seen_through_the_written_truth(pair):
    settings, subject, _ = pair
    template = synthesise_subject(dataclasses.replace(settings, deformation_mm=0.0), 0)
    positions = np.indices(settings.shape) + subject.to_template_mm / settings.spacing_mm
    warped = map_coordinates(template.labels, positions, order=0)
    assert _dice(subject.labels, warped).mean() > 0.92
    warped = map_coordinates(template.volume.astype(float), positions, order=1)
    assert np.corrcoef(warped.ravel(), subject.volume.ravel())[0, 1] > 0.97


def test_pairs_start_far_apart_and_every_structure_is_there(pair):
    _, one, other = pair
    assert len(LABELS) >= 8
    for subject in (one, other):
        voxels = np.bincount(subject.labels.ravel(), minlength=len(LABELS) + 1)
        assert voxels.min() > 100
    dice = _dice(one.labels, other.labels)
    assert 0.5 < dice.mean() < 0.75


def test_left_and_right_are_where_RAS_says():
    _, labels = sample_head(np.array([[-38.0, 38.0], [-1, -1], [3, 3]]))
    assert labels.tolist() == [LABELS["left putamen"], LABELS["right putamen"]]


def test_a_subject_does_not_depend_on_the_number_of_subjects():
    one = synthesise_subject(SMALL, 1)
    other = synthesise_subject(dataclasses.replace(SMALL, subjects=50), 1)
    np.testing.assert_array_equal(one.volume, other.volume)
    np.testing.assert_array_equal(one.to_template_mm, other.to_template_mm)


def test_the_seed_and_the_subject_change_the_head():
    base = synthesise_subject(SMALL, 0)
    for other in (
        synthesise_subject(dataclasses.replace(SMALL, seed=4), 0),
        synthesise_subject(SMALL, 1),
    ):
        assert np.abs(base.to_template_mm - other.to_template_mm).mean() > 0.5


def test_the_files_say_what_they_are(population):
    folder, report = population
    assert report == SynthReport(folder, ("sub-001", "sub-002"), ())
    names = json.loads((folder / "structures.json").read_text())
    assert names == {str(value): name for name, value in LABELS.items()}
    subject = synthesise_subject(SMALL, 1)
    image = read_nifti(folder / "images/sub-002.nii.gz")
    np.testing.assert_array_equal(image.data, subject.volume)
    np.testing.assert_allclose(image.affine, SMALL.grid.affine)
    labels = read_nifti(folder / "labels/sub-002.nii.gz")
    np.testing.assert_array_equal(labels.data, subject.labels)
    assert {path.name for path in (folder / "truth").iterdir()} == {
        f"sub-00{n}_{way}-template.nii.gz" for n in (1, 2) for way in ("to", "from")
    }


def test_the_truth_is_written_as_vectors_in_millimetres(population):
    nibabel = pytest.importorskip("nibabel")
    folder, _ = population
    image = nibabel.load(folder / "truth/sub-001_to-template.nii.gz")
    assert image.shape == (*SMALL.shape, 1, 3)
    assert image.header.get_intent()[0] == "vector"
    expected = np.moveaxis(synthesise_subject(SMALL, 0).to_template_mm, 0, -1)
    np.testing.assert_array_equal(np.asarray(image.dataobj)[:, :, :, 0], expected)


def test_a_second_call_does_nothing_and_says_so(population):
    folder, _ = population
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    ticks = []
    again = synthesise_population(folder, SMALL, lambda done, total: ticks.append((done, total)))
    assert (again.written, again.kept) == ((), ("sub-001", "sub-002"))
    assert ticks == [(1, 2), (2, 2)]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_missing_file_is_written_again_with_the_same_bytes(population):
    folder, _ = population
    image = folder / "images/sub-002.nii.gz"
    content = image.read_bytes()
    image.unlink()
    report = synthesise_population(folder, SMALL)
    assert (report.written, report.kept) == (("sub-002",), ("sub-001",))
    assert image.read_bytes() == content


def test_other_settings_are_refused_and_named(population):
    folder, _ = population
    with pytest.raises(UsageError, match="seed 3 there, 4 asked for"):
        synthesise_population(folder, dataclasses.replace(SMALL, seed=4))


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"holds no population\.json"):
        synthesise_population(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["[]", "{", '{"settings": {}}'])
def test_a_damaged_description_is_named(tmp_path, content):
    (tmp_path / "population.json").write_text(content)
    with pytest.raises(UsageError, match=r"population\.json does not describe"):
        synthesise_population(tmp_path, SMALL)


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"subjects": 0}, "subjects must be 1 to 999999, got 0"),
        ({"shape": (64, 8, 64)}, r"shape must be three sizes of 16 to 512, got \(64, 8, 64\)"),
        ({"spacing_mm": float("nan")}, "spacing_mm must be 0.1 to 20, got nan"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"deformation_mm": 50.0}, "deformation_mm must be 0 to 9.60 .* got 50"),
        ({"noise": -0.1}, "noise must be 0 to 1, got -0.1"),
        ({"bias": 2}, "bias must be 0 to 1, got 2"),
    ],
)
def test_bad_settings_say_what_is_needed(settings, needed):
    with pytest.raises(UsageError, match=needed):
        SynthSettings(**settings)
