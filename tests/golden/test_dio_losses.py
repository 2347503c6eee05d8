"""DIO's losses and measures of displacements against recorded values of the published code."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from golden.vectors import Vectors
from torch import Tensor

from triton_reg.displacement import jacobian_determinant
from triton_reg.losses import local_correlation_loss, soft_dice
from triton_reg.metrics.overlap import dice
from triton_reg.ops.compose import integrate
from triton_reg.ops.gaussian import smoothed
from triton_reg.ops.warp import warp

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
STRUCTURES = (1, 2, 3)


@pytest.fixture(scope="module")
def vectors() -> Iterator[Vectors]:
    recorded = Vectors("dio_losses.npz")
    yield recorded
    for unused in ("lncc7_signed", "tv"):  # of published code that ours has no part for
        recorded.take(unused)
    recorded.close()


def half_extents(shape: tuple[int, ...]) -> Tensor:
    """Voxels in a recorded unit of length, ``[1, 3, 1, 1, 1]``."""
    return torch.tensor(shape).view(1, 3, 1, 1, 1) / 2


def in_voxels(vectors: Vectors, dtype: torch.dtype) -> Tensor:
    """The recorded displacement, x first in half extents, as ``[1, 3, D, H, W]`` in voxels."""
    recorded = vectors.tensor("disp", dtype).movedim(-1, 1).flip(1)
    return recorded * half_extents(recorded.shape[2:]).to(dtype)


def masks(vectors: Vectors, side: str, dtype: torch.dtype) -> Tensor:
    labels = torch.from_numpy(vectors.take(f"labels_{side}"))
    return torch.stack([labels == one for one in STRUCTURES])[None].to(dtype)


def channels_last_error(vectors: Vectors, key: str, found: Tensor) -> Tensor:
    """Of ``[1, 3, D, H, W]``, z first, to every second voxel of what was recorded x first."""
    recorded = torch.from_numpy(vectors.take(f"{key}_sub2")).double()
    return (found[0, :, ::2, ::2, ::2].flip(0).movedim(0, -1).double() - recorded).abs()


@DTYPES
def test_local_correlation(dtype: torch.dtype, vectors: Vectors) -> None:
    pred, target = (vectors.tensor(one, dtype) for one in ("pred", "target"))
    loss = local_correlation_loss(target, pred.requires_grad_())
    assert loss.item() - 1 == pytest.approx(vectors.take("lncc7_unsigned").item(), abs=1e-5)
    (gradient,) = torch.autograd.grad(loss, pred)
    error = vectors.error("lncc7_unsigned_grad", gradient)
    assert error.max() <= 1e-4 * gradient.abs().max()


@DTYPES
@pytest.mark.parametrize("order", [1, 2])
def test_dice_and_its_gradient(order: int, dtype: torch.dtype, vectors: Vectors) -> None:
    displacement = in_voxels(vectors, dtype).requires_grad_()
    fixed, moving = (masks(vectors, side, dtype) for side in ("fixed", "moving"))
    warped = warp(moving, displacement)
    found = soft_dice(fixed, warped, order)
    assert vectors.error(f"dice_train_order{order}", 1 - found).max() <= 1e-5
    (gradient,) = torch.autograd.grad((1 - found).mean(), displacement)
    gradient = gradient * half_extents(displacement.shape[2:]).to(dtype)
    error = channels_last_error(vectors, f"grad_disp_order{order}", gradient)
    assert error.quantile(0.99) <= 1e-4 * gradient.abs().max()
    recorded = vectors.take(f"dice_eval_order{order}")
    for row, expected in enumerate(recorded):
        pair = fixed[0, row].int(), (warped[0, row] >= 0.5).int()
        unlike = 1 - dice(*pair, torch.tensor([1])).item()
        assert unlike == pytest.approx(expected, abs=1e-5)


@DTYPES
def test_determinant_and_integration(dtype: torch.dtype, vectors: Vectors) -> None:
    displacement = in_voxels(vectors, dtype)
    determinant = jacobian_determinant(displacement)
    assert vectors.error("detJ", determinant).max() <= 1e-5
    integrated = integrate(displacement, 6) / half_extents(displacement.shape[2:]).to(dtype)
    error = channels_last_error(vectors, "scaling_squaring6", integrated)
    assert error.max() <= 2e-5


@DTYPES
def test_halving_after_a_gaussian(dtype: torch.dtype, vectors: Vectors) -> None:
    # a Gaussian of half the ratio of the sizes, then linear samples between two voxels
    halved = F.avg_pool3d(smoothed(vectors.tensor("pred", dtype), (1.0, 1.0, 1.0)), 2)
    assert vectors.error("gauss_downsampled", halved).max() <= 1e-5
