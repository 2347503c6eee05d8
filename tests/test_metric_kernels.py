"""The compiled measures against their plain-torch definitions in float64."""

import math

import numpy as np
import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg.metrics.endpoint import mean_length_mm, mean_length_mm_reference
from triton_reg.metrics.jacobian import jacobian_measures, jacobian_measures_reference
from triton_reg.metrics.overlap import label_counts, label_counts_reference
from triton_reg.metrics.similarity import (
    lncc,
    lncc_reference,
    mutual_information,
    mutual_information_reference,
    ncc,
    ncc_and_mse,
    ncc_and_mse_reference,
)

SHAPES = [(5, 5, 5), (7, 9, 8), (6, 17, 33)]
SPACING = (2.0, 0.5, 3.0)


def fields(shape: tuple[int, int, int], strength: float) -> Tensor:
    return strength * torch.cat([smooth_volume(shape, seed, channels=3) for seed in range(2)])


@pytest.mark.parametrize("is_folded", [False, True], ids=["smooth", "folded"])
@pytest.mark.parametrize("shape", SHAPES)
def test_jacobian_measures(shape: tuple[int, int, int], is_folded: bool) -> None:
    noise = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    vectors = 3 * noise if is_folded else fields(shape, 0.5)
    expected = jacobian_measures_reference(vectors.double())
    found = jacobian_measures(vectors)
    torch.testing.assert_close(found.folding, expected.folding, rtol=0, atol=0)
    torch.testing.assert_close(found.sdlogj, expected.sdlogj, rtol=1e-5, atol=1e-6)
    assert (found.folding.max() > 0) == is_folded


@pytest.mark.parametrize("offset", [0.0, 1e5])
@pytest.mark.parametrize("shape", SHAPES)
def test_ncc(shape: tuple[int, int, int], offset: float) -> None:
    fixed, warped = (fields(shape, 100.0)[:, channel : channel + 1] for channel in (0, 1))
    fixed = fixed + offset
    mask = (fields(shape, 1.0)[:, 2:] > 0.5).float()
    found = ncc_and_mse(fixed, warped, mask)
    expected = ncc_and_mse_reference(fixed.double(), warped.double(), mask)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-9, atol=1e-9)
    assert torch.equal(ncc(fixed, warped, mask), found[0])


@pytest.mark.parametrize("width", [1, 3, 9])
@pytest.mark.parametrize("shape", SHAPES)
def test_lncc(shape: tuple[int, int, int], width: int) -> None:
    fixed, warped = (fields(shape, 100.0)[:, channel : channel + 1] for channel in (0, 1))
    mask = (fields(shape, 1.0)[:, 2:] > 0.5).float()
    found = lncc(fixed, warped, mask, width)
    expected = lncc_reference(fixed.double(), warped.double(), mask, width)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    if width > 1:
        assert lncc(fixed, 5 - 2 * fixed, mask, width).tolist() == pytest.approx([1, 1], abs=1e-3)


def test_lncc_of_what_is_flat_is_zero() -> None:
    flat = torch.full((1, 1, 6, 7, 8), 7.0)
    other = smooth_volume((6, 7, 8), 0)
    assert lncc(flat, other, torch.ones_like(flat)).item() == 0
    assert lncc(other, other, torch.zeros_like(flat)).item() == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_mutual_information(shape: tuple[int, int, int]) -> None:
    fixed, warped = (fields(shape, 100.0)[:, channel : channel + 1] for channel in (0, 1))
    mask = (fields(shape, 1.0)[:, 2:] > 0.4).float()
    found = mutual_information(fixed, warped, mask)
    # the same bins by the same rounding, so the same counts
    torch.testing.assert_close(found, mutual_information_reference(fixed, warped, mask))
    exact = mutual_information(fixed.double(), warped.double(), mask)
    torch.testing.assert_close(found, exact, rtol=0.02, atol=0)
    for pair in range(2):
        inside = mask[pair] > 0
        counts, _, _ = np.histogram2d(fixed[pair][inside], warped[pair][inside], bins=32)
        shares = counts / counts.sum()
        apart = shares.sum(1, keepdims=True) * shares.sum(0, keepdims=True)
        expected = (shares[shares > 0] * np.log(shares[shares > 0] / apart[shares > 0])).sum()
        assert found[pair].item() == pytest.approx(expected, rel=0.02)
    # a volume tells all about its own negative, and nothing about a constant
    assert mutual_information(fixed, -fixed, mask).min() > found.max()
    assert mutual_information(fixed, torch.ones_like(fixed), mask).tolist() == [0, 0]
    assert mutual_information(fixed, warped, torch.zeros_like(mask)).tolist() == [0, 0]


def test_ncc_inside_a_mask_of_one_value_is_zero() -> None:
    constant = torch.full((1, 1, 5, 6, 7), 1000.3)
    constant[..., 0] = 0
    other, mask = smooth_volume((5, 6, 7), 0), (constant > 0).float()
    assert ncc(constant, other, mask).item() == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_mean_length(shape: tuple[int, int, int]) -> None:
    vectors = fields(shape, 3.0)
    labels = (fields(shape, 4.0)[:, :1]).int()
    expected = mean_length_mm_reference(vectors.double(), SPACING, labels)
    found = mean_length_mm(vectors, SPACING, labels)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_label_counts(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 9, (2, 1, 1, 6, 7, 8), generator=generator).to(dtype)
    counts = label_counts(maps[0], maps[1], at_least=12)
    assert counts.shape == (3, 12)
    assert torch.equal(counts, label_counts_reference(maps[0], maps[1], 12))


def test_a_negative_label_is_named() -> None:
    labels = torch.zeros(1, 1, 2, 2, 2, dtype=torch.int32)
    with pytest.raises(ValueError, match="must not be negative, got -3"):
        label_counts(labels, labels - 3)


def test_nan_stays_visible() -> None:
    vectors = fields((7, 8, 9), 1.0)
    vectors[1, 0, 3, 4, 4] = math.nan
    volume, everywhere = vectors[:, :1], torch.ones(2, 1, 7, 8, 9)
    for measured in (
        jacobian_measures(vectors).sdlogj,
        mean_length_mm(vectors, SPACING, everywhere),
        ncc(volume, vectors[:, 1:2], everywhere),
    ):
        assert measured.isnan().tolist() == [False, True]
