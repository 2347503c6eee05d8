import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from small_cohort import GRID, half_written, labels, volume

from cohort.data.geometry import Grid
from cohort.data.inventory import Inventory
from cohort.data.local_place import LocalPlace
from cohort.data.store import CohortStore, Subject
from cohort.errors import StorageError, SubjectError, UsageError

# more than one slab, and a last one that is not full
TALL = Grid.axis_aligned((19, 6, 5), (1.0, 2.0, 3.0), (0, 0, 0))


def _subject(subject_id: str = "a", seed: int = 0, grid: Grid = GRID) -> Subject:
    random = np.random.default_rng(seed)
    return Subject(
        subject_id,
        volume=volume(seed, grid),
        labels=labels(seed, grid),
        mask=np.ones(grid.shape, np.uint8),
        keypoints_mm=random.random((4, 3)),
        to_template=random.random((3, *grid.shape), dtype=np.float32),
        from_template=random.random((3, *grid.shape), dtype=np.float32),
    )


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    store = CohortStore.create(tmp_path / "cohort.zarr", GRID, settings={"align": "none"})
    store.commit(_subject(), {"source": {"image": "a.nii"}, "steps": [1, 2]})
    return store


@pytest.mark.parametrize("grid", [GRID, TALL], ids=["one slab", "two slabs"])
def test_a_subject_comes_back_as_it_was_committed(tmp_path, grid):
    CohortStore.create(tmp_path / "s", grid, settings={}).commit(_subject(grid=grid), {})
    found = CohortStore.open(tmp_path / "s").read("a")
    for name, expected in vars(_subject(grid=grid)).items():
        np.testing.assert_array_equal(getattr(found, name), expected)
        if name != "subject_id":
            assert getattr(found, name).dtype == expected.dtype


def test_what_a_subject_does_not_have_is_none(store):
    store.commit(Subject("b", volume(1)), {})
    found = store.read("b")
    assert found.labels is found.mask is found.keypoints_mm is found.to_template is None


def test_a_store_keeps_its_grid_settings_and_records(store):
    again = CohortStore.open(store.path)
    assert again.grid.to_json() == GRID.to_json()
    assert again.settings == {"align": "none"}
    assert again.subject_ids == ("a",)
    assert again.has_labels
    assert again.has_truth
    record = again.record("a")
    assert record["source"] == {"image": "a.nii"}
    assert record["provenance"] == {"steps": [1, 2]}
    assert record["arrays"]["labels"]["dtype"] == "uint16"


def test_digests_follow_the_content_and_nothing_else(store, tmp_path):
    other = CohortStore.create(tmp_path / "other", GRID, settings={"align": "grid"})
    other.commit(_subject(), {"source": "elsewhere"})
    assert other.digest == store.digest
    assert other.subject_digest("a") == store.subject_digest("a")
    other.commit(_subject(seed=1), {})
    assert other.digest != store.digest


def test_an_array_is_one_shard_of_checksummed_slabs_that_any_zarr_reads(tmp_path):
    store = CohortStore.create(tmp_path / "s", TALL, settings={})
    store.commit(_subject(grid=TALL), {})
    group = zarr.open_group(str(store.path), mode="r")
    image = group["subjects/a/image"]
    assert (image.chunks, image.shards) == ((16, 6, 5), (32, 6, 5))
    np.testing.assert_array_equal(image[...], volume(0, TALL))
    document = json.loads((store.path / "subjects/a/image/zarr.json").read_text())
    sharding = document["codecs"][0]["configuration"]
    assert [codec["name"] for codec in sharding["codecs"]] == ["bytes", "blosc", "crc32c"]
    assert [codec["name"] for codec in sharding["index_codecs"]] == ["bytes", "crc32c"]
    ome = group["subjects/a"].attrs["ome"]
    assert ome["multiscales"][0]["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 2.0, 3.0]},
        {"type": "translation", "translation": TALL.affine[:3, 3].tolist()},
    ]
    assert [axis["name"] for axis in ome["multiscales"][0]["axes"]] == document["dimension_names"]


def test_what_has_no_commit_does_not_exist(store):
    (store.path / "subjects/a/commit.json").unlink()
    assert store.subject_ids == ()
    with pytest.raises(SubjectError, match="has no subject 'a'"):
        store.read("a")


def test_a_newer_version_replaces_the_older_whole(store):
    store.commit(Subject("a", volume(1)), {})
    assert store.read("a").labels is None
    assert store.subject_ids == ("a",)
    assert not half_written(store.path)


