"""Measures of fields and labels whose answers are known without a computer."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg.metrics.endpoint import endpoint_error_mm
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.overlap import dice, overlap_measures
from triton_reg.metrics.similarity import ncc

SHAPE = (7, 9, 8)


def labels(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32).view(1, 1, 1, 1, -1)


def along(axis: int, values: Callable[[Tensor], Tensor]) -> Tensor:
    """``u`` with one component, a function of its own axis: ``[1, 3, *SHAPE]``."""
    vectors = torch.zeros(1, 3, *SHAPE, dtype=torch.float64)
    steps = values(torch.arange(SHAPE[axis], dtype=torch.float64))
    vectors[0, axis] = steps.view([-1 if other == axis else 1 for other in range(3)])
    return vectors


@pytest.mark.parametrize(
    ("fixed", "moving", "expected"),
    [
        ((1, 1, 2, 0), (1, 1, 2, 0), [1, 1]),
        ((1, 1, 2, 0), (1, 0, 2, 2), [2 / 3, 2 / 3]),
        ((1, 1, 2, 2), (2, 2, 1, 1), [0, 0]),
        ((1, 1, 0, 0), (1, 1, 2, 0), [1, math.nan]),
        ((0, 0, 0, 0), (1, 1, 2, 0), [math.nan, math.nan]),
    ],
    ids=["equal", "overlapping", "apart", "absent from one", "absent from both"],
)
def test_dice_of_known_overlaps(fixed, moving, expected) -> None:
    scores = dice(labels(*fixed), labels(*moving), torch.tensor([1, 2]))
    np.testing.assert_allclose(scores, expected)
    assert scores.dtype == torch.float64


def test_dice_scores_the_structures_asked_for_in_their_order() -> None:
    scores = dice(labels(7, 7, 3, 65535), labels(7, 3, 3, 65535), torch.tensor([65535, 3, 9]))
    np.testing.assert_allclose(scores, [1, 2 / 3, math.nan])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_axis_folds_everywhere(axis: int) -> None:
    assert jacobian_measures(along(axis, lambda x: -2 * x)).folding.tolist() == [1]


def test_folding_is_the_share_of_folded_voxels() -> None:
    # x + u(x) turns back at voxel 4: det J is 1, 1, 0, -1
    turning = along(2, lambda x: torch.where(x > 4, 2 * (4 - x), 0.0))
    assert jacobian_measures(turning).folding.tolist() == [0.5]


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3])
def test_an_even_scaling_is_smooth_and_does_not_fold(factor: float) -> None:
    vectors = torch.stack([along(axis, lambda x: (factor - 1) * x) for axis in range(3)]).sum(0)
    folding, sdlogj = jacobian_measures(vectors)
    assert folding.item() == 0
    assert sdlogj.item() == pytest.approx(0, abs=1e-12)


def test_sdlogj_of_a_known_uneven_scaling() -> None:
    vectors = along(1, lambda x: 0.1 * x**2 / 2)  # det J is 1 + 0.1 x, also by differences
    expected = np.log(1 + 0.1 * np.arange(2, SHAPE[1] - 2)).std()
    assert jacobian_measures(vectors).sdlogj.item() == pytest.approx(expected)


def test_sdlogj_of_folded_voxels_is_finite() -> None:
    turning = along(2, lambda x: torch.where(x > 4, 2 * (4 - x), 0.0))
    logs = np.log([1, 1, 1e-3, 1e-3])
    assert jacobian_measures(turning).sdlogj.item() == pytest.approx(logs.std())


def test_ncc_of_equal_opposite_and_constant_volumes() -> None:
    volume = smooth_volume(SHAPE, 0)
    everywhere = torch.ones_like(volume)
    for other, expected in (
        (volume, 1),
        (5 * volume - 3, 1),
        (-volume, -1),
        (torch.full_like(volume, 4), 0),
    ):
        assert ncc(volume, other, everywhere).item() == pytest.approx(expected, abs=1e-6)


def test_ncc_counts_the_mask_alone() -> None:
    volume = smooth_volume(SHAPE, 0)
    mask = torch.zeros_like(volume)
    mask[..., :4] = 1
    spoiled = torch.where(mask > 0, volume, torch.rand_like(volume) * 100)
    assert ncc(volume, spoiled, mask).item() == pytest.approx(1)
    assert ncc(volume, spoiled, torch.zeros_like(mask)).item() == 0


def test_the_endpoint_error_of_a_translation_is_its_length_in_mm() -> None:
    moved = torch.tensor([1.0, -2.0, 2.0]).view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
    everywhere = torch.ones(1, 1, *SHAPE)
    error = endpoint_error_mm(moved, torch.zeros_like(moved), (2.0, 3.0, 0.5), everywhere)
    assert error.item() == pytest.approx(math.sqrt(2**2 + 6**2 + 1**2))
    assert endpoint_error_mm(moved, moved, (2.0, 3.0, 0.5), everywhere).item() == 0


def test_the_endpoint_error_counts_the_mask_alone() -> None:
    vectors = torch.zeros(1, 3, *SHAPE)
    vectors[..., 3:] = 10
    mask = torch.zeros(1, 1, *SHAPE)
    mask[..., :3] = 5  # any label counts
    still = torch.zeros_like(vectors)
    assert endpoint_error_mm(vectors, still, (1.0, 1.0, 1.0), mask).item() == 0
    assert endpoint_error_mm(vectors, still, (1.0, 1.0, 1.0), 0 * mask).isnan().item()


def test_a_batch_measures_each_pair_for_itself() -> None:
    vectors = torch.cat([3 * smooth_volume(SHAPE, seed, channels=3) for seed in range(3)])
    volumes = torch.cat([smooth_volume(SHAPE, seed) for seed in range(3)])
    masks = (volumes > 0.4).float()
    measures = {
        "folding": lambda b: jacobian_measures(vectors[b]).folding,
        "sdlogj": lambda b: jacobian_measures(vectors[b]).sdlogj,
        "ncc": lambda b: ncc(volumes[b], volumes.flip(2)[b], masks[b]),
        "epe": lambda b: endpoint_error_mm(vectors[b], vectors.flip(2)[b], (1, 2, 3), masks[b]),
    }
    for name, measure in measures.items():
        alone = torch.cat([measure(slice(one, one + 1)) for one in range(3)])
        # sums of other lengths add in another order
        torch.testing.assert_close(measure(slice(None)), alone, rtol=1e-12, atol=0, msg=name)


VOLUME, FIELD = torch.zeros(1, 1, 5, 6, 7), torch.zeros(1, 3, 5, 6, 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: dice(labels(1, 2), labels(1, 2, 3), torch.tensor([1])),
            r"share one shape, got \[1, 1, 1, 1, 2\] and \[1, 1, 1, 1, 3\]",
        ),
        (lambda: jacobian_measures(FIELD[..., :4]), r"at least 5, got \[1, 3, 5, 6, 4\]"),
        (lambda: jacobian_measures(FIELD[0]), r"must be \[B, 3, D, H, W\].*got \[3, 5, 6, 7\]"),
        (
            lambda: ncc(VOLUME, VOLUME[..., :3], VOLUME),
            r"must share one shape, got \[1, 1, 5, 6, 7\], \[1, 1, 5, 6, 3\]",
        ),
        (
            lambda: endpoint_error_mm(FIELD, FIELD[..., :3], (1, 1, 1), VOLUME),
            r"must lie on one grid, got .*\[1, 3, 5, 6, 3\]",
        ),
        (
            lambda: endpoint_error_mm(FIELD, FIELD, (1, 1, 1), VOLUME[..., :3]),
            r"must lie on one grid, got .*\[1, 1, 5, 6, 3\]",
        ),
    ],
    ids=["dice", "jacobian size", "jacobian axes", "ncc", "endpoint truth", "endpoint mask"],
)
def test_a_wrong_shape_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_overlap_measures_and_what_absent_structures_score() -> None:
    # sizes in the fixed map, in the moving map, shared: one of each kind of structure
    counts = torch.tensor([[10, 4, 0, 0], [6, 0, 3, 0], [4, 0, 0, 0]])
    nan = math.nan
    expected = {
        "nan": ([0.5, nan, nan, nan], [1 / 3, nan, nan, nan], [0.75, nan, nan, nan]),
        "zero": ([0.5, 0, 0, 0], [1 / 3, 0, 0, 0], [0.75, 0, 0, 0]),
        "one": ([0.5, 0, 0, 1], [1 / 3, 0, 0, 1], [0.75, 0, 0, 1]),
    }
    for absent, scores in expected.items():
        found = overlap_measures(counts, absent)
        for ours, theirs in zip(found, scores, strict=True):
            assert ours.tolist() == pytest.approx(theirs, nan_ok=True)
    with pytest.raises(ValueError, match="absent must be nan, zero or one, got 'skip'"):
        overlap_measures(counts, "skip")  # type: ignore[arg-type]
