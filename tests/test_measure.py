"""What is measured of a pair, on pairs whose answers are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import ellipsoids, smooth_volume
from torch import Tensor

from cohort.data.geometry import Grid
from cohort.data.store import Subject
from cohort.engine.measure import measure_pair
from cohort.engine.registered_pair import (
    RegisteredPair,
    spacing_on,
    true_displacement,
    warped_labels,
)
from cohort.engine.scan import Scan
from triton_reg import Displacement

SHAPE = (16, 18, 20)
HALF = (8, 9, 10)
GRID = Grid.axis_aligned(SHAPE, (2.0, 1.0, 3.0), (0, 0, 0))
STEP = (2, 0, -1)  # voxels from fixed to moving


def translation(voxels: tuple[float, ...], shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.tensor(voxels).float().view(1, 3, 1, 1, 1).expand(1, 3, *shape).contiguous()


def displaced(voxels: tuple[float, ...]) -> Displacement:
    return Displacement(translation(voxels), SHAPE, SHAPE)


def subject(seed: int = 0, **arrays: np.ndarray | None) -> Subject:
    volume = (100 * smooth_volume(SHAPE, seed))[0, 0].numpy()
    return replace(Subject("a", volume, labels=ellipsoids(SHAPE, (0, 0, 0))), **arrays)


def moved(fixed: Subject, step: tuple[int, ...] = STEP) -> Subject:
    """The same subject some whole voxels further on."""

    def rolled(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else np.roll(values, step, axis=(0, 1, 2))

    return replace(fixed, volume=rolled(fixed.volume), labels=rolled(fixed.labels))


def field(voxels: tuple[float, ...]) -> np.ndarray:
    return translation(voxels)[0].numpy()


def measured(fixed: Scan, moving: Scan, displacement: Displacement, grid: Grid, *families: str):
    return measure_pair(RegisteredPair.of(fixed, moving, displacement, grid), families)


def test_a_pair_and_its_true_displacement_overlap_fully() -> None:
    fixed, moving = Scan.of(subject()), Scan.of(moved(subject()))
    measures = measured(fixed, moving, displaced(STEP), GRID)
    assert measures["dice_mean"] == 1
    assert measures["dice"] == [(1, 1.0), (2, 1.0)]
    assert measures["dice_before"] < 0.9
    assert [label for label, _ in measures["dice_structures_before"]] == [1, 2]
    assert measures["folding"] == 0
    assert measures["sdlogj"] == pytest.approx(0, abs=1e-6)
    assert measures["displacement_mean_mm"] == pytest.approx(5)  # 2 x 2 mm and 1 x 3 mm
    assert "epe_mm" not in measures


def test_before_is_the_pair_as_it_is() -> None:
    fixed, moving = Scan.of(subject(0)), Scan.of(moved(subject(1)))
    still = measured(fixed, moving, displaced((0, 0, 0)), GRID)
    other = measured(fixed, moving, displaced((1, 1, 1)), GRID)
    for before, after in (("dice_before", "dice_mean"), ("ncc_before", "ncc")):
        assert still[before] == other[before] == pytest.approx(still[after], rel=1e-6)
    assert still["displacement_mean_mm"] == 0


def test_the_truth_of_a_pair_goes_through_the_template() -> None:
    fixed = Scan.of(subject(to_template=field((1.5, 0, 0)), from_template=field((9, 9, 9))))
    moving = Scan.of(subject(to_template=field((9, 9, 9)), from_template=field((0.5, 0, -1))))
    truth = true_displacement(fixed, moving)
    assert truth is not None
    torch.testing.assert_close(truth, translation(STEP))
    assert true_displacement(fixed, Scan.of(subject())) is None
    assert true_displacement(Scan.of(subject()), moving) is None


def known_pair() -> tuple[Scan, Scan]:
    """Two scans whose true displacement is STEP."""
    fixed = subject(to_template=field((1, 0, 0)), from_template=field((-1, 0, 0)))
    moving = replace(
        moved(subject()), to_template=field((-1, 0, 1)), from_template=field((1, 0, -1))
    )
    return Scan.of(fixed), Scan.of(moving)


@pytest.mark.parametrize(
    ("voxels", "error_mm"),
    [(STEP, 0), ((0, 0, 0), 5), ((2, 4, -1), 4)],
    ids=["true", "none", "off"],
)
def test_the_endpoint_error_is_the_distance_to_the_truth(voxels, error_mm: float) -> None:
    measures = measured(*known_pair(), displaced(voxels), GRID)
    assert measures["epe_mm"] == pytest.approx(error_mm, abs=1e-5)
    assert measures["epe_before_mm"] == pytest.approx(5)


def test_on_the_halved_grid_millimetres_stay_millimetres() -> None:
    scale = [(half - 1) / (full - 1) for half, full in zip(HALF, SHAPE, strict=True)]
    vectors = translation(tuple(s * f for s, f in zip(STEP, scale, strict=True)), HALF)
    measures = measured(*known_pair(), Displacement(vectors, HALF, HALF), GRID)
    assert measures["epe_mm"] == pytest.approx(0, abs=1e-5)
    assert measures["epe_before_mm"] == pytest.approx(5, rel=1e-5)
    assert measures["displacement_mean_mm"] == pytest.approx(5, rel=1e-5)
    assert measures["dice_mean"] > measures["dice_before"]


def test_the_spacing_of_the_halved_grid_spans_the_same_box() -> None:
    assert spacing_on(GRID, SHAPE) == GRID.spacing_mm
    assert spacing_on(GRID, HALF) == pytest.approx((2 * 15 / 7, 17 / 8, 3 * 19 / 9))


def test_only_structures_of_both_subjects_count() -> None:
    labels = ellipsoids(SHAPE, (0, 0, 0))
    fixed = Scan.of(subject(labels=np.where(labels == 2, 7, labels).astype(np.uint16)))
    moving = Scan.of(subject(labels=labels))
    measures = measured(fixed, moving, displaced((0, 0, 0)), GRID)
    assert [label for label, _ in measures["dice"]] == [1]
    assert measures["dice_mean"] == measures["dice"][0][1]


@pytest.mark.parametrize("labels", [None, np.full(SHAPE, 9, np.uint16)], ids=["none", "others"])
def test_without_a_common_structure_there_is_no_overlap(labels: np.ndarray | None) -> None:
    measures = measured(
        Scan.of(subject()), Scan.of(subject(1, labels=labels)), displaced((0, 0, 0)), GRID
    )
    assert not {"dice", "dice_mean", "dice_before", "dice_structures_before"} & measures.keys()
    assert {"ncc", "ncc_before", "folding", "sdlogj"} <= measures.keys()


def test_a_structure_that_leaves_the_grid_overlaps_by_nothing() -> None:
    measures = measured(Scan.of(subject()), Scan.of(subject()), displaced((40, 0, 0)), GRID)
    assert measures["dice"] == [(1, 0.0), (2, 0.0)]
    assert measures["dice_before"] == 1


def test_without_labels_the_mask_says_where_to_measure() -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:12, 4:12, 4:12] = 1
    vectors = torch.where(torch.from_numpy(mask) > 0, translation(STEP), torch.tensor(9.0))
    known = [replace(scan, labels=None) for scan in known_pair()]
    fixed = replace(known[0], mask=torch.from_numpy(mask)[None, None].float())
    measures = measured(fixed, known[1], Displacement(vectors, SHAPE, SHAPE), GRID)
    assert measures["epe_mm"] == pytest.approx(0, abs=1e-5)
    assert measures["ncc"] == pytest.approx(1, abs=1e-6)


def test_what_is_outside_of_either_mask_is_not_compared() -> None:
    mask = np.ones(SHAPE, np.uint8)
    mask[10:] = 0
    clean = subject()
    spoiled = replace(clean, volume=np.where(mask, clean.volume, 1e3).astype(np.float32))
    spoiled = replace(spoiled, labels=np.where(mask, clean.labels, 2).astype(np.uint16))
    masked = Scan.of(replace(spoiled, mask=mask))
    for pair in ((masked, Scan.of(clean)), (Scan.of(clean), masked)):
        measures = measured(*pair, displaced((0, 0, 0)), GRID)
        assert measures["ncc"] == measures["ncc_before"] == pytest.approx(1, abs=1e-6)
        assert measures["dice_mean"] == measures["dice_before"] == 1
    without = measured(Scan.of(spoiled), Scan.of(clean), displaced((0, 0, 0)), GRID)
    assert without["ncc"] < 0.9
    assert without["dice_mean"] < 0.9


def test_a_moving_mask_is_looked_at_where_it_is_moved_to() -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:12, 2:14, 4:16] = 1
    fixed = replace(subject(), mask=mask)
    spoiled = np.where(mask, fixed.volume, 1e3).astype(np.float32)
    moving = replace(moved(replace(fixed, volume=spoiled)), mask=np.roll(mask, STEP, (0, 1, 2)))
    measures = measured(Scan.of(subject()), Scan.of(moving), displaced(STEP), GRID)
    assert measures["ncc"] == pytest.approx(1, abs=1e-6)


def test_keypoints_are_moved_and_measured_in_the_moving_subjects_own_mm() -> None:
    points = GRID.voxel_to_world(np.array([[5.0, 6, 7], [8.5, 9.25, 4], [3, 4, 15]]))
    there = GRID.voxel_to_world(GRID.world_to_voxel(points) + STEP)
    there[0, 1] += 4  # mm along an axis that is half as long in the native world
    to_native_mm = np.diag([1, 0.5, 1, 1.0])
    fixed = Scan.of(subject(keypoints_mm=points))
    moving = Scan.of(subject(keypoints_mm=there), to_native_mm)
    measures = measured(fixed, moving, displaced(STEP), GRID)
    assert measures["tre_max_mm"] == pytest.approx(2, abs=1e-5)
    assert measures["tre_mm"] == pytest.approx(2 / 3, abs=1e-5)
    assert measures["tre_p30_mm"] == pytest.approx(0, abs=1e-5)
    assert measures["tre_sd_mm"] == pytest.approx(np.std([2, 0, 0]), abs=1e-5)
    assert measures["tre_before_mm"] == pytest.approx((2 * 5 + math.sqrt(25 + 4)) / 3)
    halved = Displacement(displaced(STEP).vectors[..., ::2, ::2, ::2] / 2, HALF, HALF)
    again = measured(fixed, moving, halved, GRID)
    assert again["tre_mm"] == pytest.approx(measures["tre_mm"], abs=0.5)
    assert "tre_mm" not in measured(fixed, Scan.of(subject()), displaced(STEP), GRID)
    fewer = replace(moving, keypoints_mm=torch.from_numpy(there[:2]))
    assert "tre_mm" not in measured(fixed, fewer, displaced(STEP), GRID)


def test_no_measure_is_ever_nan() -> None:
    flat = Scan.of(subject(volume=np.full(SHAPE, 3, np.float32), mask=np.zeros(SHAPE, np.uint8)))
    unlabelled = replace(flat, labels=None, **truths())
    measures = measured(unlabelled, unlabelled, displaced((0, 0, 0)), GRID)
    assert measures["ncc"] == 0
    assert "epe_mm" not in measures  # nowhere to measure it
    assert not any(isinstance(one, float) and math.isnan(one) for one in measures.values())


def truths() -> dict[str, Tensor]:
    return {"to_template": translation((0, 0, 0)), "from_template": translation((0, 0, 0))}


def test_warped_labels_keep_every_value() -> None:
    labels = torch.tensor([0, 1, 65535, 40001], dtype=torch.int32).view(1, 1, 1, 1, 4)
    labels = labels.expand(1, 1, *SHAPE[:2], 4).contiguous()
    shape = (*SHAPE[:2], 4)
    still = Displacement(torch.zeros(1, 3, *shape), shape, shape)
    assert torch.equal(warped_labels(labels, still), labels)


def test_a_scan_without_a_mask_counts_everywhere() -> None:
    scan = Scan.of(subject(labels=None))
    assert scan.labels is None
    assert scan.mask.shape == scan.volume.shape == (1, 1, *SHAPE)
    assert (scan.mask == 1).all()
    assert scan.on_grid(SHAPE) is scan
    assert scan.on_grid(HALF).mask.shape == (1, 1, *HALF)
