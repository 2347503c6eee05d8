"""Surface distances: hand-made cases, their definition, and the package that defined them."""

import math

import numpy as np
import pytest
import torch
from helpers import shared_data, smooth_volume
from surface_package import MEASURES, measured_by_package, package
from torch import Tensor

from triton_reg.metrics.label_surfaces import label_surfaces, label_surfaces_reference
from triton_reg.metrics.surface import (
    SurfaceMeasures,
    surface_measures,
    surface_measures_reference,
)
from triton_reg.metrics.surface_areas import surface_areas
from triton_reg.ops.distance_transform import Spacing

SPACINGS = [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.5, 2.0, 3.0)]
SHAPE = (13, 17, 11)


def parcels(seed: int) -> Tensor:
    """Nine wavy structures that touch each other and the border; label 40 is single voxels."""
    values = (smooth_volume(SHAPE, seed)[0, 0] * 9).long().clamp(0, 9)
    values[::5, 3, 2 + seed] = 40
    return values


def box(*bounds: tuple[int, int]) -> Tensor:
    labels = torch.zeros(12, 12, 12, dtype=torch.int32)
    labels[tuple(slice(*one) for one in bounds)] = 3
    return labels


def measured(fixed: Tensor, warped: Tensor, spacing: Spacing = (1.0, 1.0, 1.0)) -> SurfaceMeasures:
    structures = torch.cat([fixed.flatten(), warped.flatten()]).unique()
    structures = structures[structures > 0]
    one, other = (label_surfaces(labels, structures) for labels in (fixed, warped))
    return surface_measures(one, other, spacing, tolerance_mm=1.0)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_areas_are_those_of_the_package(spacing: Spacing) -> None:
    tables = package("lookup_tables")
    expected = tables.create_table_neighbour_code_to_surface_area(spacing)
    np.testing.assert_allclose(surface_areas(spacing), expected, rtol=1e-12)


def test_areas_of_a_flat_face_and_of_a_cut_corner() -> None:
    areas = surface_areas((2.0, 3.0, 5.0))
    assert areas[[0, 255]].tolist() == [0, 0]
    assert areas[[0b11110000, 0b11001100, 0b10101010]].tolist() == [15, 10, 6]
    assert areas[1] == areas[254] == math.sqrt(15**2 + 10**2 + 6**2) / 8


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shift_is_its_length(axis: int) -> None:
    bounds = [(2, 6), (3, 8), (2, 7)]
    fixed = box(*bounds)
    bounds[axis] = (bounds[axis][0] + 3, bounds[axis][1] + 3)
    found = measured(fixed, box(*bounds), (1.5, 2.0, 0.5))
    assert found.hd_mm.item() == pytest.approx(3 * (1.5, 2.0, 0.5)[axis])
    assert found.to_fixed_mm.item() == pytest.approx(found.to_warped_mm.item())


def test_equal_maps_have_no_distance() -> None:
    found = measured(parcels(0), parcels(0))
    for values in found[:-1]:
        assert (values == 0).all()
    assert (found.surface_dice == 1).all()


def test_a_structure_that_either_map_lacks_is_nan() -> None:
    fixed, warped = box((2, 4), (2, 4), (2, 4)), torch.zeros(12, 12, 12, dtype=torch.int32)
    warped[5:7, 5:7, 5:7] = 9
    structures = torch.tensor([9, 3, 5])
    one, other = (label_surfaces(labels, structures) for labels in (fixed, warped))
    for measure in (surface_measures, surface_measures_reference):
        for values in measure(one, other, (1.0, 2.0, 1.0), 1.0):
            assert values.isnan().all()
    # a cube of 2 has 27 corners, and the one in its middle is not on its surface
    assert one.starts.tolist() == [0, 0, 26, 26]
    assert other.starts.tolist() == [0, 26, 26, 26]


