"""The compiled kernels that sample and describe volumes against their plain-torch definitions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kernel_oracle import EPSILON, SHAPES, assert_as_good_as_float32, batch, vectors
from torch import Tensor

from triton_reg.ops._cpu.compose import compose, integrate
from triton_reg.ops._cpu.mind_ssc import mind_ssc
from triton_reg.ops._cpu.resize import resize
from triton_reg.ops._cpu.warp import warp
from triton_reg.ops.compose import compose as composed
from triton_reg.ops.compose import compose_reference, integrate_reference
from triton_reg.ops.compose import integrate as integrated
from triton_reg.ops.mind_ssc import CHANNEL_OFFSETS, mind_ssc_reference
from triton_reg.ops.resize import Shape, resize_reference
from triton_reg.ops.warp import Padding, warp_reference
from triton_reg.ops.warp import warp as warped_by


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("longest", [0.4, 1.6, 5.0])
@pytest.mark.parametrize("pairs", [1, 3])
def test_composition_and_integration_are_the_definitions(
    shape: Shape, longest: float, pairs: int
) -> None:
    first, second = vectors(shape, longest, pairs, 1), vectors(shape, 5.0, pairs, 2)
    assert_as_good_as_float32(
        compose(first.numpy(), second.numpy()), compose_reference, first, second
    )
    for steps in (0, 1, 7):
        assert_as_good_as_float32(
            integrate(first.numpy(), steps),
            lambda velocity, steps=steps: integrate_reference(velocity, steps),
            first,
        )


@pytest.mark.parametrize("shape", [(1, 5, 6), (5, 1, 6), (5, 6, 1), (1, 4, 1)], ids=str)
@pytest.mark.parametrize("longest", [0.4, 5.0])
def test_no_sample_leaves_an_axis_of_one_voxel(shape: Shape, longest: float) -> None:
    first, second = vectors(shape, longest, 2, 1), vectors(shape, 5.0, 2, 2)
    assert_as_good_as_float32(
        compose(first.numpy(), second.numpy()), compose_reference, first, second
    )
    assert_as_good_as_float32(integrate(first.numpy()), integrate_reference, first)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("channels", [1, 2, 3, 14])
@pytest.mark.parametrize("size", [(6, 8, 7), (1, 3, 2), (16, 18, 20)], ids=str)
def test_warping_is_the_definition(size: Shape, channels: int, padding: Padding) -> None:
    volume = batch((16, 18, 20), channels, 2, seed=1)[..., : size[0], : size[1], : size[2]]
    volume = volume.contiguous()
    for fixed_shape in SHAPES:
        displacement = vectors(fixed_shape, 3.0, 2, seed=2)
        warped = warp(volume.numpy(), displacement.numpy(), padding=padding)

        def definition(v: Tensor, u: Tensor, shape: Shape = fixed_shape) -> Tensor:
            return warp_reference(v, u, shape, "linear", padding)

        # grid_sample rounds positions to a share of the volume; so does not the kernel
        assert_as_good_as_float32(warped, definition, volume, displacement)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_nearest_warping_takes_the_even_voxel_at_a_half(padding: Padding) -> None:
    labels = torch.randint(1, 9, (1, 2, 9, 12, 10), generator=torch.Generator().manual_seed(0))
    labels = labels.float()
    halves = (4 * vectors((9, 12, 10), 1.0, 1, seed=3)).round() / 2
    actual = warp(labels.numpy(), halves.numpy(), interpolation="nearest", padding=padding)
    exact = warp_reference(labels.double(), halves.double(), (9, 12, 10), "nearest", padding)
    # the definition passes through normalised coordinates, where a half may round to either side
    away = (halves % 1 == 0).all(1, keepdim=True).expand_as(labels)
    assert torch.equal(torch.from_numpy(actual).double()[away], exact[away])
    position = halves + torch.stack(torch.meshgrid(*map(torch.arange, (9, 12, 10)), indexing="ij"))
    i, j, k = position.round()[0].long()
    within = (i >= 0) & (i < 9) & (j >= 0) & (j < 12) & (k >= 0) & (k < 10)
    expected = labels[0][:, i.clamp(0, 8), j.clamp(0, 11), k.clamp(0, 9)]
    assert torch.equal(torch.from_numpy(actual)[0][:, within], expected[:, within])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [(4, 2, 3), (1, 1, 1), (11, 9, 16)], ids=str)
def test_resizing_is_the_definition(shape: Shape, size: Shape) -> None:
    field = batch(shape, 3, 2, seed=1)
    assert_as_good_as_float32(
        resize(field.numpy(), size), lambda one: resize_reference(one, size), field
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_mind_is_the_definition(shape: Shape, channels: int) -> None:
    volume, offsets = batch(shape, channels, 3, seed=1), np.array(CHANNEL_OFFSETS)
    for radius, dilation in ((0, 1), (1, 2), (2, 2)):
        assert_as_good_as_float32(
            mind_ssc(volume.numpy(), radius, dilation, offsets),
            lambda one, r=radius, d=dilation: mind_ssc_reference(one, r, d),
            volume,
        )


def test_mind_of_a_constant_volume_is_one() -> None:
    volume = np.full((1, 1, 5, 6, 7), 3, np.float32)
    assert (mind_ssc(volume, 1, 2, np.array(CHANNEL_OFFSETS)) == 1).all()


def assert_gradients_are(
    call: Callable[..., Tensor], definition: Callable[..., Tensor], *inputs: Tensor
) -> None:
    """Of a random sum: at most twice the definition's own error, with slack for both passes."""
    seed = torch.randn(definition(*inputs).shape, generator=torch.Generator().manual_seed(5))

    def gradients(function: Callable[..., Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
        given = [one.to(dtype, copy=True).requires_grad_() for one in inputs]
        return torch.autograd.grad(function(*given), given, seed.to(dtype))

    found, own = gradients(call, torch.float32), gradients(definition, torch.float32)
    for kernel, reference, exact in zip(
        found, own, gradients(definition, torch.float64), strict=True
    ):
        own_error = (reference.double() - exact).abs().max()
        error = (kernel.double() - exact).abs().max()
        assert error <= 2 * own_error + 32 * EPSILON * exact.abs().max()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("longest", [0.4, 5.0])
def test_gradients_of_composition_are_those_of_the_definition(shape: Shape, longest: float) -> None:
    pair = vectors(shape, longest, 2, 1), vectors(shape, 5.0, 2, 2)
    assert_gradients_are(composed, compose_reference, *pair)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_gradients_of_integration_are_those_of_the_definition(steps: int) -> None:
    assert_gradients_are(
        lambda v: integrated(v, steps),
        lambda v: integrate_reference(v, steps),
        vectors((6, 8, 7), 3.0, 2, 1),
    )


@pytest.mark.parametrize("size", [(6, 8, 7), (1, 3, 2)], ids=str)
@pytest.mark.parametrize(
    "kind",
    [{}, {"padding": "border"}, {"interpolation": "nearest"}, {"fixed_shape": (7, 5, 9)}],
    ids=str,
)
def test_gradients_of_warping_are_those_of_the_definition(size: Shape, kind: Any) -> None:
    volume, displacement = batch(size, 4, 2, 1), vectors((9, 12, 10), 3.0, 2, 2)
    options = {"fixed_shape": (9, 12, 10), **kind}
    assert_gradients_are(
        lambda v, u: warped_by(v, u, **kind),
        lambda v, u: warp_reference(v, u, **options),
        volume, displacement,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*The .grad attribute:UserWarning")
def test_sampling_passes_torchs_own_checks_with_gradients() -> None:
    volume, first = batch((3, 4, 5), 2, 2, 1), vectors((3, 4, 5), 2.0, 2, 2)
    second = vectors((3, 4, 5), 2.0, 2, 3)
    operators = torch.ops.triton_reg
    values = ([3, 4, 5], "linear", "zeros")
    for tensors in ((volume, first), (first, second)):
        for tensor in tensors:
            tensor.requires_grad_()
    torch.library.opcheck(operators.warp.default, (volume, first, *values))
    torch.library.opcheck(operators.compose.default, (first, second))
    torch.library.opcheck(operators.integrate.default, (first, 2))
    plain = volume.detach(), first.detach(), second.detach()
    torch.library.opcheck(operators.warp_backward.default, (plain[0], plain[1], plain[0]))
    torch.library.opcheck(operators.compose_backward.default, (plain[1], plain[2], plain[1]))


def test_gradients_of_a_batch_have_the_bits_of_each_pair_alone() -> None:
    volume, shift = batch((6, 8, 7), 4, 3, 1), vectors((6, 8, 7), 3.0, 3, 2)
    seed = batch((6, 8, 7), 4, 3, 3)

    def gradients(pairs: slice) -> tuple[Tensor, ...]:
        given = volume[pairs].clone().requires_grad_(), shift[pairs].clone().requires_grad_()
        return torch.autograd.grad(warped_by(*given), given, seed[pairs])

    together = gradients(slice(None))
    for pair in range(3):
        one = slice(pair, pair + 1)
        for whole, alone in zip(together, gradients(one), strict=True):
            assert torch.equal(whole[one], alone)
