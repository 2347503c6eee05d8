import json
from pathlib import Path

import pytest
from small_cohort import GRID, labels, volume, write_cohort

from cohort.data.ingest import IngestSettings, ingest
from cohort.data.nifti import write_nifti
from cohort.data.sources import find_subjects
from cohort.data.store import CohortStore
from cohort.errors import UsageError

AS_FILE = IngestSettings(grid="12x14x10@2mm")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_cohort(tmp_path / "source")


def test_names_of_structures_stay_with_the_store(source, tmp_path):
    (source / "structures.json").write_text(json.dumps({"1": "shell", "2": "core"}))
    ingest(source, tmp_path / "s", AS_FILE)
    assert CohortStore.open(tmp_path / "s").settings["structures"] == {"1": "shell", "2": "core"}
    (source / "structures.json").write_text('{"x": 1}')
    with pytest.raises(UsageError, match=r'structures\.json cannot be used.*\{"1": "thalamus"\}'):
        find_subjects(source)


def test_files_that_no_subject_takes_are_told(source, tmp_path, cohort):
    """Labels under other names would leave a cohort without them, and nobody would know."""
    (source / "labels/a.nii.gz").rename(source / "labels/a_dseg.nii.gz")
    for name in (
        "images/d.mgz",
        "images/e.NII.GZ",
        "images/a.json",
        "images/.f.nii",
        "masks/x.nii",
        "masks/more/y.nii",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    said = [
        f"2 files of {source}/images are in no format that is read, need .nii.gz or .nii, such as"
        f" {source}/images/d.mgz",
        f"{source}/labels/a_dseg.nii.gz is of no image, need the name that a file in"
        f" {source}/images has",
        f"{source}/masks/x.nii is of no image, need the name that a file in {source}/images has",
        f"{source}/masks/more/y.nii is in a folder below, need to lie in {source}/masks itself",
    ]
    assert list(find_subjects(source).unused) == said
    assert cohort("check", source, "--json").json["unused"] == said
    assert f"not used\n  2 files of {source}/images" in cohort("check", source).out
    ingested = cohort("ingest", source, tmp_path / "s", "--grid", "12x14x10@2mm")
    assert (ingested.code, f"not used\n  2 files of {source}" in ingested.out) == (0, True)


def test_a_name_of_a_file_gives_the_terminal_no_orders(source, tmp_path, cohort):
    (source / "images/a.nii.gz").rename(source / "images/\x1b]0;title\x07[red].nii.gz")
    for command in (["check"], ["ingest", tmp_path / "s", "--grid", "12x14x10@2mm"]):
        told = cohort(command[0], source, *command[1:])
        assert "\x1b]0" not in told.out + told.err
        assert r"  \x1b]0;title\x07[red]" in told.out


def test_what_was_found_is_used(source):
    assert find_subjects(source).unused == ()


def test_a_bids_dataset_gives_one_subject_per_session(tmp_path):
    bids = tmp_path / "bids"
    files = {
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz": volume(0),
        "sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz": volume(1),
        "sub-01/ses-2/anat/sub-01_ses-2_run-1_T1w.nii.gz": volume(2),
        "sub-01/ses-2/anat/sub-01_ses-2_run-2_T1w.nii.gz": volume(3),
        "sub-02/anat/sub-02_FLAIR.nii.gz": volume(4),
        "sub-03/anat/sub-03_PDw.nii.gz": volume(5),
        "sub-03/anat/sub-03_T2star.nii.gz": volume(6),
        "sub-04/func/sub-04_bold.nii.gz": volume(7),
        "derivatives/seg/sub-01/ses-1/anat/sub-01_ses-1_dseg.nii.gz": labels(0),
        "derivatives/seg/sub-01/ses-1/anat/sub-01_ses-1_space-MNI_dseg.nii.gz": labels(1),
        "derivatives/seg/sub-02/anat/sub-02_desc-brain_mask.nii.gz": labels(4),
        "derivatives/seg/sub-09/anat/sub-09_dseg.nii.gz": labels(4),
    }
    for name, data in files.items():
        (bids / name).parent.mkdir(parents=True, exist_ok=True)
        write_nifti(bids / name, data, GRID.affine)
    listing = find_subjects(bids)
    found = {entry.subject_id: entry for entry in listing.entries}
    assert list(found) == ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]
    assert found["sub-01_ses-1"].image.name == "sub-01_ses-1_T1w.nii.gz"
    assert found["sub-01_ses-1"].labels.name == "sub-01_ses-1_dseg.nii.gz"
    assert found["sub-01_ses-2"].image.name == "sub-01_ses-2_run-1_T1w.nii.gz"
    assert found["sub-02"].mask.name == "sub-02_desc-brain_mask.nii.gz"
    rejected = {item.subject_id: (item.code, item.message) for item in listing.rejected}
    assert rejected["sub-03"][0] == "E_AMBIGUOUS"
    assert "PDw, T2star" in rejected["sub-03"][1]
    assert rejected["sub-04"][0] == "E_MISSING"
    assert listing.unused == (
        f"{bids}/sub-01/ses-2/anat/sub-01_ses-2_run-2_T1w.nii.gz is of a session of which another"
        " image is taken",
        f"{bids}/derivatives/seg/sub-09/anat/sub-09_dseg.nii.gz is of no session that there is",
    )
    report = ingest(bids, tmp_path / "s", AS_FILE)
    assert report.ingested == tuple(found)
    assert set(report.quarantined) == {"sub-03", "sub-04"}