def test_a_distance_equal_to_the_tolerance_is_within() -> None:
    structures = torch.tensor([3])
    one, other = (
        label_surfaces(box((2, 5), (2, 5), (begin, begin + 3)), structures) for begin in (2, 5)
    )
    spacing = (0.7, 0.7, 0.7)
    for measure in (surface_measures, surface_measures_reference):
        assert measure(one, other, spacing, 3 * 0.7).surface_dice.item() == pytest.approx(1)
        assert measure(one, other, spacing, 3 * 0.7 - 1e-3).surface_dice.item() < 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_corners_are_the_definition(dtype: torch.dtype) -> None:
    labels, structures = parcels(1).to(dtype), torch.tensor([7, 2, 40, 3, 99])
    found, expected = (
        make(labels, structures) for make in (label_surfaces, label_surfaces_reference)
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("spacing", [*SPACINGS, (0.3, 7.0, 1.1)])
def test_measures_are_the_definition(spacing: Spacing) -> None:
    structures = torch.tensor([40, *range(1, 10)])
    fixed, warped = (label_surfaces(parcels(seed), structures) for seed in (0, 1))
    found = surface_measures(fixed, warped, spacing, 2.0)
    expected = surface_measures_reference(fixed, warped, spacing, 2.0)
    for name, ours, theirs in zip(found._fields, found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6, equal_nan=True, msg=name)
    assert not found.hd95_mm.isnan().all()


@pytest.mark.parametrize("spacing", SPACINGS)
def test_measures_are_those_of_the_package(spacing: Spacing) -> None:
    fixed, warped = parcels(2), parcels(3)
    assert_as_the_package(fixed, warped, spacing)


@pytest.mark.parametrize(
    ("fixed", "warped"),
    [
        (box((2, 3), (2, 3), (2, 3)), box((9, 10), (3, 4), (11, 12))),
        (box((0, 12), (4, 5), (0, 12)), box((0, 12), (7, 8), (2, 12))),
        (box((0, 12), (0, 12), (0, 12)), box((0, 1), (0, 1), (0, 1))),
        (box((0, 2), (0, 12), (3, 5)), box((10, 12), (0, 3), (3, 5))),
    ],
    ids=["single voxels", "plates", "everything and a corner", "borders"],
)
def test_odd_shapes_are_those_of_the_package(fixed: Tensor, warped: Tensor) -> None:
    for spacing in SPACINGS:
        assert_as_the_package(fixed, warped, spacing)


@pytest.mark.slow
def test_real_brains_are_as_the_package_measures_them() -> None:
    with np.load(shared_data("ixi6_affine_2mm") / "ixi6_affine_2mm.npz") as arrays:
        maps = torch.from_numpy(arrays["labs"])
    pairs = [(one, other) for one in range(6) for other in range(6) if one != other]
    for one, other in pairs[:20]:
        assert_as_the_package(maps[one], maps[other], (2.0, 2.0, 2.0))


def assert_as_the_package(fixed: Tensor, warped: Tensor, spacing: Spacing) -> None:
    found = measured(fixed, warped, spacing)
    structures = torch.cat([fixed.flatten(), warped.flatten()]).unique()
    compared = 0
    for index, value in enumerate(structures[structures > 0].tolist()):
        one, other = (fixed == value).numpy(), (warped == value).numpy()
        ours = [getattr(found, name)[index].item() for name in MEASURES]
        if not (one.any() and other.any()):
            assert all(math.isnan(value) for value in ours)
            continue
        expected = measured_by_package(one, other, spacing, tolerance=1.0)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5, err_msg=f"label {value}")
        compared += 1
    assert compared > 0


SURFACES = label_surfaces(box((1, 3), (1, 3), (1, 3)), torch.tensor([3]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: label_surfaces(torch.ones(3, 3), torch.tensor([1])), r"float32 \[3, 3\]"),
        (lambda: label_surfaces(parcels(0) - 5, torch.tensor([1])), "negative, got -5"),
        (lambda: label_surfaces(parcels(0), torch.tensor([2, 2])), r"once, got \[2, 2\]"),
        (lambda: label_surfaces(parcels(0), torch.tensor([0])), r"above 0.*got \[0\]"),
        (
            lambda: surface_measures(
                SURFACES, SURFACES._replace(structures=torch.tensor([4])), (1, 1, 1), 1
            ),
            r"same structures in the same order, got \[3\] and \[4\]",
        ),
        (lambda: surface_measures(SURFACES, SURFACES, (1, -1, 1), 1), r"got \(1, -1, 1\)"),
        (lambda: surface_measures(SURFACES, SURFACES, (1, 1, 1), -1), "negative, got -1"),
    ],
    ids=["axes", "label", "twice", "background", "structures", "spacing", "tolerance"],
)
def test_bad_input_is_named(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
