"""Distances of corresponding points, against what can be worked out by hand."""

import pytest
import torch

from triton_reg import Displacement
from triton_reg.metrics.landmarks import (
    landmark_measures,
    moved_points,
    target_registration_error_mm,
)

SHAPE = (9, 7, 5)


def linear_displacement(shape: tuple[int, int, int] = SHAPE) -> Displacement:
    """``u = (0.1 x0, -0.2 x1, 0.5)`` at the fixed voxel x, on a grid of any size."""
    grid = torch.meshgrid(
        *(torch.linspace(0, full - 1, size) for full, size in zip(SHAPE, shape, strict=True)),
        indexing="ij",
    )
    vectors = torch.stack([0.1 * grid[0], -0.2 * grid[1], torch.full(shape, 0.5)])
    return Displacement(vectors[None], SHAPE, SHAPE)


@pytest.mark.parametrize("shape", [SHAPE, (5, 4, 3)], ids=["full", "coarse"])
def test_points_go_where_the_displacement_says(shape: tuple[int, int, int]) -> None:
    points = torch.tensor([[2.0, 3.0, 1.0], [7.25, 0.5, 3.75]], dtype=torch.float64)
    expected = points + torch.tensor([[0.2, -0.6, 0.5], [0.725, -0.1, 0.5]])
    assert torch.allclose(moved_points(points, linear_displacement(shape)), expected, atol=1e-6)


def test_points_may_be_whole_voxels_or_halves() -> None:
    displacement = linear_displacement()
    points = torch.tensor([[2, 3, 1], [7, 0, 3]])
    expected = moved_points(points.float(), displacement)
    for dtype in (torch.int64, torch.uint8, torch.float16):
        assert torch.equal(moved_points(points.to(dtype), displacement), expected)


def test_points_outside_go_with_the_border() -> None:
    outside = torch.tensor([[-3.0, 3.0, 9.0]])
    moved = moved_points(outside, linear_displacement())
    assert torch.allclose(moved, torch.tensor([[-3.0, 2.4, 9.5]]), atol=1e-5)


def test_the_moving_grid_may_be_another() -> None:
    still = Displacement(torch.zeros(1, 3, 2, 2, 2), (5, 5, 5), (9, 9, 9))
    assert torch.equal(
        moved_points(torch.tensor([[1.0, 2, 3]]), still), torch.tensor([[2.0, 4, 6]])
    )


def test_errors_are_in_mm_along_each_axis() -> None:
    fixed = torch.tensor([[2.0, 3.0, 1.0], [4.0, 1.0, 2.0]])
    truth = moved_points(fixed, linear_displacement())
    away = truth + torch.tensor([[3.0, 0, 0], [0, 0, -2.0]])
    step_mm = torch.diag(torch.tensor([2.0, 1.0, 1.5]))
    errors = target_registration_error_mm(fixed, away, linear_displacement(), step_mm)
    assert torch.allclose(errors, torch.tensor([6.0, 3.0]), atol=1e-5)
    measures = landmark_measures(errors)
    assert [round(one.item(), 4) for one in measures] == [4.5, 1.5, 3.9, 6.0]


def test_what_does_not_correspond_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the same points, got \[2, 3\] fixed and \[3, 3\]"):
        target_registration_error_mm(
            torch.zeros(2, 3), torch.zeros(3, 3), linear_displacement(), torch.eye(3)
        )
    with pytest.raises(ValueError, match=r"needs points \[K, 3\].*got \[4, 2\]"):
        moved_points(torch.zeros(4, 2), linear_displacement())
    with pytest.raises(ValueError, match="at least one point"):
        landmark_measures(torch.zeros(0))
