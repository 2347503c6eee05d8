"""Measures beyond the headline ones: what each family gives, and how a run is asked for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Cohort
from helpers import ellipsoids, smooth_volume
from small_cohort import write_cohort
from small_run import QUICK

from cohort.data.geometry import Grid
from cohort.data.ingest import IngestSettings, ingest
from cohort.data.store import CohortStore, Subject
from cohort.engine.choices import PlanSettings
from cohort.engine.families import MEASURES, families_of
from cohort.engine.measure import measure_pair
from cohort.engine.plan import open_run
from cohort.engine.registered_pair import RegisteredPair
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.engine.scan import Scan
from cohort.errors import UsageError
from triton_reg import Displacement

SHAPE = (16, 18, 20)
GRID = Grid.axis_aligned(SHAPE, (2.0, 1.0, 3.0), (0, 0, 0))
STEP = (2, 0, -1)


def subject(seed: int = 0) -> Subject:
    volume = (100 * smooth_volume(SHAPE, seed))[0, 0].numpy()
    return Subject("a", volume, labels=ellipsoids(SHAPE, (0, 0, 0)))


def moved(one: Subject) -> Subject:
    volume, labels = (np.roll(values, STEP, axis=(0, 1, 2)) for values in (one.volume, one.labels))
    return replace(one, volume=volume, labels=labels)


def displaced(step: tuple[int, ...]) -> Displacement:
    vectors = torch.tensor(step).float().view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE).contiguous()
    return Displacement(vectors, SHAPE, SHAPE)


def pair(backward: tuple[int, ...] = (-2, 0, 1)) -> RegisteredPair:
    scans = Scan.of(subject()), Scan.of(moved(subject()))
    return RegisteredPair.of(*scans, displaced(STEP), GRID, displaced(backward))


def test_a_family_adds_its_columns_and_no_others() -> None:
    headline = measure_pair(pair()).keys()
    seen = set(headline)
    for family in MEASURES:
        added = measure_pair(pair(), [family]).keys() - headline
        assert added
        assert not added & (seen - headline)
        seen |= added


def test_the_true_displacement_overlaps_fully() -> None:
    found = measure_pair(pair(), ["overlap"])
    assert found["jaccard"] == found["volume_similarity"] == [(1, 1.0), (2, 1.0)]
    assert found["jaccard_mean"] == found["volume_similarity_mean"] == 1


def test_soft_overlap_counts_parts_of_voxels() -> None:
    whole = measure_pair(pair(), ["soft_overlap"])
    assert whole["soft_dice"] == whole["soft_jaccard"] == [(1, 1.0), (2, 1.0)]
    between = Displacement(displaced(STEP).vectors + 0.5, SHAPE, SHAPE)
    found = measure_pair(replace(pair(), displacement=between), ["soft_overlap"])
    assert 0.5 < found["soft_dice_mean"] < 1
    assert found["soft_jaccard_mean"] < found["soft_dice_mean"]
    inside = torch.zeros(1, 1, *SHAPE)
    masked = replace(pair().fixed, mask=inside, is_masked=True)
    nothing = measure_pair(replace(pair(), fixed=masked), ["soft_overlap"])
    assert "soft_dice" not in nothing


def test_what_a_scan_keeps_counts_as_its_memory() -> None:
    scan = Scan.of(subject())
    before = scan.size_bytes
    corners = len(scan.surfaces.codes)
    assert scan.size_bytes >= before + 7 * corners > before


def test_surfaces_that_lie_on_each_other_are_no_distance_apart() -> None:
    found = measure_pair(pair(), ["surface"])
    assert found["hd95_mm"] == found["hd_mm"] == found["assd_mm"] == [(1, 0.0), (2, 0.0)]
    assert found["surface_dice"] == [(1, 1.0), (2, 1.0)]
    assert found["hd95_vox_mean"] == 0


def test_surface_distances_are_in_mm() -> None:
    scans = Scan.of(subject()), Scan.of(subject())
    one_step = RegisteredPair.of(*scans, displaced((0, 0, 1)), GRID)
    found = measure_pair(one_step, ["surface"])
    assert found["hd_mm_mean"] == pytest.approx(3)  # a voxel is 3 mm long there
    assert found["hd95_vox_mean"] == pytest.approx(1)
    assert 0 < found["surface_dice_mean"] < 1
    masked = replace(scans[0], is_masked=True)
    again = measure_pair(
        RegisteredPair.of(masked, scans[1], displaced((0, 0, 1)), GRID), ["surface"]
    )
    assert again["hd95_mm"] == found["hd95_mm"]


def test_similarity_is_better_after_than_before() -> None:
    inner = torch.zeros(1, 1, *SHAPE)
    inner[..., 3:-3, 3:-3, 3:-3] = 1  # what comes from outside of the grid is 0
    one = pair()
    found = measure_pair(replace(one, fixed=replace(one.fixed, mask=inner)), ["similarity"])
    assert found["mse"] == pytest.approx(0, abs=1e-6)
    assert found["mse"] < found["mse_before"]
    assert found["lncc"] > found["lncc_before"]
    assert found["mi"] > found["mi_before"]


def test_deformation_of_a_translation_is_none() -> None:
    found = measure_pair(pair(), ["deformation"])
    assert found["ndv"] == found["bending_energy"] == 0
    assert found["displacement_max_mm"] == pytest.approx(5)
    assert found["sdlogj_l2r"] == pytest.approx(0, abs=1e-6)


def test_there_and_back_is_measured_in_mm() -> None:
    assert measure_pair(pair(), ["consistency"])["ice_mm"] == pytest.approx(0, abs=1e-6)
    away = measure_pair(pair(backward=(-2, 3, 1)), ["consistency"])["ice_mm"]
    assert away == pytest.approx(3, rel=0.01)


def test_without_labels_there_is_no_overlap() -> None:
    bare = [Scan.of(replace(one, labels=None)) for one in (subject(), moved(subject()))]
    unlabelled = RegisteredPair.of(*bare, displaced(STEP), GRID, displaced(STEP))
    found = measure_pair(unlabelled, MEASURES)
    assert "jaccard" not in found
    assert "mse" in found


@pytest.mark.parametrize(
    ("text", "families"),
    [
        ("none", ()),
        ("all", tuple(MEASURES)),
        ("similarity, overlap", ("overlap", "similarity")),
        ("overlap", ("overlap",)),
    ],
)
def test_families_are_read_as_people_write_them(text: str, families: tuple[str, ...]) -> None:
    assert families_of(text) == families


@pytest.mark.parametrize("text", ["overlap,sharpness", "", "all,overlap"])
def test_what_is_no_family_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"E_METRICS: no measures are called .*overlap, "):
        families_of(text)


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    settings = IngestSettings(grid="16x16x16@2mm", align="center")
    ingest(write_cohort(tmp_path / "source"), tmp_path / "cohort.zarr", settings)
    return CohortStore.open(tmp_path / "cohort.zarr")


def test_a_run_measures_what_it_was_asked_for(store: CohortStore, tmp_path: Path) -> None:
    families = ("overlap", "consistency")
    open_run(tmp_path / "run", store, PlanSettings(QUICK, "random:2", metrics=families))
    run(tmp_path / "run", store)
    rows = read_rows(tmp_path / "run")
    assert set(rows["status"]) == {"ok"}
    assert rows["jaccard_mean"].null_count() == rows["ice_mm"].null_count() == 0
    assert rows["mse"].null_count() == 2
    assert open_run(tmp_path / "run", store, PlanSettings()).metrics == families
    with pytest.raises(UsageError, match="metrics was overlap,consistency, now none"):
        open_run(tmp_path / "run", store, PlanSettings(metrics=()))


def test_the_command_takes_families(store: CohortStore, tmp_path: Path, cohort: Cohort) -> None:
    where = (str(store.path), str(tmp_path / "run"), "--pairs", "random:1", "--workers", "0")
    quick = ("--set", "features=intensity", "--set", "levels=2")
    done = cohort("register", *where, *quick, "--metrics", "deformation", "--json")
    assert done.code == 0, done.err
    rows = read_rows(tmp_path / "run")
    assert rows["ndv"].null_count() == 0


def test_masks_without_a_common_voxel_leave_similarity_unknown() -> None:
    fixed, moving = torch.zeros(2, 1, 1, *SHAPE)
    fixed[..., :4, :, :], moving[..., -4:, :, :] = 1, 1
    one = pair()
    apart = replace(
        one,
        fixed=replace(one.fixed, mask=fixed, is_masked=True),
        moving=replace(one.moving, mask=moving, is_masked=True),
    )
    columns = measure_pair(apart, ["similarity"]).keys()
    assert not columns & {
        f"{name}{end}" for name in ("mse", "lncc", "mi") for end in ("", "_before")
    }
