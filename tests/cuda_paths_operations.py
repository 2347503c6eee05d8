"""Operations and their gradients on the GPU that is not there. Run by ``test_cuda_paths.py``."""

from collections.abc import Callable

import pytest
import torch
from helpers import smooth_volume
from pretend_cuda import gpu
from torch import Tensor

from triton_reg.ops.compose import compose, integrate
from triton_reg.ops.dense_match import Lattice, MatchSettings, dense_match
from triton_reg.ops.distance_transform import distance_transform
from triton_reg.ops.gaussian import smoothed
from triton_reg.ops.local_contrast import local_contrast
from triton_reg.ops.mind_ssc import mind_ssc
from triton_reg.ops.resize import resize
from triton_reg.ops.warp import warp

pytestmark = pytest.mark.usefixtures("gpu")
__all__ = ["gpu"]  # a fixture for all tests here

SHAPE = (6, 5, 8)


def fields(seed: int) -> Tensor:
    return torch.cat([smooth_volume(SHAPE, seed + row, 3) for row in range(2)]).to("cuda")


@pytest.mark.parametrize(
    "operation",
    [
        compose,
        warp,
        lambda one, other: warp(one, other, padding="border"),
        lambda one, other: warp(one, resize(other, (3, 4, 4)), fixed_shape=SHAPE),
        lambda one, other: resize(one, (7, 4, 9)) * resize(other, (7, 4, 9)),
    ],
    ids=["compose", "warp", "warp-border", "warp-coarse", "resize"],
)
def test_gradients(operation: Callable[[Tensor, Tensor], Tensor]) -> None:
    given = fields(1).requires_grad_(), fields(3).requires_grad_()
    operation(*given).square().sum().backward()
    assert all(one.grad is not None and one.grad.is_cuda for one in given)


@pytest.mark.parametrize(
    "operation",
    [
        lambda: distance_transform(fields(1)[:, :1] > 0.5, (1.0, 2.0, 1.0)),
        lambda: smoothed(fields(1), (0.5, 1.0, 0.7)),
        lambda: smoothed(fields(1), (5.0, 6.0, 7.0)),
        lambda: local_contrast(fields(1)[:, :1], (3, 5), 0.1),
        lambda: mind_ssc(fields(1)[:, :1], 1, 2),
        lambda: integrate(fields(1), 3),
    ],
    ids=["distances", "smoothed", "smoothed-widely", "contrast", "mind", "integrate"],
)
def test_operations(operation: Callable[[], Tensor]) -> None:
    found = operation()
    assert found.is_cuda
    assert found.shape[2:] == SHAPE


def test_the_gradients_of_a_dense_match() -> None:
    fixed = smooth_volume((3, 3, 3), 1, 4).to("cuda").requires_grad_()
    moving = smooth_volume(SHAPE, 2, 4).to("cuda").requires_grad_()
    weights = torch.ones(4, device="cuda", requires_grad=True)
    lattice = Lattice.corner_aligned(SHAPE, (3, 3, 3), 3, (1.0, 1.0, 1.0))
    match = dense_match(fixed, moving, weights, lattice, MatchSettings(), keep_probabilities=True)
    (match.mean.sum() + match.probabilities.square().sum()).backward()
    assert all(one.grad is not None and one.grad.is_cuda for one in (fixed, moving, weights))
