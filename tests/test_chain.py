"""Chains of transforms, and images through them, against analytic truths and plain definitions."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from cohort.data.geometry import Grid
from cohort.errors import SubjectError
from cohort.studies import chain as chain_module
from cohort.studies.chain import Chain, Field
from cohort.studies.itk_composite import covering
from cohort.studies.resample import resample_labels, resample_volume
from triton_reg import Displacement

GRID = Grid.axis_aligned((9, 8, 10), (2.0, 3.0, 2.5), (4.0, -5.0, 6.0))
TURN = np.array([[0.0, -1, 0, 3], [1, 0, 0, -2], [0, 0, 1.25, 1], [0, 0, 0, 1]])
SHIFT = np.array([[1.0, 0, 0, 2], [0, 1, 0, 0.5], [0, 0, 1, -1], [0, 0, 0, 1]])


def field(seed: int, amplitude: float = 1.5) -> Field:
    random = np.random.default_rng(seed)
    return Field(amplitude * random.standard_normal((3, *GRID.shape)).astype(np.float32), GRID)


def still() -> Field:
    return Field(np.zeros((3, *GRID.shape), np.float32), GRID)


def points_inside(count: int = 50) -> np.ndarray:
    shape = np.array(GRID.shape)
    return GRID.voxel_to_world(np.random.default_rng(1).uniform(0, shape - 1, (count, 3)))


def through(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def test_the_steps_follow_one_another() -> None:
    """affine, then u at the working voxel, then affine: written out for single points."""
    moved = field(0)
    found = Chain("a", "b", (TURN, SHIFT), (moved,)).map_points(points_inside())
    for point, where in zip(points_inside(), found, strict=True):
        voxel = GRID.world_to_voxel(through(TURN, point))
        u = [map_coordinates(one, voxel[:, None], order=1, mode="nearest") for one in moved.vectors]
        expected = through(SHIFT, GRID.voxel_to_world(voxel + np.concatenate(u)))
        np.testing.assert_allclose(where, expected, atol=1e-5)


def test_outside_of_its_grid_a_field_goes_on_as_at_the_border() -> None:
    moved = field(2)
    corner = GRID.voxel_to_world(np.zeros(3))
    chain = Chain("a", "b", (np.eye(4), np.eye(4)), (moved,))
    away = chain.map_points(corner) - corner
    far = GRID.voxel_to_world(np.full(3, -40.0))
    np.testing.assert_allclose(chain.map_points(far) - far, away, atol=1e-5)
    assert np.linalg.norm(away) > 0.1


def test_voxels_in_and_out_are_those_of_the_grids() -> None:
    chain = Chain("a", "b", (TURN, SHIFT), (field(0),))
    voxels = GRID.world_to_voxel(points_inside()).T
    other = Grid((5, 5, 5), np.diag([-3.0, 2.0, 1.0, 1.0]))
    expected = other.world_to_voxel(chain.map_points(points_inside())).T
    np.testing.assert_allclose(chain.map(voxels, GRID, other), expected, atol=1e-9)


def test_one_chain_after_another_maps_as_both_in_turn() -> None:
    first = Chain("a", "b", (TURN, SHIFT), (field(0),))
    second = Chain("b", "c", (np.linalg.inv(SHIFT), TURN), (field(1),))
    both = first.then(second)
    assert (both.source, both.target) == ("a", "c")
    in_turn = second.map_points(first.map_points(points_inside()))
    np.testing.assert_allclose(both.map_points(points_inside()), in_turn, atol=1e-9)
    np.testing.assert_allclose(both.alignment, TURN @ TURN, atol=1e-12)


def test_determinants_multiply() -> None:
    """Two linear fields and the matrices around them."""
    voxels = np.stack(np.meshgrid(*map(np.arange, GRID.shape), indexing="ij"))
    stretch = Field(0.25 * voxels.astype(np.float32) * np.reshape([1, 0, 0], (3, 1, 1, 1)), GRID)
    chain = Chain("a", "b", (np.eye(4), SHIFT, TURN), (stretch, stretch))
    inside = GRID.world_to_voxel(points_inside()).T * 0.5
    np.testing.assert_allclose(chain.determinant(inside, GRID), 1.25**2 * 1.25, rtol=1e-5)


@pytest.mark.parametrize(
    "voxel",
    [(-6, 4, 5), (4, 19, 5), (4, -5, 30), (-9, -9, -9)],
    ids=["face", "far", "edge", "corner"],
)
def test_outside_of_a_grid_volume_changes_as_the_points_go(voxel: tuple[int, int, int]) -> None:
    """u goes on as at the border there, so that it changes along the border alone."""
    chain = Chain("a", "b", (np.eye(4), np.eye(4)), (field(4, 0.4),))
    here = np.array(voxel, dtype=float)[:, None]
    moved = [
        chain.map(here + step, GRID, GRID) - chain.map(here - step, GRID, GRID)
        for step in np.eye(3)[:, :, None]
    ]
    expected = np.linalg.det(np.concatenate(moved, axis=1) / 2)
    np.testing.assert_allclose(chain.determinant(here, GRID), expected, rtol=1e-4)


def test_a_covered_chain_is_the_same_chain_with_nothing_outside() -> None:
    chain = Chain("a", "b", (TURN, SHIFT, TURN), (field(0), field(1)))
    grid = Grid.axis_aligned((12, 12, 12), (4.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    covered = covering(chain, grid)
    corners = grid.corners().T.astype(float)
    np.testing.assert_allclose(covered.map(corners, grid), chain.map(corners, grid), atol=1e-6)
    where = corners
    for matrix, before, one in zip(covered.matrices, (grid, None), covered.fields, strict=False):
        start = where if before is None else before.voxel_to_world(where.T).T
        voxels = one.grid.world_to_voxel(through(matrix, start.T))
        assert (voxels >= -0.5).all()
        assert (voxels <= np.array(one.grid.shape) - 0.5).all()
        where = one.grid.voxel_to_world(one.moved(voxels.T).T).T


def test_resampling_on_the_working_grid_is_a_warp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_module, "_SLAB_VOXELS", 200)  # several slabs
    moved, random = field(3, 0.8), np.random.default_rng(0)
    volume = random.random(GRID.shape).astype(np.float32)
    chain = Chain("a", "b", (np.eye(4), np.eye(4)), (moved,))
    ours = resample_volume(volume, GRID, chain, GRID)
    displacement = Displacement(torch.from_numpy(moved.vectors)[None], GRID.shape, GRID.shape)
    warped = displacement.warp(torch.from_numpy(volume)[None, None], padding="border")[0, 0]
    voxels = np.stack(np.meshgrid(*map(np.arange, GRID.shape), indexing="ij")) + moved.vectors
    last = np.reshape(GRID.shape, (3, 1, 1, 1)) - 1
    inside = ((voxels >= 0) & (voxels <= last)).all(axis=0)
    np.testing.assert_allclose(ours[inside], warped.numpy()[inside], atol=1e-5)
    beyond = ((voxels < -0.51) | (voxels > last + 0.51)).any(axis=0)
    assert beyond.any()
    assert (ours[beyond] == volume.min()).all()


def per_structure(labels: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Definition of linear labels: interpolate each structure, take the largest."""
    values = np.unique(labels)
    shares = [
        map_coordinates((labels == one).astype(float), positions, order=1, mode="nearest")
        for one in values
    ]
    ranked = np.sort(shares, axis=0)
    return np.where(ranked[-1] - ranked[-2] < 1e-9, -1, values[np.argmax(shares, axis=0)])


