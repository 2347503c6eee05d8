"""What a run adds up: the numbers, their bits, and what damage does."""

import json
import shutil
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import smooth_volume, tiny_cohort
from small_run import QUICK

from cohort.config.sums import SumSettings
from cohort.data.store import CohortStore, Subject
from cohort.engine import room
from cohort.engine.adding import Adder, intensity_range
from cohort.engine.atlas import Template
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.run import run
from cohort.engine.run_folder import as_table
from cohort.engine.scan import Scan
from cohort.engine.sums import FOLDER, UNIT, Sums, read_labels, read_sums, write_sums
from cohort.engine.team import PLAIN, Team
from cohort.engine.verify import verify
from cohort.errors import StorageError, UsageError
from cohort.studies.atlas.reduction import total_of
from triton_reg import Displacement

SHAPE = (8, 9, 10)


def _scan(seed: int, mask: torch.Tensor | None = None) -> Scan:
    volume = 50 + 100 * smooth_volume(SHAPE, seed)
    labels = (volume > 100).int()
    given = torch.ones_like(volume) if mask is None else mask
    return Scan(volume, given, labels, is_masked=mask is not None)


def _shift(voxels: float) -> Displacement:
    vectors = torch.zeros(1, 3, *SHAPE)
    vectors[:, 0] = voxels
    return Displacement(vectors, SHAPE, SHAPE)


def test_sums_are_those_of_warped_normalised_volumes() -> None:
    scan, low_high = _scan(0), intensity_range(_scan(0))
    adder = Adder(SumSettings(weights={"b": 128}), SHAPE)
    adder.add("a", scan, _shift(2))
    adder.add("b", scan, _shift(2))
    sums = adder.sums
    assert sums is not None
    assert sums.subjects == {"a": 256, "b": 128}
    low, high = low_high
    expected = (scan.volume[0, 0, 2:].double() - low) / (high - low)
    found = sums.row("image")[:-2] / UNIT / 384
    assert np.abs(found - expected.numpy()).max() < 1e-4
    assert (sums.row("first") == 384 * 2 * UNIT).all()
    assert not sums.row("second").any()


def test_what_lies_outside_of_a_subject_or_of_its_mask_does_not_count() -> None:
    mask = torch.ones(1, 1, *SHAPE)
    mask[..., :4] = 0
    adder = Adder(SumSettings(normalise="none"), SHAPE)
    adder.add("a", _scan(0, mask), _shift(3))
    sums = adder.sums
    assert sums is not None
    weight = sums.row("weight")
    assert (weight[:5, :, 4:] == 256).all()
    assert not weight[5:].any()
    assert not weight[..., :4].any()
    assert not sums.row("image")[weight == 0].any()


def test_a_subject_counts_once_however_often_it_is_tried() -> None:
    adder = Adder(SumSettings(bins=8, detail=True), SHAPE)
    adder.add("a", _scan(0), _shift(1))
    before = adder.sums
    assert before is not None
    fields, counted = before.fields.copy(), before.histogram
    adder.add("a", _scan(1), _shift(2))
    after = adder.sums
    assert after is not None
    assert counted is not None
    assert (after.fields == fields).all()
    assert counted.sum() == after.row("weight").sum()


def test_a_displacement_that_is_not_finite_is_not_added() -> None:
    adder = Adder(SumSettings(), SHAPE)
    with pytest.raises(ValueError, match="to a is not finite"):
        adder.add("a", _scan(0), _shift(float("nan")))
    assert adder.sums is None


def test_sums_have_the_same_bits_in_any_order() -> None:
    settings = SumSettings(bins=16, detail=True)
    found = []
    for order in permutations(range(3)):
        adder = Adder(settings, SHAPE)
        for seed in order:
            adder.add(str(seed), _scan(seed), _shift(0.3 * seed))
        assert adder.sums is not None
        found.append(adder.sums)
    for other in found[1:]:
        assert (other.fields == found[0].fields).all()
        assert found[0].histogram is not None
        assert (other.histogram == found[0].histogram).all()


def test_a_displacement_of_half_the_grid_moves_as_far() -> None:
    half = Displacement(torch.full((1, 3, 4, 5, 5), 1.0), (4, 5, 5), (4, 5, 5))
    adder = Adder(SumSettings(), SHAPE)
    adder.add("a", _scan(0), half)
    assert adder.sums is not None
    moved = [adder.sums.row(name)[4, 4, 4] / 256 / UNIT for name in ("first", "second", "third")]
    assert np.allclose(moved, [7 / 3, 8 / 4, 9 / 4], atol=1e-4)


def test_the_logarithm_of_the_determinant_is_that_of_the_stretch() -> None:
    vectors = torch.zeros(1, 3, *SHAPE)
    vectors[:, 1] = 0.5 * torch.arange(SHAPE[1]).view(-1, 1)
    adder = Adder(SumSettings(detail=True), SHAPE)
    adder.add("a", _scan(0), Displacement(vectors, SHAPE, SHAPE))
    assert adder.sums is not None
    logs = adder.sums.row("log_jacobian") / 256 / UNIT
    assert np.allclose(logs, np.log(1.5), atol=1e-4)


