"""F13 and F14: names and links from outside reach no file that they should not.

`test_hostile_ids` has the names one by one, `test_bad_input` the links of a source.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import Cohort
from helpers import tiny_cohort
from small_cohort import write_cohort
from small_run import planned

from cohort.data.ingest import IngestSettings, ingest
from cohort.data.sources import find_subjects
from cohort.data.store import CohortStore
from cohort.engine.run import run
from cohort.errors import SubjectError

pytestmark = pytest.mark.faults
SETTINGS = IngestSettings(grid="12x14x10@2mm")
HOSTILE = (
    "../x", "../../x", "/x", "/etc/x", "a/b", "a\\b", "..\\x", "C:\\x", "~/x", "x\0y", "x" * 300,
    "CON", "nul.nii", "aux", ".x", "x.", "..", ".", "", " ", "a b", "a\nb", "a\rb", "$(touch x)",
    "`touch x`", "a;b", "a|b", "%2e%2e%2fx", "\u202ex", "а1", "İ", "ſ", "=1+1", "-rf", "*",  # noqa: RUF001
)  # fmt: skip


def _tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """Every path below a folder with its kind, its time and its content."""

    def facts(path: Path) -> tuple[object, ...]:
        status = path.lstat()
        content = b""
        if path.is_file() and not path.is_symlink():
            content = hashlib.sha256(path.read_bytes()).digest()
        return status.st_mode, status.st_mtime_ns if path.is_file() else 0, content

    return {str(path.relative_to(folder)): facts(path) for path in sorted(folder.rglob("*"))}


@contextmanager
def _unchanged(folder: Path, *but: str) -> Iterator[None]:
    before = _tree(folder)
    yield
    after = {
        path: facts for path, facts in _tree(folder).items() if not path.startswith(but or ("\0",))
    }
    assert after == before


def test_no_subject_id_writes_outside_of_the_store(tmp_path: Path) -> None:
    source = write_cohort(tmp_path / "in/source")
    (tmp_path / "out").mkdir()
    rows = [f'"{name}",images/b.nii.gz' for name in HOSTILE]
    text = "\n".join(["subject,image", "a,images/a.nii.gz", *rows])
    (source / "t.csv").write_text(text, newline="")
    with _unchanged(tmp_path, "out/s"):
        report = ingest(source / "t.csv", tmp_path / "out/s", SETTINGS)
        assert report.ingested == ("a",)
        assert {code for code, _ in report.quarantined.values()} <= {"E_ID", "E_DUPLICATE"}
    written = _tree(tmp_path / "out/s")
    assert {path.split("/")[0] for path in written} == {"zarr.json", "subjects", "quarantine"}
    names = [Path(path).name for path in written if path.startswith("quarantine/")]
    assert all(name.startswith("invalid-") for name in names)
    store = CohortStore.open(tmp_path / "out/s")
    with _unchanged(tmp_path):
        for name in HOSTILE:
            for call in (store.record, store.read, store.remove):
                with pytest.raises(SubjectError, match="E_ID"):
                    call(name)


def test_no_name_of_a_pair_writes_outside_of_the_output(cohort: Cohort, tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", 2)
    run(planned(tmp_path / "run", store), store)
    with _unchanged(tmp_path):
        for name in HOSTILE[:18]:
            pair = ("--fixed", "sub-00", f"--moving={name}")
            export = ("--to", "learn2reg", "--out", tmp_path / "out")
            shown = cohort("export", tmp_path / "run", *pair, *export)
            assert shown.code == 2
            assert "E_PAIRS" in shown.err


def test_links_inside_of_a_store_give_no_other_content(tmp_path: Path) -> None:
    """A chunk that links to another file: what is read must have the sha256 of the record."""
    store = tiny_cohort(tmp_path / "cohort.zarr", 2)
    shard = tmp_path / "cohort.zarr/subjects/sub-00/image/c/0/0/0"
    kept, secret = shard.read_bytes(), "a line that nobody should see"
    (tmp_path / "secret").write_text(secret)
    targets = [Path("/etc/passwd"), tmp_path / "secret", tmp_path / "nowhere", shard, tmp_path]
    targets.append(tmp_path / "cohort.zarr/subjects/sub-01/image/c/0/0/0")
    for target in targets:
        shard.unlink()
        shard.symlink_to(target)
        with pytest.raises(SubjectError) as caught:
            store.read("sub-00")
        assert caught.value.code == "E_CORRUPT"
        assert secret[:6] not in caught.value.message
        assert "root:" not in caught.value.message
        assert store.read("sub-01").labels is not None
    # the right content, as a store whose files are kept elsewhere has it
    (tmp_path / "elsewhere").write_bytes(kept)
    shard.unlink()
    shard.symlink_to(tmp_path / "elsewhere")
    assert store.read("sub-00").subject_id == "sub-00"


def test_a_subject_that_is_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", 2)
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "cohort.zarr/subjects/sub-00").rename(elsewhere)
    (tmp_path / "cohort.zarr/subjects/sub-00").symlink_to(elsewhere)
    subject = store.read("sub-00")
    with _unchanged(elsewhere):
        store.commit(subject, {})
        store.remove("sub-00")
    assert store.subject_ids == ("sub-01",)


@pytest.mark.parametrize("kind", ["folder", "bids"])
def test_folders_that_lead_back_to_themselves_are_gone_through_once(
    tmp_path: Path, kind: str
) -> None:
    if kind == "folder":
        source = write_cohort(tmp_path / "source")
        (source / "images/loop").symlink_to(source)
        (source / "images/loop.nii.gz").symlink_to(source / "images")
        expected = {"a", "b", "c"}
    else:
        source = tmp_path / "bids"
        write_cohort(tmp_path / "made")
        (source / "sub-01/anat").mkdir(parents=True)
        (tmp_path / "made/images/a.nii.gz").rename(source / "sub-01/anat/sub-01_T1w.nii.gz")
        (source / "sub-01/ses-loop").symlink_to(source)
        (source / "sub-loop").symlink_to(source)
        (source / "derivatives").mkdir()
        (source / "derivatives/loop").symlink_to(source)
        expected = None
    listing = find_subjects(source)
    if expected is None:  # what leads back is a session and a subject, with no images of their own
        assert listing.entries == ()
        rejected = {(one.subject_id, one.code) for one in listing.rejected}
        assert rejected == {("sub-01_ses-loop", "E_MISSING"), ("sub-loop", "E_MISSING")}
    else:
        assert set(ingest(source, tmp_path / "s", SETTINGS).ingested) == expected


def test_a_folder_of_a_source_that_leads_away_gives_nothing(tmp_path: Path) -> None:
    source = write_cohort(tmp_path / "source")
    (source / "labels").rename(tmp_path / "labels")
    (source / "labels").symlink_to(tmp_path / "labels")
    report = ingest(source, tmp_path / "s", SETTINGS) if find_subjects(source).entries else None
    codes = {item.code for item in find_subjects(source).rejected}
    assert report is None
    assert codes == {"E_SYMLINK"}
