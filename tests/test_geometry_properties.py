"""What holds for every grid: any rotation, any spacing, any of the 48 orders of the axes."""

from itertools import permutations, product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cohort.data.geometry import Grid, ras_to_lps
from cohort.data.nifti import read_nifti, write_nifti

ALL_AXCODES = [
    "".join(letters)
    for axes in permutations(("LR", "PA", "IS"))
    for letters in product(*axes)
]  # fmt: skip
_QUICK = settings(deadline=None, max_examples=50, derandomize=True)
_SIZES = st.tuples(*[st.integers(2, 6)] * 3)
_COSINES = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Any proper grid: rotated, anisotropic, in any order of the axes, up to a metre away."""
    quaternion = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 4)))
    if np.linalg.norm(quaternion) < 0.1:
        quaternion = np.array([0, 0, 0, 1.0])
    axes = np.zeros((3, 3))
    for column, letter in enumerate(draw(st.sampled_from(ALL_AXCODES))):
        row, sign = _COSINES[letter]
        axes[row, column] = sign
    affine = np.eye(4)
    spacing_mm = draw(st.tuples(*[st.floats(0.1, 10)] * 3))
    affine[:3, :3] = Rotation.from_quat(quaternion).as_matrix() @ axes * spacing_mm
    affine[:3, 3] = draw(st.tuples(*[st.floats(-1e3, 1e3)] * 3))
    return Grid(draw(_SIZES), affine)


def voxels_of(grid: Grid) -> np.ndarray:
    """``[D, H, W, 3]``: every voxel's own coordinates."""
    return np.stack(np.indices(grid.shape), axis=-1)


def test_there_are_48_orders_of_the_axes():
    assert len(set(ALL_AXCODES)) == 48


@given(grids(), st.lists(st.tuples(*[st.floats(-500, 500)] * 3), min_size=1, max_size=5))
@_QUICK
def test_voxels_go_to_the_world_and_back(grid, points):
    points = np.array(points)
    world_mm = grid.voxel_to_world(points)
    # the offset is what float64 may round: 1e-9 of the largest number on the way
    largest = max(np.abs(points).max(), np.abs(world_mm).max() / min(grid.spacing_mm), 1)
    assert np.abs(grid.world_to_voxel(world_mm) - points).max() <= 1e-9 * largest
    np.testing.assert_array_equal(ras_to_lps(ras_to_lps(world_mm)), world_mm)
    assert grid.shear < 1e-9


@given(grids(), st.sampled_from(ALL_AXCODES))
@_QUICK
def test_another_order_of_the_axes_leaves_every_value_where_it_was(grid, axcodes):
    turned = grid.oriented(axcodes)
    values = np.arange(np.prod(grid.shape)).reshape(grid.shape)
    moved = grid.reorder(values, axcodes)
    assert moved.shape == turned.shape
    voxels = np.rint(grid.world_to_voxel(turned.voxel_to_world(voxels_of(turned)))).astype(int)
    np.testing.assert_array_equal(values[tuple(np.moveaxis(voxels, -1, 0))], moved)
    np.testing.assert_allclose(grid.oriented(axcodes).oriented(axcodes).affine, turned.affine)
    assert turned.distance(grid) < 1e-6 or turned.axcodes != grid.axcodes


@pytest.mark.parametrize("axcodes", ALL_AXCODES)
def test_all_48_orders_are_named_and_undone(axcodes):
    grid = Grid.axis_aligned((3, 4, 5), (1.0, 2.0, 3.0), (7.0, -8.0, 9.0))
    turned = grid.oriented(axcodes)
    assert turned.axcodes == axcodes
    assert turned.is_right_handed == (np.linalg.det(turned.affine) > 0)
    assert turned.oriented("RAS").distance(grid) < 1e-9
    values = np.random.default_rng(0).random(grid.shape)
    there = grid.reorder(values, axcodes)
    np.testing.assert_array_equal(turned.reorder(there, "RAS"), values)


@given(grids(), st.booleans())
@_QUICK
def test_a_written_file_has_the_same_values_at_the_same_places(grid, compressed):
    values = np.arange(np.prod(grid.shape), dtype=np.float32).reshape(grid.shape)
    with TemporaryDirectory() as folder:
        path = Path(folder) / ("x.nii.gz" if compressed else "x.nii")
        write_nifti(path, values, grid.affine)
        found = read_nifti(path)
    voxels = grid.world_to_voxel(found.grid.voxel_to_world(voxels_of(found.grid)))
    nearest = np.rint(voxels).astype(int)
    assert np.abs(voxels - nearest).max() < 5e-3  # affines are float32 in the file
    np.testing.assert_array_equal(values[tuple(np.moveaxis(nearest, -1, 0))], found.data)
    assert found.header["handedness"] == ("right" if grid.is_right_handed else "left")
    assert found.header["form"] == "sform"


@given(grids(), st.data())
@_QUICK
def test_a_crop_stays_where_it_was(grid, data):
    start = np.array([data.draw(st.integers(0, size - 1)) for size in grid.shape])
    sizes = zip(grid.shape, start, strict=True)
    stop = [data.draw(st.integers(int(first) + 1, size)) for size, first in sizes]
    crop = grid.cropped(start, stop)
    assert crop.shape == tuple(stop - start)
    np.testing.assert_allclose(
        crop.voxel_to_world(voxels_of(crop)), grid.voxel_to_world(voxels_of(crop) + start)
    )


@given(grids(), _SIZES)
@_QUICK
def test_resampling_keeps_the_corners(grid, shape):
    again = grid.resampled(shape)
    assert again.shape == shape
    np.testing.assert_allclose(
        again.voxel_to_world(again.corners()), grid.voxel_to_world(grid.corners())
    )
    np.testing.assert_allclose(again.center_mm, grid.center_mm, atol=1e-9)


@pytest.mark.parametrize(
    ("angle", "oblique"), [(0.0, False), (0.01, False), (0.2, True), (45.0, True)]
)
def test_a_tilt_beyond_rounding_is_oblique(angle, oblique):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("z", angle, degrees=True).as_matrix() * (1, 2, 3)
    assert Grid((2, 2, 2), affine).is_oblique == oblique


def test_boxes_and_axes_that_are_none_are_refused():
    grid = Grid.axis_aligned((3, 4, 5), (1.0, 1.0, 1.0), (0, 0, 0))
    with pytest.raises(ValueError, match=r"box inside of \(3, 4, 5\).*\[0, 0, 0\] to \[3, 4, 6\]"):
        grid.cropped((0, 0, 0), (3, 4, 6))
    with pytest.raises(ValueError, match=r"one letter each of LR, PA, IS, got 'LRS'"):
        grid.oriented("LRS")
    with pytest.raises(ValueError, match=r"values of shape \(3, 4, 5\), got \(5, 4, 3\)"):
        grid.reorder(np.zeros((5, 4, 3)), "LPS")
