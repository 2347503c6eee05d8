import os
from pathlib import Path

import nibabel as nib
import pytest
from small_cohort import GRID, volume, write_cohort, write_subject
from small_run import damage

from cohort.data import ingest_subject
from cohort.data.ingest import IngestSettings, ingest
from cohort.data.store import CohortStore, Subject
from cohort.errors import StorageError, SubjectError, UsageError

AS_FILE = IngestSettings(grid="12x14x10@2mm")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_cohort(tmp_path / "source")


def _like(path: Path) -> IngestSettings:
    return IngestSettings(like=path / "images" / "a.nii.gz")


def test_running_again_ingests_only_what_is_new_or_changed(source, tmp_path):
    ingest(source, tmp_path / "s", AS_FILE)
    assert ingest(source, tmp_path / "s").unchanged == ("a", "b", "c")
    before = CohortStore.open(tmp_path / "s").digest
    write_subject(source, "b", 7)
    write_subject(source, "d", 8)
    report = ingest(source, tmp_path / "s", AS_FILE)
    assert (report.ingested, report.unchanged) == (("b", "d"), ("a", "c"))
    assert set(report.outside) == set("abcd")
    assert CohortStore.open(tmp_path / "s").digest != before


def test_what_has_the_sizes_and_times_that_it_had_is_not_read(source, tmp_path, monkeypatch):
    ingest(source, tmp_path / "s", AS_FILE)
    read = []
    monkeypatch.setattr(ingest_subject, "hash_files", lambda entry: read.append(entry) or {})
    assert ingest(source, tmp_path / "s").unchanged == ("a", "b", "c")
    assert not read
    # other contents of the same size, with the time of the old ones, as a copying tool sets it
    path = source / "images/b.nii.gz"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "b" in ingest(source, tmp_path / "s").quarantined
    assert [entry.subject_id for entry in read] == ["b"]


def test_a_subject_in_quarantine_is_read_though_its_files_look_as_they_did(source, tmp_path):
    ingest(source, tmp_path / "s", AS_FILE)
    store = CohortStore.open(tmp_path / "s")
    store.quarantine("b", "E_TRUNCATED", "ended early", "b.nii.gz")
    damage(store, "b")
    assert ingest(source, tmp_path / "s").ingested == ("b",)
    assert store.quarantined == {}


def test_files_that_moved_as_they_are_change_nothing(source, tmp_path):
    ingest(source, tmp_path / "s", AS_FILE)
    moved = source.rename(tmp_path / "moved")
    assert ingest(moved, tmp_path / "s").unchanged == ("a", "b", "c")


def test_a_companion_that_appears_or_goes_is_a_change(source, tmp_path):
    ingest(source, tmp_path / "s", AS_FILE)
    (source / "labels/b.nii.gz").unlink()
    assert ingest(source, tmp_path / "s").ingested == ("b",)
    assert CohortStore.open(tmp_path / "s").read("b").labels is None


def test_a_subject_whose_file_broke_is_out_until_it_is_whole_again(source, tmp_path):
    ingest(source, tmp_path / "s", AS_FILE)
    good = (source / "images/b.nii.gz").read_bytes()
    (source / "images/b.nii.gz").write_bytes(good[:-10])
    report = ingest(source, tmp_path / "s")
    assert report.quarantined["b"][0] == "E_TRUNCATED"
    store = CohortStore.open(tmp_path / "s")
    assert store.subject_ids == ("a", "c")
    assert store.quarantined["b"]["code"] == "E_TRUNCATED"
    (source / "images/b.nii.gz").write_bytes(good)
    assert ingest(source, tmp_path / "s").ingested == ("b",)
    assert store.quarantined == {}


def test_a_subject_that_is_damaged_in_the_store_is_made_again_as_it_was(source, tmp_path):
    ingest(source, tmp_path / "s", AS_FILE)
    store = CohortStore.open(tmp_path / "s")
    before = store.subject_digest("b")
    damage(store, "b")
    with pytest.raises(SubjectError, match=r"is damaged: .*; ingest it again with --recheck"):
        store.read("b")
    assert ingest(source, tmp_path / "s").unchanged == ("a", "b", "c")  # no array is read
    report = ingest(source, tmp_path / "s", recheck=True)
    assert (report.ingested, report.unchanged) == (("b",), ("a", "c"))
    assert store.read("b").labels is not None
    assert store.subject_digest("b") == before


