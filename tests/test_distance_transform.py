"""Distances to the nearest voxel of a set, against their definition and scipy's."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from triton_reg.ops.distance_transform import distance_transform, distance_transform_reference

SPACINGS = [(1.0, 1.0, 1.0), (1.5, 2.0, 3.0), (3.0, 0.2, 0.7)]


def random_mask(shape: tuple[int, int, int], share: float, batch: int = 1) -> Tensor:
    mask = torch.rand(batch, 1, *shape, generator=torch.Generator().manual_seed(0)) < share
    mask[:, 0, 0, 0, -1] = True
    return mask


@pytest.mark.parametrize("spacing", SPACINGS)
def test_one_voxel_is_seen_from_everywhere(spacing: tuple[float, float, float]) -> None:
    mask = torch.zeros(1, 1, 5, 3, 7, dtype=torch.bool)
    mask[0, 0, 3, 0, 2] = True
    away = np.indices((5, 3, 7)) - np.array([3, 0, 2])[:, None, None, None]
    expected = ((np.array(spacing)[:, None, None, None] * away) ** 2).sum(0)
    np.testing.assert_allclose(distance_transform(mask, spacing)[0, 0], expected, rtol=3e-7)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("share", [0.5, 0.02, 0.001])
@pytest.mark.parametrize("shape", [(5, 3, 7), (1, 1, 1), (20, 31, 17), (12, 1, 40)])
def test_the_kernel_is_the_definition(
    shape: tuple[int, int, int], share: float, spacing: tuple[float, float, float]
) -> None:
    mask = random_mask(shape, share, batch=2)
    found = distance_transform(mask, spacing)
    exact = distance_transform_reference(mask, spacing, torch.float64)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=4e-7, atol=0)
    theirs = distance_transform_edt(~mask[0, 0].numpy(), sampling=spacing)
    np.testing.assert_allclose(exact[0, 0].sqrt(), np.asarray(theirs), rtol=1e-12)


def test_integers_are_exact() -> None:
    mask = random_mask((20, 31, 17), 0.001)
    assert torch.equal(distance_transform(mask), distance_transform_reference(mask))


def test_an_empty_mask_is_infinitely_far_and_a_batch_changes_nothing() -> None:
    mask = random_mask((5, 8, 7), 0.02, batch=3)
    mask[1] = False
    found = distance_transform(mask)
    assert (found[1] == math.inf).all()
    for one in range(3):
        assert torch.equal(distance_transform(mask[one : one + 1])[0], found[one])


def test_the_operator_is_registered_whole() -> None:
    mask = random_mask((5, 3, 7), 0.1)
    operator = torch.ops.triton_reg.distance_transform.default
    torch.library.opcheck(operator, (mask, [1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    ("mask", "spacing", "error", "message"),
    [
        (torch.ones(1, 1, 2, 2, 2), (1, 1, 1), TypeError, "must be bool, got torch.float32"),
        (torch.ones(2, 2, 2, 2).bool(), (1, 1, 1), ValueError, r"got \[2, 2, 2, 2\]"),
        (torch.ones(1, 1, 2, 2, 2).bool(), (1, 0, 1), ValueError, r"above 0, got \(1, 0, 1\)"),
    ],
    ids=["dtype", "shape", "spacing"],
)
def test_bad_input_is_named(mask, spacing, error, message) -> None:
    with pytest.raises(error, match=message):
        distance_transform(mask, spacing)