def test_nobody_is_added_twice() -> None:
    sums = Sums(np.zeros((5, 2, 2, 2), np.int64), None, {"a": 256})
    with pytest.raises(ValueError, match="a is in both"):
        sums + sums


def test_damage_to_kept_sums_is_told(tmp_path: Path) -> None:
    sums = Sums(np.arange(5 * 64, dtype=np.int64).reshape(5, 4, 4, 4), None, {"a": 256})
    write_sums(tmp_path, sums)
    found = read_sums(tmp_path)
    assert found is not None
    assert (found.fields == sums.fields).all()
    assert found.subjects == {"a": 256}
    shard = next(path for path in (tmp_path / "fields" / "c").rglob("*") if path.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shard.write_bytes(content)
    with pytest.raises(StorageError, match=r"E_SUMS: .*damaged"):
        read_sums(tmp_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    return tiny_cohort(tmp_path_factory.mktemp("store") / "cohort.zarr", subjects=5)


def _planned(run_dir: Path, store: CohortStore, settings: PlanSettings) -> Path:
    table = run_dir.with_suffix(".csv")
    table.write_bytes(as_table(("mean", one) for one in store.subject_ids))
    volume = np.mean([store.read(one).volume for one in store.subject_ids], axis=0)
    template = Template(Subject("mean", volume.astype(np.float32)), {"source": None})
    open_run(run_dir, store, replace(settings, pairs=str(table)), template)
    return run_dir


def _summed_run(
    run_dir: Path, store: CohortStore, settings: PlanSettings, team: Team = PLAIN
) -> Path:
    run(_planned(run_dir, store, settings), store, team=team)
    return run_dir


SUMMED = PlanSettings(QUICK, sums=SumSettings(bins=8, detail=True))


@pytest.mark.slow
def test_sums_of_a_run_have_the_same_bits_for_any_tiles_and_workers(
    tmp_path: Path, store: CohortStore
) -> None:
    ways = ((1, PLAIN), (3, PLAIN), (2, Team(2)))
    found = [
        total_of(_summed_run(tmp_path / str(at), store, replace(SUMMED, tile_size=side), team))
        for at, (side, team) in enumerate(ways)
    ]
    for other in found[1:]:
        assert (other.fields == found[0].fields).all()
        assert found[0].histogram is not None
        assert (other.histogram == found[0].histogram).all()
        assert other.subjects == found[0].subjects


def test_subjects_are_let_go_after_their_pair(tmp_path: Path, store: CohortStore) -> None:
    run_dir = _summed_run(tmp_path / "run", store, replace(SUMMED, tile_size=4))
    events = map(json.loads, (run_dir / "events.jsonl").read_text().splitlines())
    kept = [one["kept"] for one in events if one["event"] == "tile_done"]
    assert kept
    assert max(kept) <= 2


def test_a_total_outlives_the_tiles_and_their_labels_stay(
    tmp_path: Path, store: CohortStore
) -> None:
    run_dir = _summed_run(tmp_path / "run", store, replace(SUMMED, tile_size=1))
    first = total_of(run_dir, 2)
    assert not list((run_dir / FOLDER).glob("*/fields"))
    assert (total_of(run_dir).fields == first.fields).all()
    tile = sorted((run_dir / FOLDER).iterdir())[0]
    assert set(np.unique(read_labels(tile, 0))) <= {0, 1, 2}
    assert not verify(run_dir).findings


def test_verify_finds_damaged_sums(tmp_path: Path, store: CohortStore) -> None:
    run_dir = _summed_run(tmp_path / "run", store, replace(SUMMED, tile_size=2))
    assert not verify(run_dir).findings
    shard = next(path for path in (run_dir / FOLDER).rglob("fields/c/**/*") if path.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shard.write_bytes(content)
    assert [one.code for one in verify(run_dir).findings] == ["E_SUMS"]
    shutil.rmtree(run_dir / FOLDER / shard.relative_to(run_dir / FOLDER).parts[0])
    assert [one.sentence for one in verify(run_dir).findings] == ["what the tile added is gone"]


def test_a_run_on_a_coarser_grid_has_its_sums_there(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", 2, (32, 34, 36))
    run_dir = _summed_run(tmp_path / "run", store, replace(SUMMED, shrink=2, tile_size=3))
    assert total_of(run_dir).fields.shape[1:] == (16, 17, 18)
    assert not verify(run_dir).findings


def test_sums_that_would_fill_the_disk_are_refused_before_they_are_planned(
    tmp_path: Path, store: CohortStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)
    run_dir = _planned(tmp_path / "run", store, replace(SUMMED, tile_size=1))
    run(run_dir, store)
    taken = [one.stat().st_size for one in (run_dir / FOLDER).rglob("*/c/**/*") if one.is_file()]
    voxels = np.prod(store.grid.shape)
    most = ((5 + 1 + 1) * (7 * 4 + 8) + 5 * 0.5) * voxels  # tiles, the step to one, the total
    assert sum(taken) < most
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: free._replace(free=most))
    said = r"E_SPACE: the template's sums would take about \d+\.\d MB, and \d+\.\d MB are free"
    with pytest.raises(UsageError, match=said):
        _planned(tmp_path / "other", store, replace(SUMMED, tile_size=1))
    assert not (tmp_path / "other").exists()
    _planned(tmp_path / "other", store, replace(SUMMED, tile_size=3))