@pytest.mark.parametrize(
    ("derived", "expected"),
    [
        (["run-2_dseg"], "E_AMBIGUOUS"),
        (["run-01_dseg", "run-2_dseg"], "sub-01_run-01_dseg.nii.gz"),
        (["desc-brain_dseg"], "sub-01_desc-brain_dseg.nii.gz"),
        (["acq-fast_run-1_dseg"], "E_AMBIGUOUS"),
        (["run-1_dseg", "run-1_desc-b_dseg", "run-2_dseg"], "E_AMBIGUOUS"),
    ],
    ids=["another run", "each run", "of the subject", "another acquisition", "two of one run"],
)
def test_labels_are_those_of_the_image_that_is_taken(tmp_path, derived, expected):
    names = [f"sub-01/anat/sub-01_{one}_T1w.nii.gz" for one in ("run-1", "run-2")]
    names += [f"derivatives/seg/sub-01/anat/sub-01_{one}.nii.gz" for one in derived]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listing = find_subjects(tmp_path)
    if expected == "E_AMBIGUOUS":
        (rejected,) = listing.rejected
        assert rejected.code == expected
        assert "_dseg.nii.gz" in rejected.message
    else:
        (entry,) = listing.entries
        assert (entry.image.name, entry.labels.name) == ("sub-01_run-1_T1w.nii.gz", expected)


def test_one_image_in_two_files_of_a_bids_dataset_is_refused(tmp_path):
    """As in a plain folder: which of them is the right one cannot be known."""
    (tmp_path / "sub-01/anat").mkdir(parents=True)
    for ending in (".nii", ".nii.gz"):
        (tmp_path / f"sub-01/anat/sub-01_T1w{ending}").touch()
    (rejected,) = find_subjects(tmp_path).rejected
    assert rejected.code == "E_AMBIGUOUS"
    assert "one image in 2 files (sub-01_T1w.nii, sub-01_T1w.nii.gz); need one" in rejected.message


@pytest.mark.parametrize(("name", "separator"), [("cohort.csv", ","), ("cohort.tsv", "\t")])
def test_a_table_names_files_relative_to_itself(source, tmp_path, name, separator):
    rows = [
        ("subject", "session", "image", "labels"),
        ("x", "", "images/a.nii.gz", ""),
        ("x", "2", "images/b.nii.gz", "labels/b.nii.gz"),
        ("y", "", str(source / "images/c.nii.gz"), ""),
    ]
    (source / name).write_text("".join(separator.join(row) + "\n" for row in rows))
    report = ingest(source / name, tmp_path / "s", AS_FILE)
    assert report.ingested == ("x", "x_2", "y")
    assert set(report.outside) == {"x_2"}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("subject,image,age,sex", "unknown: age, sex"),
        ("subject,labels", "missing: image"),
        ("subject,image,image", "each once"),
        ("", "columns none"),
        ("subject;image", "need subject and image, each once, commas between"),
    ],
)
def test_a_table_with_other_columns_is_refused(tmp_path, header, message):
    (tmp_path / "cohort.csv").write_text(f"{header}\n")
    with pytest.raises(UsageError, match=f"(?i){message}") as caught:
        find_subjects(tmp_path / "cohort.csv")
    assert caught.value.code == "E_SOURCE"


@pytest.mark.parametrize("make", ["nothing", "file", "folder", "images"])
def test_a_source_without_subjects_says_what_a_source_is(tmp_path, make):
    source = tmp_path / "source"
    if make == "file":
        source.write_text("")
    elif make != "nothing":
        (source / ("images" if make == "images" else "other")).mkdir(parents=True)
    with pytest.raises(UsageError, match=r"need a folder with images/\*\.nii\.gz") as caught:
        find_subjects(source)
    assert caught.value.code == "E_SOURCE"


def test_a_table_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "cohort.csv").write_text("subject,image\n", encoding="utf-16")
    with pytest.raises(UsageError, match=r"cohort\.csv is not in UTF-8, which is needed"):
        find_subjects(tmp_path / "cohort.csv")
