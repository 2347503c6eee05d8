"""Overlap straight from the displacement: its definition, and what it refuses."""

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg import Displacement
from triton_reg.metrics.overlap import warped_label_counts, warped_label_counts_reference

SHAPE = (6, 7, 8)


def labels(shape: tuple[int, int, int], seed: int) -> Tensor:
    return (9 * smooth_volume(shape, seed)).int()


def displaced(moving_shape: tuple[int, int, int], dtype: torch.dtype) -> Displacement:
    coarse = 6 * smooth_volume((3, 4, 5), 2, channels=3).to(dtype) - 3
    return Displacement(coarse, SHAPE, moving_shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("moving_shape", [SHAPE, (5, 1, 9)])
def test_counts_are_the_definition(moving_shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    given = labels(SHAPE, 0), labels(moving_shape, 1), displaced(moving_shape, dtype)
    found = warped_label_counts(*given, bins=12)
    assert found.shape == (3, 12)
    assert torch.equal(found, warped_label_counts_reference(*given, bins=12))
    assert found[2].sum() > 0


def test_a_label_that_has_no_bin_is_named() -> None:
    fixed, moving = labels(SHAPE, 0), torch.full((1, 1, *SHAPE), 5, dtype=torch.int32)
    still = Displacement(torch.zeros(1, 3, 2, 2, 2), SHAPE, SHAPE)
    with pytest.raises(ValueError, match=r"below bins = 5, got others at 336 voxels"):
        warped_label_counts(fixed.clamp(max=4), moving, still, bins=5)
    with pytest.raises(ValueError, match=r"must not be negative, got -5"):
        warped_label_counts(fixed, -moving, still, bins=12)


@pytest.mark.parametrize(
    ("fixed_shape", "moving_shape", "pairs", "message"),
    [
        ((1, 6, 7, 8), (1, 1, 6, 7, 8), 1, r"fixed_labels must be \[1, 1, 6, 7, 8\]"),
        ((1, 1, 6, 7, 8), (1, 1, 6, 7, 9), 1, r"moving_labels must be .* got \[1, 1, 6, 7, 9\]"),
        ((1, 1, 6, 7, 8), (1, 1, 6, 7, 8), 2, r"the displacement of one pair, got 2"),
    ],
)
def test_what_does_not_fit_is_refused(
    fixed_shape: tuple[int, ...], moving_shape: tuple[int, ...], pairs: int, message: str
) -> None:
    displacement = Displacement(torch.zeros(pairs, 3, 2, 2, 2), SHAPE, SHAPE)
    fixed, moving = (torch.zeros(shape).int() for shape in (fixed_shape, moving_shape))
    with pytest.raises(ValueError, match=message):
        warped_label_counts(fixed, moving, displacement, bins=3)
