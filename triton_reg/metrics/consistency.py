"""Whether the displacements of both directions undo each other."""

import torch
from torch import Tensor

from triton_reg.displacement import Displacement
from triton_reg.metrics.endpoint import mean_length_mm

_INSIDE = 1 - 1e-4  # weight of voxels inside the grid in a linear sample, but for rounding


def inverse_consistency_error_mm(
    forward: Displacement,
    backward: Displacement,
    spacing_mm: tuple[float, float, float],
    mask: Tensor,
) -> Tensor:
    """Mean distance between fixed voxels and where they arrive there and back.

    ``|u(x) + v(x + u(x))|``; Christensen and Johnson, "Consistent image registration", IEEE TMI
    2001. Voxels that leave the moving grid cannot come back and do not count.

    Args:
        forward: fixed -> moving.
        backward: moving -> fixed, on the same grid.
        spacing_mm: of a voxel along each axis.
        mask: ``[B, 1, D, H, W]`` on the fixed grid; voxels above 0 count.

    Returns:
        ``[B]`` float64 in mm; NaN where no voxel of the mask stays on the grid.

    Raises:
        ValueError: if the two displacements do not share one grid.
    """
    everywhere = torch.ones_like(mask, dtype=forward.vectors.dtype)
    stays = forward.warp(everywhere) > _INSIDE
    return mean_length_mm(forward.then(backward).full(), spacing_mm, (mask > 0) & stays)
