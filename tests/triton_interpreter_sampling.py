"""The Triton kernels that gather against the plain-torch definitions, in Triton's interpreter.

Run by ``test_triton.py``, see ``triton_interpreter.py``.
"""

from functools import partial

import pytest
import torch
from torch import Tensor
from triton_oracle import (
    assert_as_good_as_float32,
    batch,
    cases,
    poisoned_memory,
    surrounded,
    vectors,
)

from triton_reg.ops import compose as compositions
from triton_reg.ops._triton import compose as composition
from triton_reg.ops._triton import warp as warping
from triton_reg.ops._triton.layout import Lines, channels_last
from triton_reg.ops.compose import compose_reference, integrate_reference
from triton_reg.ops.resize import Shape, resize_reference
from triton_reg.ops.warp import warp_reference

# lanes that a mask switches off still compute, on whatever they hold
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

__all__ = ["poisoned_memory"]  # a fixture for all tests here


@cases
def test_composition_and_integration_are_the_definitions(shape: Shape, pairs: int) -> None:
    first, second = vectors(shape, 2.5, pairs, seed=8), vectors(shape, 1.5, pairs, seed=9)
    found = torch.empty_like(first).flatten(2)
    composition.compose(surrounded(first.flatten(2)), surrounded(second.flatten(2)), shape, found)
    assert_as_good_as_float32(found, compose_reference, first, second)
    for steps in (0, 3):
        velocity = surrounded(second.flatten(2))
        found, _ = composition.integrate(velocity, shape, steps, torch.empty_like(velocity))
        assert_as_good_as_float32(found, lambda v, n=steps: integrate_reference(v, n), second)


def gradients(which: int, first: Tensor, second: Tensor, gradient: Tensor) -> Tensor:
    """Of the definition of a composition, with respect to the first or second."""
    return torch.func.vjp(compose_reference, first, second)[1](gradient)[which]


@cases
def test_gradients_of_a_composition_are_the_definitions(shape: Shape, pairs: int) -> None:
    given = [vectors(shape, size, pairs, seed) for size, seed in ((2.5, 8), (1.5, 9), (1e-4, 10))]
    found = compositions._compose_backward_cuda(*given)
    for which in range(2):
        assert_as_good_as_float32(found[which], partial(gradients, which), *given)
        assert found[which][0].abs().max() > 0
    alone = compositions._compose_backward_cuda(*(one[-1:].clone() for one in given))
    for one, whole in zip(alone, found, strict=True):
        assert torch.equal(one, whole[-1:])


def test_the_order_of_voxels_changes_no_gradient() -> None:
    """All lead to one voxel; from the other end they add up in the other order."""
    size = 12
    first = torch.zeros(1, 3, 1, 1, size)
    first[:, 2] = 5.5 - torch.arange(size)
    second, gradient = vectors((1, 1, size), 1.0, 1, 3), vectors((1, 1, size), 1.0, 1, 4)
    _, found = compositions._compose_backward_cuda(first, second, gradient)
    _, again = compositions._compose_backward_cuda(first, second, gradient.flip(-1))
    torch.testing.assert_close(found[..., 5], gradient.sum(-1) / 2)
    assert torch.equal(found, again)


@pytest.mark.parametrize("largest", [0.0, 1e-40, 1e30, torch.inf, torch.nan])
def test_gradients_of_any_size_are_taken(largest: float) -> None:
    still = torch.zeros(2, 3, 2, 3, 4)
    gradient = torch.zeros_like(still)
    gradient[0, 1, 1, 1, 1], gradient[1] = largest, 1
    of_first, of_second = compositions._compose_backward_cuda(still, still, gradient)
    assert torch.equal(of_second[1], gradient[1])
    if largest < torch.inf:
        torch.testing.assert_close(of_first, gradient)
        torch.testing.assert_close(of_second, gradient)
    else:
        assert of_second[0].isnan().all()


@cases
def test_features_are_warped_and_the_displacement_upsampled(shape: Shape, pairs: int) -> None:
    features, coarse = batch(shape, 9, pairs, seed=1), vectors((3, 2, 4), 1.0, pairs, seed=2)
    kept = surrounded(channels_last(features, torch.float32))
    lines, warped = Lines.of(kept, shape, 9), torch.empty_like(kept)
    displacement = torch.empty(pairs, 3, kept.shape[1])
    warping.upsample_and_warp(lines, coarse, displacement, warped)
    assert_as_good_as_float32(displacement, lambda c: 2 * resize_reference(c, shape), coarse)

    def back(lines: Tensor) -> Tensor:
        return lines[..., :9].transpose(1, 2).reshape(features.shape)

    fine = displacement.view(pairs, 3, *shape)
    assert_as_good_as_float32(
        back(warped), lambda f, d: warp_reference(f, d, shape), features, fine
    )
    assert (warped[..., 9:] == 0).all()
    again = torch.empty_like(kept)
    warping.warp_features(lines, displacement, again)
    assert torch.equal(again, warped)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_a_volume_is_warped_to_another_grid(padding: str) -> None:
    volume, shape, pairs = batch((5, 3, 6), 2, 3, seed=1), (4, 5, 3), 3
    displacement = vectors(shape, 2.5, pairs, seed=2)
    found = warping.warp(volume, displacement, shape, padding=padding)
    assert_as_good_as_float32(
        found,
        lambda v, d: warp_reference(v, d, shape, "linear", padding),  # type: ignore[arg-type]
        volume,
        displacement,
    )
    found = warping.warp(volume, displacement, shape, interpolation="nearest", padding=padding)
    expected = warp_reference(volume, displacement, shape, "nearest", padding)  # type: ignore[arg-type]
    assert torch.equal(found, expected)


def test_along_an_axis_of_one_voxel_nothing_moves() -> None:
    volume, displacement = batch((4, 1, 9), 2, 1, seed=1), vectors((4, 1, 9), 2.5, 1, seed=2)
    found = warping.warp(volume, displacement, (4, 1, 9), interpolation="nearest")
    assert torch.equal(found, warp_reference(volume, displacement, (4, 1, 9), "nearest"))
    found = warping.warp(volume, displacement, (4, 1, 9))
    assert_as_good_as_float32(
        found, lambda v, d: warp_reference(v, d, (4, 1, 9)), volume, displacement
    )


def test_halves_go_to_the_even_voxel() -> None:
    volume = torch.arange(6.0).view(1, 1, 1, 1, 6)
    displacement = torch.zeros(1, 3, 1, 1, 6)
    displacement[:, 2] = torch.tensor([0.5, 0.5, 0.5, 0.49, -0.51, 0.5])
    found = warping.warp(volume, displacement, (1, 1, 6), interpolation="nearest")
    assert found.flatten().tolist() == [0, 2, 2, 3, 3, 0]


def test_resampling_is_the_definition() -> None:
    field = batch((5, 3, 6), 2, 3, seed=1)
    for shape in ((9, 5, 4), (1, 3, 7)):
        found = warping.resize(field, shape)
        assert_as_good_as_float32(found, lambda f, s=shape: resize_reference(f, s), field)
