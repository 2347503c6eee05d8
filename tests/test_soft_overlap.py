"""Overlap with parts of voxels: known cases, the sweep, and structures warped one by one."""

import math

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg import Displacement
from triton_reg.metrics.overlap import label_counts, overlap_measures
from triton_reg.metrics.soft_overlap import soft_label_counts, soft_label_counts_reference
from triton_reg.ops.resize import Shape
from triton_reg.ops.warp import warp_reference

SHAPE, MOVING = (7, 9, 8), (6, 11, 5)


def parcels(shape: Shape, seed: int) -> Tensor:
    return (smooth_volume(shape, seed) * 9).int().clamp(0, 8)


def wavy(strength: float, moving: Shape = SHAPE, grid: Shape = SHAPE) -> Displacement:
    return Displacement(strength * smooth_volume(grid, 5, channels=3) - 1, SHAPE, moving)


def along_a_row(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int32).expand(1, 1, 3, 2, -1).contiguous()


def test_without_displacement_the_counts_are_whole() -> None:
    fixed, moving = parcels(SHAPE, 0), parcels(SHAPE, 1)
    still = Displacement(torch.zeros(1, 3, *SHAPE), SHAPE, SHAPE)
    found = soft_label_counts(fixed, moving, still, at_least=12)
    assert torch.equal(found, label_counts(fixed, moving, 12).double())


def test_half_a_voxel_shares_its_labels_by_halves() -> None:
    labels = along_a_row([1, 1, 2, 0])
    vectors = torch.zeros(1, 3, 3, 2, 4)
    vectors[:, 2] = 0.5
    found = soft_label_counts(labels, labels, Displacement(vectors, (3, 2, 4), (3, 2, 4)))
    # a row reads 1, 1 and 2, 2 and 0, 0 and outside, by halves
    assert (found / 6).tolist() == [[1, 2, 1], [1, 1.5, 1], [0.5, 1.5, 0.5]]
    assert overlap_measures(found[:, 1:]).dice.tolist() == pytest.approx([3 / 3.5, 0.5])


@pytest.mark.parametrize("strength", [0.5, 4.0, 30.0])
@pytest.mark.parametrize("moving_shape", [SHAPE, MOVING, (1, 9, 8)])
def test_the_sweep_is_the_definition(moving_shape: Shape, strength: float) -> None:
    fixed, moving = parcels(SHAPE, 0), parcels(moving_shape, 1)
    coarse = wavy(strength, moving_shape, grid=(4, 5, 4))
    for displacement in (wavy(strength, moving_shape), coarse):
        wide = Displacement(displacement.vectors.double(), SHAPE, moving_shape)
        found = soft_label_counts(fixed, moving, displacement)
        expected = soft_label_counts(fixed, moving, wide)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_it_is_the_overlap_of_structures_warped_one_by_one() -> None:
    fixed, moving = parcels(SHAPE, 0), parcels(MOVING, 1)
    vectors = wavy(4.0, MOVING).vectors.double()
    found = soft_label_counts(fixed, moving, Displacement(vectors, SHAPE, MOVING))
    for label in range(9):
        warped = warp_reference((moving == label).double(), vectors, SHAPE)
        ours = (fixed == label).double()
        expected = [ours.sum().item(), warped.sum().item(), (ours * warped).sum().item()]
        assert found[:, label].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_parts_in_whole_units_add_up_in_any_order() -> None:
    maps = parcels(SHAPE, 0)[0, 0], parcels(MOVING, 1)[0, 0]
    given = wavy(4.0, MOVING).vectors[0], torch.ones(SHAPE, dtype=torch.bool), 9
    exact = soft_label_counts_reference(*maps, *given)
    rounded = soft_label_counts_reference(*maps, *given, units=2**10)
    assert torch.equal(rounded * 2**10, (rounded * 2**10).round())
    assert not torch.equal(exact * 2**10, (exact * 2**10).round())
    # eight parts a voxel, each off by half a unit at most
    assert (rounded - exact).abs().max() <= 4 * maps[0].numel() / 2**10


def test_only_the_mask_counts_and_nan_goes_nowhere() -> None:
    labels = along_a_row([1, 2, 1, 2])
    vectors, mask = torch.zeros(1, 3, 3, 2, 4), torch.ones(1, 1, 3, 2, 4)
    mask[..., 2:] = 0
    vectors[..., 1] = math.nan
    for dtype in (torch.float32, torch.float64):
        displacement = Displacement(vectors.to(dtype), (3, 2, 4), (3, 2, 4))
        found = soft_label_counts(labels, labels, displacement, mask)
        assert found.tolist() == [[0, 6, 6], [0, 6, 0], [0, 6, 0]]


LABELS = parcels(SHAPE, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: soft_label_counts(LABELS[..., :4], LABELS, wavy(1)),
            r"fixed_labels must be \[1, 1, 7, 9, 8\], got \[1, 1, 7, 9, 4\]",
        ),
        (
            lambda: soft_label_counts(LABELS, LABELS, wavy(1, MOVING)),
            r"moving_labels must be \[1, 1, 6, 11, 5\], got \[1, 1, 7, 9, 8\]",
        ),
        (
            lambda: soft_label_counts(LABELS, LABELS, wavy(1), LABELS[0]),
            r"mask must be \[1, 1, 7, 9, 8\], got \[1, 7, 9, 8\]",
        ),
        (
            lambda: soft_label_counts(
                LABELS, LABELS, Displacement(torch.zeros(2, 3, *SHAPE), SHAPE, SHAPE)
            ),
            "displacement of one pair, got 2",
        ),
        (lambda: soft_label_counts(LABELS - 9, LABELS, wavy(1)), "not be negative, got -9"),
    ],
    ids=["fixed", "moving", "mask", "batch", "label"],
)
def test_bad_input_is_named(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
