"""Whether the displacements of three pairs close into a triangle."""

from typing import NamedTuple

import torch
from torch import Tensor

from triton_reg.displacement import Displacement

_INSIDE = 1 - 1e-4  # weight of voxels inside the grid in a linear sample, but for rounding


class TriangleErrors(NamedTuple):
    """``mean_mm`` and ``p95_mm``, the mean and the 95th percentile over voxels; each ``[B]``,
    float64."""

    mean_mm: Tensor
    p95_mm: Tensor


def triangle_errors_mm(
    first: Displacement,
    second: Displacement,
    direct: Displacement,
    spacing_mm: tuple[float, float, float],
    mask: Tensor,
) -> TriangleErrors:
    """Distances between where voxels of ``a`` arrive in ``c`` by way of ``b``, and directly.

    ``|u_ab(x) + u_bc(x + u_ab(x)) - u_ac(x)|``; Christensen and Johnson, "Invertibility and
    transitivity analysis for nonrigid image registration", J. Electronic Imaging 2003. Voxels that
    leave the grid of ``b`` cannot go on and do not count.

    Args:
        first: a -> b.
        second: b -> c, on the same grid.
        direct: a -> c, on the same grid.
        spacing_mm: of a voxel along each axis.
        mask: ``[B, 1, D, H, W]`` on the grid of ``a``; voxels above 0 count.

    Returns:
        NaN where no voxel of the mask stays on the grid.

    Raises:
        ValueError: if the three displacements do not share one grid.
    """
    shapes = {direct.fixed_shape, direct.moving_shape, first.fixed_shape}
    if len(shapes) > 1:
        raise ValueError(f"triangle_errors_mm: needs one shared grid, got {sorted(shapes)}")
    apart = first.then(second).full() - direct.full()
    step_mm = apart.new_tensor(spacing_mm).view(1, 3, 1, 1, 1)
    lengths = torch.linalg.vector_norm(apart * step_mm, dim=1).flatten(1).double()
    everywhere = torch.ones_like(mask, dtype=first.vectors.dtype)
    stays = first.warp(everywhere) > _INSIDE
    inside = ((mask > 0) & stays).flatten(1)
    rows = [_of_lengths(own[where]) for own, where in zip(lengths, inside, strict=True)]
    return TriangleErrors(*torch.stack(rows).unbind(1))


def _of_lengths(lengths: Tensor) -> Tensor:
    """Mean and 95th percentile ``[2]``; ``torch.quantile`` takes no more than 16 million values."""
    if not len(lengths):
        return lengths.new_full((2,), torch.nan)
    place = 0.95 * (len(lengths) - 1)
    ordered = lengths.sort()[0]
    below, above = ordered[int(place)], ordered[min(int(place) + 1, len(lengths) - 1)]
    return torch.stack([lengths.mean(), below + (above - below) * (place - int(place))])
