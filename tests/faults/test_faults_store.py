"""F7: whatever happens to the files of one subject is found, named, and only that subject's fault.

A change of which nothing is ever read, such as white space in a document, may go unnoticed: then
what is read must be what was written.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_cohort
from small_cohort import GRID, labels, volume
from small_run import QUICK

from cohort.data.store import CohortStore, Subject
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.errors import CohortError, StorageError, SubjectError

pytestmark = pytest.mark.faults
SEEDS = range(200)
_EDITS: list[Any] = [[10**7] * 3, 0, -1, "float64", None, [], {}, 1e308, "../../a", True, [[]]]


def _subject(subject_id: str, seed: int) -> Subject:
    random = np.random.default_rng(seed)
    return Subject(
        subject_id,
        volume=volume(seed),
        labels=labels(seed),
        keypoints_mm=random.random((4, 3)),
    )


SUBJECTS = {name: _subject(name, seed) for seed, name in enumerate("abc")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "cohort.zarr"
    store = CohortStore.create(path, GRID, settings={"align": "none", "reference": "a"})
    for name, subject in SUBJECTS.items():
        store.commit(subject, {"source": {"image": f"{name}.nii"}, "steps": [1.5, 2, name]})
    return path


def _is_as_written(found: Subject) -> bool:
    written = SUBJECTS[found.subject_id]
    return all(
        np.array_equal(getattr(found, name), value)
        for name, value in vars(written).items()
        if isinstance(value, np.ndarray)
    )


def _flip(path: Path, other: Path, random: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    content[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
    path.write_bytes(content)


def _truncate(path: Path, other: Path, random: np.random.Generator) -> None:
    os.truncate(path, int(random.integers(path.stat().st_size)))


def _empty(path: Path, other: Path, random: np.random.Generator) -> None:
    path.write_bytes(b"")


def _delete(path: Path, other: Path, random: np.random.Generator) -> None:
    path.unlink()


def _exchange(path: Path, other: Path, random: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def _edit(path: Path, other: Path, random: np.random.Generator) -> None:
    """Another value somewhere in a document, as an editor would write it; a byte elsewhere."""
    if path.suffix != ".json":
        return _flip(path, other, random)
    document = json.loads(path.read_bytes())
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[int(random.integers(len(keys)))]
        inner = place[key]
        if not inner or not isinstance(inner, dict | list) or random.random() < 0.3:
            break
        place = inner
    place[key] = _EDITS[int(random.integers(len(_EDITS)))]
    path.write_text(json.dumps(document))
    return None


DAMAGES: tuple[Callable[..., None], ...] = (_flip, _truncate, _empty, _delete, _exchange, _edit)


@pytest.mark.parametrize("first", SEEDS[::25])
def test_damage_of_one_subject_is_its_own_and_never_silent(
    whole: Path, tmp_path: Path, first: int
) -> None:
    shutil.copytree(whole, tmp_path / "s")
    store, found_out = CohortStore.open(tmp_path / "s"), 0
    intact = store.record("b")
    folder = store.path / "subjects"
    files = sorted(file for file in (folder / "b").rglob("*") if file.is_file())
    for seed in range(first, first + 25):
        random = np.random.default_rng(seed)
        file = files[int(random.integers(len(files)))]
        other = folder / "a" / file.relative_to(folder / "b")
        before = {path: path.read_bytes() for path in (file, other)}
        damage = DAMAGES[seed % len(DAMAGES)]
        said = f"seed {seed}: {damage.__name__} {file.relative_to(folder)}"
        damage(file, other, random)
        assert _is_as_written(store.read("c")), said
        healthy = set("c") if damage is _exchange else set("ac")
        inventory = store.inventory()
        assert healthy <= inventory.subject_digests.keys() - inventory.unreadable.keys(), said
        fault = _fault(store, "b")
        if fault is None:
            assert _is_as_written(store.read("b")), said
            assert store.record("b") == intact, said
        else:
            found_out += 1
            assert fault.code == "E_CORRUPT" or damage is _delete, said
            assert "b" in fault.message, said
        for path, content in before.items():
            path.write_bytes(content)
    assert found_out > 15


def _fault(store: CohortStore, subject_id: str) -> SubjectError | None:
    try:
        store.read(subject_id)
    except SubjectError as error:
        return error
    return None


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_a_damaged_root_is_refused_or_says_what_was_written(
    whole: Path, tmp_path: Path, first: int
) -> None:
    intact = CohortStore.open(whole)
    for seed in range(first, first + 20):
        random = np.random.default_rng(seed)
        root = tmp_path / f"{seed}.zarr" / "zarr.json"
        root.parent.mkdir()
        (root.parent / "subjects").mkdir()
        shutil.copy(whole / "zarr.json", root)
        (_flip, _truncate, _edit)[seed % 3](root, root, random)
        found = _opened(root.parent)
        if isinstance(found, CohortStore):
            assert found.grid.to_json() == intact.grid.to_json(), f"seed {seed}"
            assert found.settings == intact.settings, f"seed {seed}"
        else:
            assert (type(found), found.code) == (StorageError, "E_SCHEMA"), f"seed {seed}"


def _opened(path: Path) -> CohortStore | CohortError:
    try:
        return CohortStore.open(path)
    except CohortError as error:
        return error


def test_records_without_a_digest_are_those_of_older_versions(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "s")
    for path in ("zarr.json", "subjects/b/commit.json"):
        document = json.loads((tmp_path / "s" / path).read_text())
        del (document if "schema" in document else document["attributes"]["cohort"])["digest"]
        (tmp_path / "s" / path).write_text(json.dumps(document))
    assert _is_as_written(CohortStore.open(tmp_path / "s").read("b"))


@pytest.mark.parametrize("file", ["commit.json", "image/c/0/0/0"])
@pytest.mark.parametrize("planned", [False, True], ids=["before the plan", "after it"])
def test_the_pairs_of_a_damaged_subject_are_rows_and_the_others_go_on(
    tmp_path: Path, file: str, planned: bool
) -> None:
    store = tiny_cohort(tmp_path / "s", 3)
    settings = PlanSettings(QUICK, tile_size=1)
    if planned:
        open_run(tmp_path / "run", store, settings)
    path = tmp_path / "s/subjects/sub-01" / file
    path.write_bytes(path.read_bytes()[:-9])
    open_run(tmp_path / "run", store, settings)
    run(tmp_path / "run", store)
    rows = read_rows(tmp_path / "run").to_dicts()
    assert len(rows) == 6
    for row in rows:
        broken = "sub-01" in (row["fixed"], row["moving"])
        assert row["status"] == ("E_CORRUPT" if broken else "ok"), row["message"]
    open_run(tmp_path / "run", store, settings)


def test_a_folder_that_is_no_subject_is_not_taken_for_one(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "s")
    for name in ("a b", "=1+1", "x\ny", "CON"):
        shutil.copytree(tmp_path / "s/subjects/a", tmp_path / "s/subjects" / name)
    store = CohortStore.open(tmp_path / "s")
    assert store.subject_ids == ("a", "b", "c")
    assert store.digest == CohortStore.open(whole).digest
