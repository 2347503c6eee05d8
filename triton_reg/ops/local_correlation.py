"""Local normalised cross-correlation as a loss."""

import torch.nn.functional as F
from torch import Tensor

# variances of a window's sum below it count as it, and it is added to their product
_FLOOR = 1e-5


def local_correlation_reference(fixed: Tensor, warped: Tensor, window: int = 7) -> Tensor:
    """Squared correlation of each channel in a cube around each voxel, ``[B, C, D, H, W]``.

    ``cross² / (var_f var_w)`` of the sums over ``window³`` voxels, zeros outside; Avants et al.,
    "Symmetric diffeomorphic image registration with cross-correlation", 2008. 1 for a cube whose
    values are a linear function of the other's, and where both are flat.

    Args:
        fixed, warped: ``[B, C, D, H, W]``.
        window: width of the cube in voxels, odd.
    """
    count = window**3

    def total(product: Tensor) -> Tensor:
        return F.avg_pool3d(F.pad(product, [window // 2] * 6), window, 1) * count

    sum_fixed, sum_warped = total(fixed), total(warped)
    cross = total(fixed * warped) - sum_fixed * sum_warped / count
    var_fixed = (total(fixed * fixed) - sum_fixed * sum_fixed / count).clamp_min(_FLOOR)
    var_warped = (total(warped * warped) - sum_warped * sum_warped / count).clamp_min(_FLOOR)
    return ((cross * cross + _FLOOR) / (var_fixed * var_warped + _FLOOR)).clamp(-1, 1)
