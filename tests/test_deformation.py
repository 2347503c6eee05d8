"""Measures of displacements, against the definition and against what can be worked out by hand."""

import math

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg.metrics.deformation import (
    deformation_measures,
    deformation_measures_reference,
    inverted_volume,
)

SPACING = (2.0, 0.5, 3.0)
STILL = torch.zeros(1, 3, 9, 9, 9)


def positions(shape: tuple[int, int, int]) -> Tensor:
    axes = [torch.arange(size, dtype=torch.float32) for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


@pytest.mark.parametrize("shape", [(5, 5, 5), (7, 9, 8), (6, 17, 33)])
@pytest.mark.parametrize("is_folded", [False, True], ids=["smooth", "folded"])
def test_the_compiled_measures_are_the_definition(shape, is_folded) -> None:
    vectors = torch.cat([smooth_volume(shape, seed, channels=3) for seed in range(2)])
    if is_folded:
        noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
        vectors = 20 * vectors + noise
    found = deformation_measures(vectors, SPACING)
    expected = deformation_measures_reference(vectors.double(), SPACING)
    for name, ours, theirs in zip(found._fields, found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)
    assert (found.ndv.min() > 0) == is_folded


def test_a_translation_changes_no_volume_and_bends_nothing() -> None:
    vectors = torch.tensor([3.0, 0.0, 4.0]).view(1, 3, 1, 1, 1).expand(1, 3, 8, 7, 9).contiguous()
    found = deformation_measures(vectors, (1.0, 1.0, 1.0))
    for value in (found.sdlogj_l2r, found.logj_mean, found.logj_p95, found.ndv):
        assert value.item() == pytest.approx(0, abs=1e-6)
    assert found.bending_energy.item() == 0
    lengths = (found.displacement_p50_mm, found.displacement_p95_mm, found.displacement_max_mm)
    assert [one.item() for one in lengths] == pytest.approx([5, 5, 5])
    half_still = torch.cat([vectors[:, :, :4], torch.zeros_like(vectors[:, :, 4:])], dim=2)
    found = deformation_measures(half_still, (1.0, 1.0, 1.0))
    assert found.displacement_rms_mm.item() == pytest.approx(math.sqrt(25 / 2))


def test_a_scaling_multiplies_every_volume() -> None:
    found = deformation_measures(0.1 * positions((8, 7, 9)), SPACING)
    expected = 3 * math.log(1.1)
    for value in (found.logj_mean, found.logj_p05, found.logj_p50, found.logj_p95):
        assert value.item() == pytest.approx(expected, abs=1e-5)
    assert found.sdlogj_l2r.item() == pytest.approx(0, abs=1e-5)


def test_bending_is_in_one_over_square_millimetres() -> None:
    where = positions((8, 7, 9))[0]
    vectors = torch.zeros(1, 3, 8, 7, 9)
    vectors[0, 0] = 0.05 * where[0] ** 2 + 0.02 * where[1] * where[2]
    # in mm: u = 2 (0.05 (x/2)² + 0.02 (y/0.5)(z/3)): 0.05 along x, twice 2 * 0.02 / 1.5 across
    expected = 0.05**2 + 2 * (2 * 0.02 / 1.5) ** 2
    found = deformation_measures(vectors, SPACING).bending_energy.item()
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("step", "volume"),
    [
        ((1.0, 0, 0), 0.0),
        # one voxel that overtakes its neighbour by half a step: 8 corners of 1/6, halved twice
        ((1.5, 0, 0), 1 / 3),
        ((0, 2.0, 0), 2 / 3),
        ((0, 0, -2.0), 2 / 3),
    ],
)
def test_a_voxel_that_overtakes_its_neighbour_turns_space_inside_out(step, volume) -> None:
    vectors = STILL.clone()
    vectors[0, :, 4, 4, 4] = torch.tensor(step)
    cubes = 8**3
    assert inverted_volume(vectors).item() * cubes == pytest.approx(volume, abs=1e-6)
    assert deformation_measures(vectors, SPACING).ndv.item() * cubes == pytest.approx(volume)


def test_a_fold_between_voxels_is_seen_where_central_differences_see_none() -> None:
    vectors = STILL.clone()
    vectors[:, 0, 4] = 1.5  # a whole plane overtakes the next; two voxels apart nothing does
    found = deformation_measures(vectors, SPACING)
    assert found.ndv > 0
    assert found.logj_p05 > math.log(1e-3)


def test_a_small_field_is_refused_with_its_size() -> None:
    with pytest.raises(ValueError, match=r"at least 5, got \[5, 4, 6\]"):
        deformation_measures(torch.zeros(1, 3, 5, 4, 6), SPACING)
