"""Displacements against analytic truths."""

import pytest
import torch
from helpers import smooth_volume

from triton_reg import Displacement
from triton_reg.displacement import jacobian_determinant
from triton_reg.ops.compose import compose, integrate
from triton_reg.ops.resize import resize, resize_nearest
from triton_reg.ops.warp import warp

SHAPES = [(5, 3, 7), (8, 8, 8), (9, 12, 10)]


def identity(shape: tuple[int, int, int]) -> torch.Tensor:
    axes = (torch.arange(size, dtype=torch.float64) for size in shape)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def affine_displacement(matrix: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.einsum("ij,bj...->bi...", matrix, identity(shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_whole_voxels_move_like_roll(shape: tuple[int, int, int]) -> None:
    volume = smooth_volume(shape, 0, channels=2)
    steps = (1, -1, 2)
    displacement = torch.tensor(steps, dtype=torch.float32).view(1, 3, 1, 1, 1).expand(1, 3, *shape)
    moved = warp(volume, displacement)
    rolled = torch.roll(volume, [-step for step in steps], dims=(2, 3, 4))
    inside = (slice(None), slice(None), slice(0, -1), slice(1, None), slice(0, -2))
    torch.testing.assert_close(moved[inside], rolled[inside], atol=1e-5, rtol=0)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_outside_is_what_padding_says(padding: str) -> None:
    volume = torch.ones(1, 1, 4, 4, 4)
    far = torch.full((1, 3, 4, 4, 4), 10.0)
    expected = 0.0 if padding == "zeros" else 1.0
    assert warp(volume, far, padding=padding).eq(expected).all()


def test_a_coarse_displacement_warps_like_its_full_field() -> None:
    volume = smooth_volume((9, 12, 10), 1)
    coarse = 0.8 * (smooth_volume((5, 4, 6), 2, channels=3) - 0.5)
    displacement = Displacement(coarse, (7, 8, 9), (9, 12, 10))
    by_hand = warp(volume, displacement.full())
    assert displacement.full().shape == (1, 3, 7, 8, 9)
    torch.testing.assert_close(displacement.warp(volume), by_hand, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_rounds_values_and_no_positions(dtype: torch.dtype) -> None:
    steps = torch.arange(200) % 2  # of 0 and 1, which half precision holds
    volume = steps.float().expand(1, 1, 2, 3, 200)
    displacement = torch.full((1, 3, 2, 3, 200), 0.0)
    displacement[:, 2] = 0.25
    expected = warp(volume, displacement)
    found = warp(volume.to(dtype), displacement)
    assert found.dtype == dtype
    assert torch.equal(found.float(), expected)


def test_shapes_may_be_lists() -> None:
    one = Displacement(torch.zeros(1, 3, 4, 4, 4), [4, 4, 4], torch.Size([4, 4, 4]))  # type: ignore[arg-type]
    assert not one.then(one).vectors.any()
    assert not one.inverse().displacement.vectors.any()


def test_no_displacement_between_two_sizes_keeps_corners_on_corners() -> None:
    volume = smooth_volume((9, 12, 10), 3)
    still = Displacement(torch.zeros(1, 3, 2, 2, 2), (5, 5, 5), (9, 12, 10))
    torch.testing.assert_close(still.warp(volume), resize(volume, (5, 5, 5)), atol=1e-5, rtol=0)


def test_composing_with_nothing_changes_nothing() -> None:
    displacement = smooth_volume((9, 12, 10), 4, channels=3)
    nothing = torch.zeros_like(displacement)
    torch.testing.assert_close(compose(nothing, displacement), displacement, atol=1e-5, rtol=0)
    torch.testing.assert_close(compose(displacement, nothing), displacement, atol=0, rtol=0)


def test_translations_add_up() -> None:
    first = torch.tensor([0.5, -1.0, 0.25]).view(1, 3, 1, 1, 1).expand(1, 3, 8, 8, 8)
    inside = (slice(None), slice(None), *(slice(2, -2),) * 3)
    both = Displacement(first, (8, 8, 8), (8, 8, 8)).then(
        Displacement(2 * first, (8, 8, 8), (8, 8, 8))
    )
    torch.testing.assert_close(both.vectors[inside], 3 * first[inside], atol=1e-5, rtol=0)


def test_integrating_a_linear_velocity_gives_its_exponential() -> None:
    shape = (17, 17, 17)
    matrix = torch.tensor([[0.0, 0.1, 0.0], [-0.1, 0.0, 0.05], [0.0, 0.0, -0.1]]).double()
    centre = torch.full((1, 3, 1, 1, 1), 8.0).double()
    points = identity(shape) - centre
    velocity = torch.einsum("ij,bj...->bi...", matrix, points)
    exact = torch.einsum("ij,bj...->bi...", torch.matrix_exp(matrix), points) - points
    inside = (slice(None), slice(None), *(slice(4, -4),) * 3)
    torch.testing.assert_close(integrate(velocity, 10)[inside], exact[inside], atol=5e-3, rtol=0)


def test_integrating_nothing_gives_nothing() -> None:
    assert integrate(torch.zeros(2, 3, 4, 5, 6)).eq(0).all()


def test_the_inverse_of_a_translation_leads_back() -> None:
    shift = torch.tensor([0.5, -1.25, 2.0]).view(1, 3, 1, 1, 1).expand(1, 3, 5, 3, 7)
    inverse = Displacement(shift, (5, 3, 7), (5, 3, 7)).inverse()
    torch.testing.assert_close(inverse.displacement.full(), -shift, atol=1e-6, rtol=0)
    assert inverse.residual_max.tolist() == pytest.approx([0.0], abs=1e-6)


def test_the_inverse_of_an_affine_field_is_that_of_its_matrix() -> None:
    """A stretch of 2.6 on one axis: the plain fixed-point iteration runs away there."""
    shape = (17, 15, 13)
    matrix = torch.tensor([[1.6, 0.1, 0.0], [-0.1, 0.2, 0.1], [0.0, 0.05, -0.3]]).double()
    points = identity(shape) - torch.tensor([8.0, 7.0, 6.0]).double().view(1, 3, 1, 1, 1)
    forward = Displacement(torch.einsum("ij,bj...->bi...", matrix, points), shape, shape)
    inverse = forward.inverse(iterations=60, tolerance=1e-4)
    back = torch.linalg.inv(torch.eye(3) + matrix) - torch.eye(3)
    exact = torch.einsum("ij,bj...->bi...", back, points)
    inside = (slice(None), slice(None), *(slice(3, -3),) * 3)
    found = inverse.displacement.full()
    torch.testing.assert_close(found[inside], exact[inside], atol=1e-3, rtol=0)
    assert inverse.residual_max.item() <= 1e-4


def test_the_residual_is_what_is_left_of_a_trip_back_and_forth() -> None:
    shape = (9, 12, 10)
    u = 3 * (smooth_volume(shape, 5, channels=3) - 0.5)
    inverse = Displacement(u, shape, shape).inverse(iterations=2)
    v = inverse.displacement.full()
    left = (warp(u, v, padding="border") + v).norm(dim=1)
    assert inverse.residual_max.item() == pytest.approx(left.max().item(), rel=1e-5)
    assert inverse.residual_mean.item() == pytest.approx(left.mean().item(), rel=1e-5)
    more = Displacement(u, shape, shape).inverse()
    assert more.residual_mean < inverse.residual_mean


def test_a_field_that_folds_everywhere_has_a_residual_that_says_so() -> None:
    shape = (9, 8, 7)
    noise = 3 * torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(0))
    inverse = Displacement(noise, shape, shape).inverse()
    assert inverse.residual_max.item() > 0.1
    assert inverse.residual_mean.item() < inverse.residual_max.item()


def test_a_batch_is_inverted_like_each_pair_alone() -> None:
    shape = (8, 9, 7)
    fields = [scale * (smooth_volume(shape, 6, channels=3) - 0.5) for scale in (0.1, 4.0)]
    together = Displacement(torch.cat(fields), shape, shape).inverse()
    for index, field in enumerate(fields):
        alone = Displacement(field, shape, shape).inverse()
        assert torch.equal(together.displacement.full()[index], alone.displacement.full()[0])
        assert together.residual_max[index] == alone.residual_max[0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_jacobian_of_an_affine_field_is_its_determinant(shape: tuple[int, int, int]) -> None:
    matrix = torch.tensor([[0.1, 0.2, 0.0], [-0.1, 0.3, 0.1], [0.05, 0.0, -0.2]]).double()
    determinant = jacobian_determinant(affine_displacement(matrix, shape))
    expected = torch.det(torch.eye(3) + matrix).expand_as(determinant)
    torch.testing.assert_close(determinant, expected)
    assert determinant.shape[1:] == tuple(size - 2 for size in shape)


def test_nearest_resizing_takes_the_published_voxels() -> None:
    labels = torch.arange(7, dtype=torch.int32).view(1, 1, 7, 1, 1)
    halved = resize_nearest(labels, (3, 1, 1))
    assert halved.flatten().tolist() == [0, 2, 4]
    assert halved.dtype == torch.int32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: warp(torch.zeros(4, 4, 4), torch.zeros(1, 3, 4, 4, 4)), r"volume must be \[B, C"),
        (lambda: warp(torch.zeros(2, 1, 4, 4, 4), torch.zeros(1, 3, 4, 4, 4)), "got 2 and 1"),
        (lambda: warp(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 2, 4, 4, 4)), r"got \[1, 2,"),
        (lambda: integrate(torch.zeros(1, 3, 4, 4, 4), -1), "got -1"),
        (lambda: compose(torch.zeros(1, 3, 4, 4, 4), torch.zeros(1, 3, 4, 4, 5)), "one shape"),
        (lambda: resize(torch.zeros(1, 1, 4, 4, 4), (4, 0, 4)), r"got \(4, 0, 4\)"),
        (lambda: jacobian_determinant(torch.zeros(1, 3, 2, 4, 4)), "at least 3"),
        (
            lambda: Displacement(torch.zeros(1, 3, 4, 4, 4), (4, 4, 4), (5, 5, 5)).warp(
                torch.zeros(1, 1, 4, 4, 4)
            ),
            r"moving shape \(5, 5, 5\), got \(4, 4, 4\)",
        ),
        (
            lambda: Displacement(torch.zeros(1, 3, 4, 4, 4), (4, 4, 4), (5, 5, 5)).then(
                Displacement(torch.zeros(1, 3, 4, 4, 4), (4, 4, 4), (4, 4, 4))
            ),
            "one shared grid",
        ),
        (
            lambda: Displacement(torch.zeros(1, 3, 4, 4, 4), (4, 4, 4), (5, 5, 5)).inverse(),
            r"fixed shape \(4, 4, 4\) and moving shape \(5, 5, 5\)",
        ),
    ],
)  # fmt: skip
def test_messages_say_what_was_got(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