@pytest.mark.parametrize("structures", [2, 40])
def test_linear_labels_are_the_largest_structure(structures: int) -> None:
    random = np.random.default_rng(0)
    labels = (3 * random.integers(0, structures, GRID.shape)).astype(np.int16)
    onto = Grid.axis_aligned((14, 13, 12), (1.0, 1.1, 1.2), GRID.center_mm)
    chain = Chain("a", "b", (np.eye(4), np.eye(4)), (field(4, 0.3),))
    found = resample_labels(labels, GRID, chain, onto, "linear")
    voxels = np.stack(np.meshgrid(*map(np.arange, onto.shape), indexing="ij")).reshape(3, -1)
    expected = per_structure(labels, chain.map(voxels, onto, GRID)).reshape(onto.shape)
    assert found.dtype == np.int16
    assert np.array_equal(found[expected >= 0], expected[expected >= 0])
    assert (expected >= 0).mean() > 0.9


def test_linear_labels_halfway_take_the_smaller() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[:2], labels[2:] = 7, 5
    grid = Grid((4, 4, 4), np.eye(4))
    half = np.eye(4)
    half[0, 3] = 0.5
    found = resample_labels(labels, grid, Chain("a", "b", (half,), ()), grid, "linear")
    assert found[:, 1, 1].tolist() == [7, 5, 5, 0]


def test_an_image_of_elsewhere_is_refused() -> None:
    grid = Grid.axis_aligned((4, 4, 4), (1, 1, 1), (900.0, 0, 0))
    chain = Chain("sub-a", "sub-b", (np.eye(4), np.eye(4)), (still(),))
    values = np.arange(64, dtype=np.float32).reshape(4, 4, 4)
    with pytest.raises(SubjectError, match=r"none of it on sub-a; need an image of sub-b in its"):
        resample_volume(values, grid, chain, GRID)


def test_messages_say_what_was_got() -> None:
    with pytest.raises(ValueError, match="1 fields need 2 matrices around them, got 1"):
        Chain("a", "b", (TURN,), (still(),))
    straight = Chain("a", "b", (TURN,), ())
    with pytest.raises(ValueError, match="ends in b, the second starts in a"):
        straight.then(straight)


def test_labels_half_a_voxel_away_lose_no_plane() -> None:
    """Of positions like 4.4999997 and 5.5000003 the one would be rounded down, the other up."""
    single = np.diag(np.float32([3.3, 3.3, 3.3, 1])).astype(np.float64)
    single[:3, 3] = np.float32([-77.55, -87.45, -77.55])  # as headers hold them
    theirs = Grid((48, 4, 4), single)
    ours = Grid.axis_aligned(theirs.shape, (3.3, 3.3, 3.3), theirs.center_mm + 1.65)
    planes = np.broadcast_to(np.arange(1, 49)[:, None, None], theirs.shape).astype(np.uint16)
    straight = Chain("a", "b", (np.eye(4),), ())
    found = resample_labels(planes, theirs, straight, ours, "nearest")[:-1, 0, 0]
    np.testing.assert_array_equal(found, np.arange(2, 49))
