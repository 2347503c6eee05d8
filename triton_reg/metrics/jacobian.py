"""How smooth and how invertible a displacement is."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from triton_reg.displacement import jacobian_determinant
from triton_reg.ops.operators import array, check_device, has_kernel

_CROP = 2  # voxels left out on each side, where differences would reach over the border
_LOWEST = 1e-3


class JacobianMeasures(NamedTuple):
    """``folding`` is the share of voxels with det J <= 0; ``sdlogj`` the sd of ln max(det J, 1e-3);
    each ``[B]``, float64."""

    folding: Tensor
    sdlogj: Tensor


def jacobian_measures(vectors: Tensor) -> JacobianMeasures:
    """Folding and roughness of displacements, over the volume cropped by 2 voxels.

    A kernel for float32 on CPUs and GPUs, plain torch for other types.

    Args:
        vectors: ``[B, 3, D, H, W]`` in voxels, each size at least 5.

    Raises:
        ValueError: if a size is below 5.
    """
    if vectors.dim() != 5 or min(vectors.shape[2:]) <= 2 * _CROP:
        raise ValueError(
            f"jacobian_measures: vectors must be [B, 3, D, H, W] with sizes of at least "
            f"{2 * _CROP + 1}, got {list(vectors.shape)}"
        )
    check_device("jacobian_measures", vectors)
    if not has_kernel(vectors):
        return jacobian_measures_reference(vectors)
    if vectors.is_cuda:
        return _jacobian_measures_cuda(vectors)
    from triton_reg.ops._cpu.jacobian import jacobian_sums

    sums = [jacobian_sums(one, _CROP, np.float32(_LOWEST)) for one in array(vectors)]
    depth, height, width = (size - 2 * _CROP for size in vectors.shape[2:])
    return _of_sums(torch.tensor(sums, dtype=torch.float64), depth * height * width)


def jacobian_measures_reference(vectors: Tensor) -> JacobianMeasures:
    """Plain torch definition of :func:`jacobian_measures`."""
    inner = slice(_CROP - 1, -(_CROP - 1))  # jacobian_determinant has taken off one voxel already
    determinant = jacobian_determinant(vectors)[:, inner, inner, inner].double().flatten(1)
    return JacobianMeasures(
        folding=(determinant <= 0).double().mean(1),
        sdlogj=determinant.clamp_min(_LOWEST).log().std(1, correction=0),
    )


def _jacobian_measures_cuda(vectors: Tensor) -> JacobianMeasures:
    from triton_reg.ops._triton.jacobian import jacobian_sums

    with torch.cuda.device_of(vectors):
        return _of_sums(*jacobian_sums(vectors, _CROP))


def _of_sums(sums: Tensor, count: int) -> JacobianMeasures:
    """From sums ``[B, 3 or more]`` over ``count`` voxels: how many fold, logarithms, and their
    squares."""
    folded, mean, square = (sums[:, :3] / count).unbind(1)
    return JacobianMeasures(folding=folded, sdlogj=(square - mean**2).clamp_min(0).sqrt())
