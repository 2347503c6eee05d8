"""`cohort check`: everything that is wrong is found, named and ranked, and nothing else is."""

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command_line import Cohort
from helpers import shared_data, tiny_cohort
from labelled_bodies import GRID, LIVER, SPINE, SPLEEN, body, write_bodies, write_body

from cohort.commands import check_text
from cohort.data.check import duplicates, look
from cohort.data.check.duplicates import nearly_same
from cohort.data.check.facts import SubjectFacts, measure_image, measure_labels
from cohort.data.check.findings import KINDS, Finding, ranked
from cohort.data.check.look import CheckReport, check
from cohort.data.check.odd_ones import robust_z
from cohort.data.check.sides import compare_sides
from cohort.data.geometry import Grid
from cohort.data.header_choices import HeaderChoices
from cohort.data.ingest import IngestSettings, ingest
from cohort.data.nifti import write_nifti
from cohort.data.store import CohortStore
from cohort.errors import UsageError

CUBE = Grid.axis_aligned((16, 16, 16), (1.0, 1.0, 1.0), (0, 0, 0))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_bodies(tmp_path / "source")


def said(report: CheckReport) -> list[tuple[str, str]]:
    return [(one.code, one.subject_id) for one in report.findings]


def message(report: CheckReport) -> str:
    (one,) = report.findings
    return one.message


def flip(source: Path, name: str) -> None:
    """Mirror the values of a subject and leave its headers as they are."""
    for folder in ("images", "labels"):
        path = source / folder / f"{name}.nii.gz"
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine), path)


def test_a_sound_cohort_has_nothing_to_warn_about(source):
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    report = check(source)
    assert report.findings == ()
    assert report.refused == ()
    assert report.side_measure == "positions"
    assert list(report.sides) == [f"sub-{index}" for index in range(6)]
    assert min(report.sides.values()) > 0.8
    facts = report.subjects[0]
    assert (facts.image.shape, facts.image.spacing_mm) == (GRID.shape, (2, 2, 3))
    assert facts.labels.values.tolist() == [LIVER, SPLEEN, SPINE]
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before


def test_a_mirrored_subject_is_named_and_no_other(source):
    flip(source, "sub-2")
    report = check(source)
    assert said(report) == [("W_MIRRORED", "sub-2")]
    assert "other side than in 5 of 6 subjects (likeness -" in message(report)
    assert report.refused == ()


