"""Names and paths that come from outside: what is hostile or doubled is rejected, not followed."""

import re

import pytest
from small_cohort import GRID, half_written, volume, write_cohort

from cohort.data.ingest import IngestSettings, ingest
from cohort.data.nifti import write_nifti
from cohort.data.store import CohortStore

pytestmark = pytest.mark.faults
SETTINGS = IngestSettings(grid="12x14x10@2mm")


HOSTILE = {
    "parent": "../x",
    "folder": "a/b",
    "absolute": "/tmp/x",
    "backslash": "a\\b",
    "nul": "a\0b",
    "long": "n" * 300,
    "device": "con",
    "dot": "x.",
    "hidden": ".x",
    "nothing": "",
    "confusable": "а1",  # noqa: RUF001 (a Cyrillic letter is the point)
    "newline": "a\nb",
}


@pytest.mark.parametrize("subject_id", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_subject_id_is_rejected_and_writes_nothing_elsewhere(tmp_path, subject_id):
    source = write_cohort(tmp_path / "in" / "source")
    quoted = '"' + subject_id + '"'
    rows = [f"{name},images/{name}.nii.gz" for name in "ac"]
    rows.append(f"{quoted},images/b.nii.gz")
    (source / "t.csv").write_text("\n".join(["subject,image", *rows]), newline="")
    report = ingest(source / "t.csv", tmp_path / "out" / "s", SETTINGS)
    assert report.ingested == ("a", "c")
    code, message = report.quarantined[subject_id]
    assert code == "E_ID"
    assert re.search("need|drop", message)
    assert "images/b.nii.gz" in message
    store = CohortStore.open(tmp_path / "out" / "s")
    assert store.subject_ids == ("a", "c")
    assert store.quarantined[subject_id]["code"] == "E_ID"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"s"}
    assert {path.name for path in (tmp_path / "out" / "s").iterdir()} == {
        "zarr.json",
        "subjects",
        "quarantine",
    }
    assert not half_written(tmp_path)


def test_a_doubled_subject_id_is_taken_from_neither_row(tmp_path):
    source = write_cohort(tmp_path / "source")
    rows = ["subject,image", "a,images/a.nii.gz", "x,images/b.nii.gz", "X,images/c.nii.gz"]
    (source / "t.csv").write_text("\n".join(rows))
    report = ingest(source / "t.csv", tmp_path / "s", SETTINGS)
    assert report.ingested == ("a",)
    assert {name: why[0] for name, why in report.quarantined.items()} == dict.fromkeys(
        "Xx", "E_DUPLICATE"
    )
    assert re.search(r"'x' is used 2 times.*b\.nii\.gz.*c\.nii\.gz", report.quarantined["x"][1])


def test_an_id_that_is_in_the_store_in_another_case_is_a_duplicate(tmp_path):
    source = write_cohort(tmp_path / "source")
    ingest(source, tmp_path / "s", SETTINGS)
    (source / "images/b.nii.gz").rename(source / "images/B.nii.gz")
    report = ingest(source, tmp_path / "s")
    assert report.quarantined["B"][0] == "E_DUPLICATE"
    assert CohortStore.open(tmp_path / "s").subject_ids == ("a", "b", "c")


@pytest.mark.parametrize(
    ("path", "code"),
    [("../secret.nii.gz", "ok"), ("link.nii.gz", "E_SYMLINK"), ("n" * 400, "E_MISSING")],
)
def test_a_table_may_name_what_it_likes_but_links_may_not_lead_away(tmp_path, path, code):
    source = write_cohort(tmp_path / "source")
    (tmp_path / "elsewhere").mkdir()
    for secret in (tmp_path / "secret.nii.gz", tmp_path / "elsewhere" / "secret.nii.gz"):
        write_nifti(secret, volume(5), GRID.affine)
    (source / "link.nii.gz").symlink_to(tmp_path / "elsewhere" / "secret.nii.gz")
    (source / "t.csv").write_text(f"subject,image\na,images/a.nii.gz\nb,{path}\n")
    report = ingest(source / "t.csv", tmp_path / "s", SETTINGS)
    assert report.quarantined.get("b", ("ok",))[0] == code