def test_a_subject_that_a_program_put_there_is_made_from_its_file(source, tmp_path):
    """Its record says nothing of files."""
    ingest(source, tmp_path / "s", AS_FILE)
    store = CohortStore.open(tmp_path / "s")
    for provenance in ({}, {"source": {"image": "b.nii"}}, {"source": "elsewhere"}):
        store.commit(Subject("b", store.read("c").volume), provenance)
        assert ingest(source, tmp_path / "s").ingested == ("b",)
    assert ingest(source, tmp_path / "s").unchanged == ("a", "b", "c")


def test_a_file_that_is_away_for_a_while_does_not_take_its_subject_with_it(tmp_path):
    source = write_cohort(tmp_path / "source")
    table = source / "cohort.csv"
    table.write_text("subject,image\na,images/a.nii.gz\nb,images/b.nii.gz\n")
    ingest(table, tmp_path / "s", AS_FILE)
    (source / "images/b.nii.gz").rename(source / "away.nii.gz")
    assert ingest(table, tmp_path / "s").quarantined["b"][0] == "E_MISSING"
    assert CohortStore.open(tmp_path / "s").subject_ids == ("a", "b")
    (source / "away.nii.gz").rename(source / "images/b.nii.gz")
    assert ingest(table, tmp_path / "s").unchanged == ("a", "b")
    assert CohortStore.open(tmp_path / "s").quarantined == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (IngestSettings(grid="16x16x16@2mm"), "grid 12x14x10@2x2x2mm .*asked for is 16x16x16@2mm"),
        (IngestSettings(align="grid"), "align none, asked for is grid"),
        (IngestSettings(reference="b"), "reference a, asked for is b"),
    ],
)
def test_a_store_keeps_the_settings_it_was_made_with(source, tmp_path, settings, message):
    ingest(source, tmp_path / "s", AS_FILE)
    with pytest.raises(UsageError, match=message) as caught:
        ingest(source, tmp_path / "s", settings)
    assert caught.value.code == "E_STORE_SETTINGS"


def test_an_assumed_orientation_can_be_added_and_taken_back(source, tmp_path):
    image = nib.Nifti1Image(volume(1), GRID.affine)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, source / "images/b.nii.gz")
    (source / "labels/b.nii.gz").unlink()
    assert ingest(source, tmp_path / "s", AS_FILE).quarantined["b"][0] == "E_ORIENT"
    assumed = IngestSettings(assume_orientation="RAS")
    assert ingest(source, tmp_path / "s", assumed).ingested == ("b",)
    report = ingest(source, tmp_path / "s", assumed)
    assert report.unchanged == ("a", "b", "c")
    assert ingest(source, tmp_path / "s").quarantined["b"][0] == "E_ORIENT"


def test_the_bits_are_the_same_for_any_order_of_subjects(source, tmp_path):
    ingest(source, tmp_path / "all", AS_FILE)
    settings = IngestSettings(like=_like(source).like, reference="a")
    whole = ingest(source, tmp_path / "whole", settings)
    for name in ("a", "b", "c"):
        table = source / "one.csv"
        table.write_text(
            f"subject,image,labels\n{name},images/{name}.nii.gz,labels/{name}.nii.gz\n"
        )
        ingest(table, tmp_path / "parts", IngestSettings(like=settings.like))
    assert whole.ingested == ("a", "b", "c")
    whole_store, parts = (CohortStore.open(tmp_path / name) for name in ("whole", "parts"))
    assert whole_store.digest == parts.digest


@pytest.mark.slow
def test_two_processes_give_the_same_bits_as_none(source, tmp_path):
    (source / "images/c.nii.gz").write_bytes(b"broken")
    reports = [
        ingest(source, tmp_path / f"s{workers}", AS_FILE, workers=workers) for workers in (1, 2)
    ]
    assert reports[0].ingested == reports[1].ingested == ("a", "b")
    codes = [{name: why[0] for name, why in report.quarantined.items()} for report in reports]
    assert codes[0] == codes[1] == {"c": "E_NOT_NIFTI"}
    one, two = (CohortStore.open(tmp_path / f"s{workers}") for workers in (1, 2))
    assert one.digest == two.digest
    for name in one.subject_ids:
        assert one.record(name) == two.record(name)


def test_a_broken_store_stops_ingest_instead_of_blaming_the_subjects(source, tmp_path, monkeypatch):
    ingest(source, tmp_path / "s", AS_FILE)
    write_subject(source, "d", 9)

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        ingest(source, tmp_path / "s")
    monkeypatch.undo()
    assert CohortStore.open(tmp_path / "s").quarantined == {}
    assert ingest(source, tmp_path / "s").ingested == ("d",)