def test_sides_are_judged_by_halves_where_positions_say_nothing():
    def labels(larger_right: int, seed: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        values = np.zeros(CUBE.shape, np.uint16)
        thick = 3 + random.integers(0, 2)
        sides = (slice(2, 2 + thick), slice(14 - thick, 14))
        right, left = sides[::-1] if larger_right else sides
        values[right, 4:12, 4:12] = 1  # one label for both sides, the right half larger
        values[left, 6:10, 4:12] = 1
        # a second bilateral one keeps the mean of all in the middle
        values[left, 12:16, 4:12], values[right, 14:16, 4:12] = 2, 2
        return values

    facts = [measure_labels(labels(seed != 3, seed), CUBE) for seed in range(6)]
    for one in facts:  # what is left of their positions is what they have beside the middle
        one.right[:] = 0
    sides = compare_sides(facts)
    assert sides is not None
    assert sides.measure == "halves"
    assert sides.mirrored.tolist() == [False, False, False, True, False, False]


def test_sides_that_the_cohort_has_not_are_not_judged():
    random = np.random.default_rng(0)
    symmetric = np.zeros(CUBE.shape, np.uint16)
    symmetric[2:14, 4:12, 4:8], symmetric[2:14, 4:12, 8:12] = 1, 2
    assert compare_sides([measure_labels(symmetric, CUBE)] * 5) is None
    odd = np.zeros((17, 16, 16), np.uint16)
    odd[2:15, 4:12, 4:8], odd[2:15, 4:12, 8:12] = 1, 2  # the middle runs through voxels
    wide = Grid(odd.shape, CUBE.affine)
    assert compare_sides([measure_labels(odd, wide)] * 5) is None
    noise = [random.integers(0, 5, CUBE.shape).astype(np.uint16) for _ in range(8)]
    assert compare_sides([measure_labels(values, CUBE) for values in noise]) is None
    half = [measure_labels(body(seed)[1], GRID) for seed in range(6)]
    half += [measure_labels(body(seed)[1][::-1], GRID) for seed in range(6)]
    assert compare_sides(half) is None
    right = measure_labels(body(0)[1], GRID)
    weak = [replace(right, right=right.right * by, right_share=np.full(3, 0.5)) for by in (1, 0.2)]
    assert compare_sides([weak[0]] * 6 + [weak[1]] * 4) is None  # sides, but no agreement
    (likeness,) = compare_sides([weak[0]] * 20 + [weak[1]]).likeness[20:]
    assert likeness == pytest.approx(0.2)
    assert not compare_sides([weak[0]] * 20 + [weak[1]]).mirrored.any()
    assert compare_sides(half[:2]) is None


def _truncate(source: Path) -> None:
    path = source / "images/sub-1.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])


def _move_labels(source: Path) -> None:
    path = source / "labels/sub-1.nii.gz"
    image = nib.load(path)
    write_nifti(path, np.asarray(image.dataobj), image.affine + np.eye(4, k=3) * 5)


def _forms_disagree(source: Path) -> None:
    path = source / "images/sub-1.nii.gz"
    image = nib.load(path)
    image.set_qform(image.affine + np.eye(4, k=3) * 5, 1)
    nib.save(image, path)


def _not_a_number(source: Path) -> None:
    volume, labels = body(1)
    volume[3, 4, 5] = np.nan
    write_body(source, "sub-1", volume, labels)


def _no_mask(source: Path) -> None:
    (source / "masks").mkdir()
    write_nifti(source / "masks/sub-1.nii.gz", np.zeros(GRID.shape, np.uint8), GRID.affine)


@pytest.mark.parametrize(
    ("breaks", "code", "kind", "has_image"),
    [
        (_truncate, "E_TRUNCATED", "unreadable", False),
        (_move_labels, "E_LABEL_SHAPE", "grid", True),
        (_forms_disagree, "E_FORM", "header", False),
        (_not_a_number, "E_NONFINITE", "values", False),
        (_no_mask, "E_MASK_EMPTY", "values", True),
    ],
)
def test_a_broken_file_is_a_row_with_its_code_and_not_a_stop(source, breaks, code, kind, has_image):
    breaks(source)
    report = check(source)
    (one,) = report.findings
    assert (one.code, one.kind, one.subject_id, one.quarantines) == (code, kind, "sub-1", True)
    assert one.message.startswith("sub-1: ")
    assert str(source) in one.message
    assert len(report.subjects) == 6
    assert report.refused == ("sub-1",)
    assert (report.subjects[1].image is not None) == has_image
    assert all(other.image for other in report.subjects if other.subject_id != "sub-1")


def test_a_choice_for_headers_is_tried_before_ingest_takes_it(source):
    _forms_disagree(source)
    assert check(source).refused == ("sub-1",)
    report = check(source, HeaderChoices.parse(("sform",)))
    assert report.findings == ()
    assert report.subjects[1].header["fixed"] == ["sform"]


def test_the_worst_comes_first(source):
    _truncate(source)
    flip(source, "sub-2")
    volume, labels = body(3)
    write_body(source, "sub-3", volume * 50, np.where(labels == SPLEEN, 0, labels))
    shutil.copy(source / "images/sub-4.nii.gz", source / "images/twin.nii.gz")
    report = check(source)
    assert said(report) == [
        ("E_TRUNCATED", "sub-1"),
        ("W_MIRRORED", "sub-2"),
        ("W_DUPLICATE", "sub-4"),
        ("W_INTENSITY", "sub-3"),
        ("W_NO_LABELS", "twin"),
        ("W_MISSING", "sub-3"),
    ]
    mirror = Finding("mirrored", "E_MIRROR", "z", "", quarantines=True)
    assert ranked((report.findings[1], mirror))[0] is mirror
    order = list(KINDS)
    ranks = [order.index(one.kind) for one in report.findings]
    assert ranks == sorted(ranks)


def test_equal_content_is_found_under_other_headers_and_compression(source):
    volume, labels = body(2)
    image = nib.Nifti1Image(volume[::-1], GRID.oriented("LAS").affine)
    image.header["descrip"] = b"another file"
    (source / "images/twin.nii.gz").write_bytes(gzip.compress(image.to_bytes(), 1))
    write_nifti(source / "labels/twin.nii.gz", labels, GRID.affine)
    report = check(source)
    assert said(report) == [("W_DUPLICATE", "sub-2"), ("W_AXES", "twin")]
    first = report.findings[0]
    assert "sub-2 and twin have the same values" in first.message
    assert first.others == ("twin",)


def test_nearly_equal_content_and_labels_of_another_image_are_found(source):
    volume, _ = body(2)
    noise = np.random.default_rng(0).normal(0, 0.1, volume.shape).astype(np.float32)
    write_body(source, "twin", 1.5 * volume + 7 + noise, body(8)[1])
    write_body(source, "sub-5", body(5)[0], body(4)[1])
    report = check(source)
    assert said(report) == [("W_NEARLY_SAME", "sub-2"), ("W_SAME_LABELS", "sub-4")]
    assert "sub-2 and twin have nearly the same content" in report.findings[0].message
    assert "sub-4 and sub-5 have the same labels on other images" in report.findings[1].message


def test_near_duplicates_in_blocks_are_those_of_all_pairs(monkeypatch):
    random = np.random.default_rng(0)
    prints = random.normal(size=(23, 50))
    prints[[4, 17, 22]] = prints[4] + random.normal(0, 1e-3, (3, 50))
    prints[8] = prints[9]
    prints = (prints / np.linalg.norm(prints, axis=1, keepdims=True)).astype(np.float32)
    for block in (1, 3, 5, 100):
        monkeypatch.setattr(duplicates, "_BLOCK", block)
        assert nearly_same(prints) == [[4, 17, 22], [8, 9]]
    assert nearly_same(prints[:3]) == []


def test_one_that_is_unlike_the_others_is_named_and_many_are_a_group(source):
    thick = GRID.affine @ np.diag([1, 1, 2.5, 1])
    for folder, data in zip(("images", "labels"), body(1), strict=True):
        write_nifti(source / folder / "sub-1.nii.gz", data, thick)
    report = check(source)
    assert said(report) == [
        ("W_SPACING", "sub-1"), ("W_EXTENT", "sub-1"), ("W_LABELLED", "sub-1"),
    ]  # fmt: skip
    assert "voxels of 2 x 2 x 7.5 mm, the median is 2 x 2 x 3 mm" in report.findings[0].message
    for seed in range(10, 14):
        write_body(source, f"sub-{seed}", 50 * body(seed)[0], body(seed)[1])
    (group,) = [one for one in check(source).findings if one.code == "W_INTENSITY"]
    assert "4 subjects stand apart" in group.message
    assert {group.subject_id, *group.others} == {"sub-10", "sub-11", "sub-12", "sub-13"}


def test_a_scan_of_another_contrast_is_told_by_its_looks_once_it_lies_on_the_grid(source, tmp_path):
    settings = IngestSettings(grid="20x16x12@2mm", align="center")
    ingest(source, tmp_path / "sound.zarr", settings)
    assert "W_LOOKS" not in dict(said(check(tmp_path / "sound.zarr")))
    volume, labels = body(3)
    write_body(source, "sub-3", np.where(labels > 0, 20.0, volume + 100).astype(np.float32), labels)
    ingest(source, tmp_path / "mixed.zarr", settings)
    [odd] = [one for one in check(tmp_path / "mixed.zarr").findings if one.code == "W_LOOKS"]
    assert odd.subject_id == "sub-3"
    assert "another contrast, another anatomy, or badly aligned" in odd.message
    assert "W_LOOKS" not in dict(said(check(source)))  # there they may lie anywhere


def test_robust_z_is_the_distance_in_median_deviations():
    values = np.array([[1.0], [2.0], [3.0], [4.0], [100.0]])
    np.testing.assert_allclose(robust_z(values, 0.1)[:, 0], np.array([2, 1, 0, 1, 97]) / 1.4826)
    np.testing.assert_allclose(robust_z(np.array([[5.0], [5.0], [6.0]]), 0.5)[:, 0], [0, 0, 2])


def test_structures_and_keypoints_that_differ_are_named(source):
    volume, labels = body(1)
    write_body(source, "sub-1", volume, np.where(labels == SPLEEN, 77, labels))
    (source / "structures.json").write_text('{"2": "spleen"}')
    (source / "keypoints").mkdir()
    for index in range(6):
        points = "1,2,3\n" * (4 if index == 2 else 5)
        (source / f"keypoints/sub-{index}.csv").write_text(f"x,y,z\n{points}")
    report = check(source)
    assert said(report) == [
        ("W_MISSING", "sub-1"), ("W_FOREIGN", "sub-1"), ("W_KEYPOINTS", "sub-2"),
    ]  # fmt: skip
    texts = [one.message for one in report.findings]
    assert texts[0].startswith("sub-1 lacks structure spleen that nearly all others have")
    assert texts[1].startswith("sub-1 alone has structure 77")
    assert "sub-2 has 4 keypoints, 5 of 6 subjects have 5" in texts[2]


def test_measures_are_those_of_their_definition():
    volume = np.random.default_rng(0).random(CUBE.shape).astype(np.float32)
    found = measure_image(volume, CUBE, GRID)
    assert (found.low, found.high) == tuple(np.percentile(volume, (1, 99)))
    assert (found.shape, found.extent_mm) == (GRID.shape, (40, 32, 36))
    clipped = np.clip(volume, found.low, found.high)
    blocks = clipped.reshape(8, 2, 8, 2, 8, 2).mean((1, 3, 5)).ravel()
    blocks = (blocks - blocks.mean()) / np.linalg.norm(blocks - blocks.mean())
    np.testing.assert_allclose(found.fingerprint, blocks, atol=1e-6)
    labels = np.zeros(CUBE.shape, np.uint16)
    labels[0:4, 0, 0], labels[12:16, 0, 0] = 7, 9
    sides = measure_labels(labels, CUBE)
    assert (sides.values.tolist(), sides.voxels.tolist()) == ([7, 9], [4, 4])
    spread = np.std([0, 1, 2, 3, 12, 13, 14, 15])
    np.testing.assert_allclose(sides.right, np.array([-6, 6]) / spread)
    assert sides.right_share.tolist() == [0, 1]
    assert sides.volume_ml == pytest.approx(0.008)


def test_small_and_flat_volumes_and_empty_labels_have_facts():
    tiny = np.zeros((2, 3, 4), np.float32)
    tiny[0, 0, 0] = 1
    found = measure_image(tiny, Grid((2, 3, 4), np.eye(4)), CUBE)
    assert np.isfinite(found.fingerprint).all()
    assert found.low < found.high
    other = measure_image(tiny.reshape(4, 3, 2), Grid((4, 3, 2), np.eye(4)), CUBE)
    assert other.content != found.content
    assert measure_labels(np.zeros(CUBE.shape), CUBE).values.size == 0


def test_a_store_is_looked_at_like_a_source(source, tmp_path):
    flip(source, "sub-2")
    _truncate(source)
    store = tmp_path / "cohort.zarr"
    ingest(source, store, IngestSettings(grid="20x16x12@2x2x3mm"))
    report = check(store)
    assert said(report) == [("E_TRUNCATED", "sub-1"), ("W_MIRRORED", "sub-2")]
    assert report.refused == ("sub-1",)
    assert report.subjects[0].header["axcodes"] == "RAS"
    shard = next(path for path in (store / "subjects/sub-3/image/c").rglob("*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:-9])
    assert ("E_CORRUPT", "sub-3") in said(check(store))


def test_a_subject_whose_newer_version_was_refused_says_so(source, tmp_path):
    store = tmp_path / "cohort.zarr"
    ingest(source, store, IngestSettings(grid="20x16x12@2x2x3mm"))
    CohortStore.open(store).quarantine("sub-1", "E_MISSING", "sub-1 has no image", "")
    report = check(store)
    assert said(report) == [("E_MISSING", "sub-1")]
    assert report.subjects[1].image is not None


def test_what_the_working_grid_cuts_off_is_told(source, tmp_path):
    store = tmp_path / "cohort.zarr"
    ingest(source, store, IngestSettings(grid="10x16x12@2x2x3mm"))
    found = [one for one in check(store).findings if one.code == "W_OUTSIDE"]
    assert len(found) == 6
    assert "% of its labelled voxels outside of the working grid" in found[0].message
    assert found[0].severity == max(one.severity for one in found)


def test_a_store_without_provenance_can_be_looked_at(tmp_path):
    report = check(tiny_cohort(tmp_path / "cohort.zarr").path)
    assert report.refused == ()
    assert len(report.subjects) == 4
    assert report.side_measure is None


def test_a_path_that_is_neither_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="is no source of subjects"):
        check(tmp_path)


def test_the_command_prints_warnings_then_a_table(cohort: Cohort, source) -> None:
    shown = cohort("check", source, "--workers", "0")
    assert shown.code == 0
    assert shown.out.splitlines()[-1].startswith(
        f"{source}: 6 subjects, all can be used, nothing else to look at, "
    )
    flip(source, "sub-2")
    assert cohort("check", source, "--workers", "0").code == 0
    _truncate(source)
    long_name = "sub-" + "9" * 40
    write_body(source, long_name, *body(9))
    shown = cohort("check", source, "--workers", "0")
    assert shown.code == 1
    lines = shown.out.splitlines()
    assert lines[0] == "cannot be used (1)"
    assert lines[1].startswith(f"  E_TRUNCATED  sub-1: {source}/images/sub-1.nii.gz is cut off")
    assert lines[2] == "mirrored left to right (1)"
    assert lines[4] == "subjects"
    assert lines[5].split()[:4] == ["subject", "axes", "hand", "voxels"]
    row = next(line for line in lines[5:] if line.startswith("  sub-2"))
    assert row.split()[1:3] == ["RAS", "right"]
    assert row.endswith("W_MIRRORED")
    assert "20 x 16 x 12  2 x 2 x 3  sform" in row
    assert f"  {long_name[:25]}...  RAS" in shown.out
    assert "7 subjects, 1 cannot be used, 1 more to look at" in lines[-1]


def test_the_command_says_everything_as_json(cohort: Cohort, source) -> None:
    flip(source, "sub-2")
    found = cohort("check", source, "--workers", "0", "--json").json
    assert found["warnings"][0]["code"] == "W_MIRRORED"
    assert found["subjects"]["sub-2"]["codes"] == ["W_MIRRORED"]
    assert found["subjects"]["sub-2"]["side"] < -0.8
    assert found["subjects"]["sub-0"]["codes"] == []
    assert found["subjects"]["sub-0"]["header"]["handedness"] == "right"
    assert set(found["subjects"]["sub-0"]["labels"]["voxels"]) == {"1", "2", "3"}
    assert found["side_measure"] == "positions"
    wrong = cohort("check", source, "--fix-headers", "sfrom")
    assert wrong.code == 2
    assert "E_FIX_HEADERS: fix headers has 'sfrom'" in wrong.err


@pytest.mark.slow
def test_two_processes_find_what_a_plain_loop_finds(source, monkeypatch) -> None:
    flip(source, "sub-2")
    _truncate(source)
    monkeypatch.setattr(look, "_START_S", 0)
    one, two = (check(source, workers=workers) for workers in (1, 2))
    assert one.findings == two.findings
    assert one.sides == two.sides


def test_the_table_of_a_large_cohort_has_those_that_something_is_said_of(
    cohort: Cohort, source, monkeypatch
) -> None:
    flip(source, "sub-2")
    monkeypatch.setattr(check_text, "_MOST_ROWS", 2)
    report = check(source)
    titles, row, rest = check_text.table(report)
    assert titles.startswith("subject")
    assert row.startswith("sub-2 ")
    assert "W_MIRRORED" in row
    assert rest == f"and {len(report.subjects) - 1} more, see --json"


def test_progress_costs_the_same_for_the_last_subject_as_for_the_first(source, monkeypatch) -> None:
    looks = []

    class Faults(tuple):
        def __bool__(self) -> bool:
            looks.append(self)
            return False

    jobs = [f"{number:03d}" for number in range(100)]
    monkeypatch.setattr(look, "_of_source", lambda *_: (jobs, [], {}))
    monkeypatch.setattr(look, "examine", lambda name: SubjectFacts(name, Faults()))
    counts = []
    check(source, progress=lambda *count: counts.append(count))
    assert counts[-1] == (100, 100, 0)
    assert len(looks) < 5 * len(jobs)


@pytest.mark.slow
def test_a_flipped_brain_among_24_is_named_and_no_other(tmp_path: Path) -> None:
    scans = shared_data("ixi_t1_2mm")
    source = tmp_path / "source"
    shutil.copytree(scans, source, copy_function=shutil.copyfile)
    names = sorted(path.name for path in (source / "images").iterdir())
    for folder in ("images", "labels"):
        image = nib.load(scans / folder / names[5])
        axis = nib.aff2axcodes(image.affine).index("R")
        values = np.flip(np.asarray(image.dataobj), axis)
        nib.save(nib.Nifti1Image(values, image.affine), source / folder / names[5])
    report = check(source)
    mirrored = [one.subject_id for one in report.findings if one.kind == "mirrored"]
    assert mirrored == [names[5].removesuffix(".nii.gz")]
    assert report.refused == ()
    assert not [one for one in check(scans).findings if one.kind == "mirrored"]
