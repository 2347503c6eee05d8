"""Features that a store keeps: the same rows, made once, and never those of something else."""

from pathlib import Path

import pytest
import torch
from helpers import tiny_cohort
from small_run import QUICK, decided, planned

from cohort.data.kept_features import FOLDER, KeptFeatures
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.run import DriverOptions, run
from triton_reg import VoxelOpt

KEPT = DriverOptions(keep_features=True)
TENSORS = (torch.rand(1, 2, 3, 4, 5), torch.rand(1, 2).half(), torch.arange(4).reshape(2, 2))


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    return tiny_cohort(tmp_path / "cohort.zarr")


def documents(store: CohortStore) -> list[Path]:
    return sorted((store.path / FOLDER).rglob("*.safetensors"))


def test_what_is_kept_comes_back_to_the_bit(store: CohortStore) -> None:
    kept = KeptFeatures(store, "a method")
    assert kept.load("sub-00", "d") is None
    kept.save("sub-00", "d", TENSORS)
    found = kept.load("sub-00", "d")
    assert found is not None
    assert all(torch.equal(one, two) for one, two in zip(found, TENSORS, strict=True))
    assert [one.dtype for one in found] == [one.dtype for one in TENSORS]
    assert kept.load("sub-00", "of another content") is None
    assert KeptFeatures(store, "another method").load("sub-00", "d") is None


@pytest.mark.parametrize("seed", range(20))
def test_damage_means_not_there(store: CohortStore, seed: int) -> None:
    kept = KeptFeatures(store, "a method")
    kept.save("sub-00", "d", TENSORS)
    (path,) = documents(store)
    content = bytearray(path.read_bytes())
    where = int(torch.randint(len(content), (1,), generator=torch.Generator().manual_seed(seed)))
    content[where] ^= 0x10
    path.write_bytes(content if seed % 2 else content[:where])
    assert kept.load("sub-00", "d") is None


def test_a_second_run_makes_no_features(store: CohortStore, tmp_path: Path, monkeypatch) -> None:
    first, second, plain = (planned(tmp_path / name, store) for name in ("one", "two", "plain"))
    run(plain, store)
    digest = store.digest
    run(first, store, options=KEPT)
    assert len(documents(store)) == len(store.subject_ids)
    assert store.digest == digest
    monkeypatch.setattr("cohort.engine.run.warm", lambda _: None)  # it prepares noise
    monkeypatch.setattr(VoxelOpt, "prepare", lambda *_: pytest.fail("they were there"))
    run(second, store, options=KEPT)
    assert decided(first).equals(decided(plain))
    assert decided(second).equals(decided(plain))


def test_features_of_a_coarser_grid_are_others(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", 2, (32, 34, 36))
    for name in ("plain", "kept"):
        settings = PlanSettings(QUICK, "to:sub-00", shrink=2)
        open_run(tmp_path / f"{name}-coarse", store, settings)
        planned(tmp_path / name, store, "to:sub-00")
    for name in ("kept-coarse", "kept"):
        run(tmp_path / name, store, options=KEPT)
    for name in ("plain-coarse", "plain"):
        run(tmp_path / name, store)
    assert set(decided(tmp_path / "kept-coarse")["status"]) == {"ok"}
    assert decided(tmp_path / "kept-coarse").equals(decided(tmp_path / "plain-coarse"))
    assert decided(tmp_path / "kept").equals(decided(tmp_path / "plain"))
