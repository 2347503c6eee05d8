import numpy as np
import pytest

from cohort.data.geometry import Grid, parse_grid
from cohort.errors import UsageError

OBLIQUE = np.array([[1.9, 0.3, 0, -40], [-0.3, 2.1, 0.1, 7], [0, -0.1, 1.2, 12.5], [0, 0, 0, 1.0]])


def test_voxel_to_world_and_back_are_inverse_for_any_shape_of_points():
    grid = Grid((5, 3, 7), OBLIQUE)
    points = np.random.default_rng(0).uniform(-5, 5, (2, 4, 3))
    np.testing.assert_allclose(grid.world_to_voxel(grid.voxel_to_world(points)), points, atol=1e-12)
    np.testing.assert_allclose(grid.voxel_to_world([0, 0, 0]), OBLIQUE[:3, 3])


def test_an_axis_aligned_grid_has_the_spacing_and_centre_it_was_made_with():
    grid = Grid.axis_aligned((5, 4, 7), (2.0, 1.5, 3.0), (10.0, -20.0, 30.0))
    assert grid.spacing_mm == (2.0, 1.5, 3.0)
    np.testing.assert_allclose(grid.center_mm, (10, -20, 30))
    np.testing.assert_allclose(grid.voxel_to_world([2, 1.5, 3]), (10, -20, 30))
    np.testing.assert_allclose(grid.extent_mm(), (10, 6, 21))
    np.testing.assert_allclose(grid.centered_on((0, 0, 0)).center_mm, 0, atol=1e-12)


def test_json_keeps_every_bit():
    grid = Grid((5, 3, 7), OBLIQUE / 3 + np.diag([0, 0, 0, 2 / 3]))
    again = Grid.from_json(grid.to_json())
    assert again.shape == grid.shape
    np.testing.assert_array_equal(again.affine, grid.affine)


def test_a_grid_cannot_be_changed_from_outside():
    affine = np.eye(4)
    grid = Grid((2, 2, 2), affine)
    affine[0, 3] = 9
    assert grid.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] = 9


def test_distance_is_the_largest_shift_of_a_corner_in_voxels():
    grid = Grid.axis_aligned((5, 5, 5), (2.0, 2.0, 2.0), (0, 0, 0))
    assert grid.distance(grid.centered_on((0, 3.0, 0))) == pytest.approx(1.5)
    assert grid.distance(Grid((5, 5, 6), grid.affine)) == np.inf


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.eye(3), "4 x 4, got 3 x 3"),
        (np.full((4, 4), np.nan), "must be finite"),
        (np.diag([1.0, 1, 0, 1]), "has 0 along k"),
        (np.diag([0.0, 0, 0, 1]), "has 0 along i, j, k"),
        (
            np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
            "must be invertible",
        ),
        (np.diag([1.0, 1, 1, 2]), "last row"),
    ],
)
def test_an_affine_that_places_no_voxels_is_refused(affine, message):
    with pytest.raises(ValueError, match=message):
        Grid((2, 2, 2), affine)


def test_micrometre_voxels_are_no_singular_affine():
    assert Grid((2, 2, 2), np.diag([1e-4, 1e-4, 1e-4, 1])).spacing_mm == (1e-4, 1e-4, 1e-4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("96x112x96@2mm", ((96, 112, 96), (2.0, 2.0, 2.0))),
        ("96x112x96@2x2x2.5mm", ((96, 112, 96), (2.0, 2.0, 2.5))),
        (" 8x9x10@.5 ", ((8, 9, 10), (0.5, 0.5, 0.5))),
    ],
)
def test_a_grid_is_read_from_text(text, expected):
    assert parse_grid(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("96x112@2mm", "for example 96x112x96@2mm"),
        ("96x112x96", "for example 96x112x96@2mm"),
        ("96x112x96@2x2mm", "for example 96x112x96@2mm"),
        ("96x112x96@-2mm", "for example 96x112x96@2mm"),
        ("96x0x96@2mm", "empty axis"),
        ("96x96x96@0mm", "no spacing"),
        ("9999x9999x9999@1mm", "999700029999 voxels"),
    ],
)
def test_a_grid_that_cannot_be_read_says_what_a_grid_is(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_grid(text)
    assert caught.value.code == "E_GRID"
