import errno
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from small_cohort import GRID, half_written, labels, volume

from cohort.data.geometry import Grid
from cohort.data.store import CohortStore, Subject
from cohort.errors import StorageError, SubjectError

pytestmark = pytest.mark.faults
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


def _shard(store: CohortStore, array: str, subject_id: str = "a") -> Path:
    (path,) = (store.path / "subjects" / subject_id / array / "c").rglob("*/0/0")
    return path if path.is_file() else next(path.iterdir())


@pytest.mark.parametrize(
    "array", ["image", "labels", "mask", "keypoints", "to_template", "from_template"]
)
def test_a_flipped_bit_names_the_array_and_its_path(store, array):
    shard = next(
        path for path in (store.path / f"subjects/a/{array}/c").rglob("*") if path.is_file()
    )
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)
    with pytest.raises(SubjectError, match=f"array {array} in .*subjects/a/{array}") as caught:
        store.read("a")
    assert caught.value.code == "E_CORRUPT"


def _truncate(store: CohortStore) -> None:
    shard = _shard(store, "image")
    shard.write_bytes(shard.read_bytes()[:-20])


def _edit(name: str, key: str, value: object):
    def edit(store: CohortStore) -> None:
        path = store.path / "subjects/a" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda store: _shard(store, "image").unlink(), "image .* data file 0 is missing"),
        (lambda store: shutil.rmtree(store.path / "subjects/a/image"), "array image"),
        (lambda store: _shard(store, "image").write_bytes(b""), "array image"),
        (_truncate, "array image"),
        (_edit("image/zarr.json", "shape", [10**7] * 3), r"is float32 \[10000000, .*need float32"),
        (_edit("image/zarr.json", "data_type", "float64"), "is float64 .*need float32"),
        (_edit("image/zarr.json", "codecs", []), "array image"),
        (_edit("commit.json", "schema", 7), "schema 7"),
        (_edit("commit.json", "arrays", {"evil": {}}), "evil"),
        (lambda store: (store.path / "subjects/a/commit.json").write_text("{"), "commit.json"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damage_is_found_before_its_values_are_used(store, damage, message):
    damage(store)
    with pytest.raises(SubjectError, match=message) as caught:
        store.read("a")
    assert caught.value.code == "E_CORRUPT"


def test_chunks_of_two_subjects_that_changed_places_are_found(store):
    store.commit(_subject("b", seed=1), {})
    one, other = _shard(store, "image"), _shard(store, "image", "b")
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    for subject_id in ("a", "b"):
        with pytest.raises(SubjectError, match="sha256"):
            store.read(subject_id)


def test_a_full_disk_leaves_what_was_committed_and_nothing_half_written(store, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    message = r"subjects/a: No space left on device; \d+ bytes are free"
    with pytest.raises(StorageError, match=message) as caught:
        store.commit(_subject(seed=1), {})
    assert (caught.value.code, caught.value.exit_code) == ("E_STORAGE", 4)
    np.testing.assert_array_equal(store.read("a").volume, volume(0))
    assert not half_written(store.path)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOTCONN])
def test_a_broken_file_system_is_not_a_broken_subject(store, monkeypatch, number):
    def broken(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(zarr, "open_array", broken)
    with pytest.raises(StorageError, match=os.strerror(number)):
        store.read("a")


def test_a_store_that_went_away_is_not_a_missing_subject(store):
    store.path.rename(store.path.with_name("moved"))
    with pytest.raises(StorageError, match="is gone"):
        store.record("a")


def test_leftovers_of_dead_writers_are_swept_and_those_of_living_ones_kept(store):
    long_ago = time.time() - 7200
    for name in (".tmp-dead", ".old-dead", ".tmp-living"):
        folder = store.path / "subjects" / name
        folder.mkdir()
        (folder / "part").write_bytes(b"x")
        if name.endswith("dead"):
            os.utime(folder, (long_ago, long_ago))
    assert store.subject_ids == ("a",)
    CohortStore.open(store.path)
    assert len(list((store.path / "subjects").iterdir())) == 4
    CohortStore.open(store.path, for_writing=True)
    assert {path.name for path in (store.path / "subjects").iterdir()} == {"a", ".tmp-living"}


def test_a_store_of_another_schema_is_refused(store):
    path = store.path / "zarr.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(StorageError, match="schema version 2; this program reads 1") as caught:
        CohortStore.open(store.path)
    assert caught.value.code == "E_SCHEMA"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"attributes": {"cohort": {"schema": 1}}}'])
def test_a_damaged_root_is_refused(store, text):
    (store.path / "zarr.json").write_text(text)
    with pytest.raises(StorageError, match=r"zarr\.json"):
        CohortStore.open(store.path)