def test_two_writers_of_a_subject_leave_that_of_the_later_one(store, monkeypatch):
    aside, others = LocalPlace._set_aside, [_subject(seed=1), _subject(seed=2)]

    def interrupted(place: LocalPlace, subject_id: str) -> Path:
        """As long as there are others, one is brought in before the name can be taken."""
        found = aside(place, subject_id)
        if others:
            store.commit(others.pop(), {})
        return found

    monkeypatch.setattr(LocalPlace, "_set_aside", interrupted)
    store.commit(_subject(seed=3), {})
    assert (store.read("a").volume == volume(3)).all()
    assert store.subject_ids == ("a",)
    assert not half_written(store.path)


def test_a_removed_subject_is_gone_without_a_trace(store):
    store.remove("a")
    store.remove("a")
    assert store.subject_ids == ()
    assert not half_written(store.path)


def test_quarantine_keeps_the_reason_until_the_subject_is_committed(store):
    store.quarantine("b", "E_CONSTANT", "b.nii is 0 everywhere", "b.nii")
    store.quarantine("../x", "E_ID", "hostile", "table line 3")
    assert store.quarantined["b"]["code"] == "E_CONSTANT"
    assert store.quarantined["b"]["source"] == "b.nii"
    assert store.quarantined["../x"]["message"] == "hostile"
    store.commit(_subject("b"), {})
    assert set(store.quarantined) == {"../x"}
    assert {path.parent for path in store.path.rglob("invalid-*")} == {store.path / "quarantine"}


def test_only_a_store_is_opened_and_only_an_empty_folder_becomes_one(store, tmp_path):
    with pytest.raises(UsageError, match="is no cohort store"):
        CohortStore.open(tmp_path / "nothing")
    with pytest.raises(UsageError, match="is a store already"):
        CohortStore.create(store.path, GRID, settings={})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"not empty .it holds thesis\.tex"):
        CohortStore.create(tmp_path / "full", GRID, settings={})


def test_documents_get_their_folders_but_no_store_that_is_gone(store, tmp_path):
    store.place.write("features/x/a.safetensors", b"1")
    assert store.place.read("features/x/a.safetensors") == b"1"
    store.path.rename(tmp_path / "moved")
    with pytest.raises(StorageError, match=r"No such file"):
        store.place.write("features/x/a.safetensors", b"2")
    with pytest.raises(StorageError, match=r"No such file"):
        store.quarantine("b", "E_X", "x", "")
    assert not store.path.exists()


def test_creating_goes_on_where_it_was_interrupted(tmp_path):
    (tmp_path / "s" / "subjects").mkdir(parents=True)
    assert CohortStore.create(tmp_path / "s", GRID, settings={}).subject_ids == ()


@pytest.mark.parametrize(
    "subject_id", ["../x", "a/b", "a\0b", "", "a" * 300, ".tmp-x", "a.", "NUL"]
)
def test_hostile_names_reach_no_file(store, subject_id):
    for call in (store.record, store.read, store.remove):
        with pytest.raises(SubjectError, match="subject id") as caught:
            call(subject_id)
        assert caught.value.code == "E_ID"
    with pytest.raises(SubjectError, match="subject id"):
        store.commit(_subject(subject_id), {})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"volume": np.zeros((2, 2, 2), np.float32)}, r"volume .*is float32 \[2, 2, 2\], need"),
        ({"labels": np.zeros(GRID.shape, np.int64)}, "labels .*is int64 .*need uint16"),
        ({"to_template": np.zeros(GRID.shape, np.float32)}, r"need float32 \[3, 12, 14, 10\]"),
        ({"keypoints_mm": np.zeros((4, 2))}, r"is float64 \[4, 2\], need float64"),
    ],
)
def test_arrays_that_do_not_fit_the_grid_are_refused(store, fields, message):
    with pytest.raises(ValueError, match=message):
        store.commit(replace(_subject("b"), **fields), {})
    assert store.subject_ids == ("a",)


def test_an_inventory_keeps_no_more_of_a_record_than_its_arrays(store, monkeypatch):
    given = {}

    def noted(grid, found, planned):
        given.update(found)
        return of(grid, found, planned)

    of = Inventory.of
    monkeypatch.setattr(Inventory, "of", noted)
    assert store.inventory().subject_digests == {"a": store.subject_digest("a")}
    assert given == {"a": store.record("a")["arrays"]}
