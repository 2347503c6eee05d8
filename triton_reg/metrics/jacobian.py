"""How smooth and how invertible a displacement is."""

from typing import NamedTuple

from torch import Tensor

from triton_reg.displacement import jacobian_determinant

_CROP = 2  # voxels left out on each side, where differences would reach over the border


class JacobianMeasures(NamedTuple):
    """``folding`` is the share of voxels with det J <= 0; ``sdlogj`` the sd of ln max(det J, 1e-3);
    each ``[B]``, float64."""

    folding: Tensor
    sdlogj: Tensor


def jacobian_measures(vectors: Tensor) -> JacobianMeasures:
    """Folding and roughness of displacements, over the volume cropped by 2 voxels.

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
    inner = slice(_CROP - 1, -(_CROP - 1))  # jacobian_determinant has taken off one voxel already
    determinant = jacobian_determinant(vectors)[:, inner, inner, inner].double().flatten(1)
    return JacobianMeasures(
        folding=(determinant <= 0).double().mean(1),
        sdlogj=determinant.clamp_min(1e-3).log().std(1, correction=0),
    )
