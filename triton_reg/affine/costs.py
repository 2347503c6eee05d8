"""How unlike two sets of values are: one number per subject, low is good.

Values are scaled from 0 to 1; weights are 0 where a point is not to be counted.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Cost = Literal["ncc", "lncc", "mse", "mi"]
Shape = tuple[int, int, int]
_EPSILON = 1e-6
_BINS = 24
_FLAT = 0.02**2  # variance of values that are taken for flat
_WINDOW = 3  # voxels of a level across the window of local NCC


def ncc_cost(fixed: Tensor, warped: Tensor, weights: Tensor, shape: Shape | None = None) -> Tensor:
    """1 - normalised cross-correlation of ``[B, P]`` values: ``[B]`` from 0 to 2."""
    del shape
    total = weights.sum(dim=1, keepdim=True).clamp(min=_EPSILON)
    fixed = fixed - (weights * fixed).sum(dim=1, keepdim=True) / total
    warped = warped - (weights * warped).sum(dim=1, keepdim=True) / total
    both = (weights * fixed * warped).sum(dim=1)
    squares = (weights * fixed**2).sum(dim=1) * (weights * warped**2).sum(dim=1)
    return 1 - both / (squares + _EPSILON).sqrt()


def mse_cost(fixed: Tensor, warped: Tensor, weights: Tensor, shape: Shape | None = None) -> Tensor:
    """Mean squared difference of ``[B, P]`` values: ``[B]``."""
    del shape
    return (weights * (fixed - warped) ** 2).sum(dim=1) / weights.sum(dim=1).clamp(min=_EPSILON)


def mi_cost(fixed: Tensor, warped: Tensor, weights: Tensor, shape: Shape | None = None) -> Tensor:
    """Minus the mutual information in nats of ``[B, P]`` values: ``[B]``, at most 0.

    The joint histogram of 24 by 24 bins counts every point with Gaussian windows, half a bin in
    standard deviation, so that it has a gradient (Viola and Wells, 1997; Mattes et al., 2003, with
    other windows).
    """
    del shape
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=_EPSILON)
    windows = _parzen(fixed) * weights[:, :, None]
    joint = windows.transpose(1, 2) @ _parzen(warped)
    apart = joint.sum(dim=2, keepdim=True) * joint.sum(dim=1, keepdim=True)
    information = joint * ((joint + _EPSILON**2).log() - (apart + _EPSILON**2).log())
    return -information.sum(dim=(1, 2))


def lncc_cost(fixed: Tensor, warped: Tensor, weights: Tensor, shape: Shape | None = None) -> Tensor:
    """1 - mean squared local correlation, windows of 3 voxels: ``[B]`` from 0 to 1.

    Args:
        fixed, warped, weights: ``[B, P]``, the ``P = D H W`` voxels of a grid.
        shape: ``(D, H, W)`` of that grid.

    Raises:
        ValueError: without a shape.
    """
    if shape is None:
        raise ValueError("lncc_cost: needs the shape of the grid that the values lie on")
    terms = torch.stack([torch.ones_like(fixed), fixed, warped, fixed**2, warped**2,
                         fixed * warped], dim=1)  # fmt: skip
    summed = (terms * weights[:, None]).unflatten(2, shape)
    count, f, w, ff, ww, fw = F.avg_pool3d(summed, _WINDOW, stride=1, padding=_WINDOW // 2).unbind(
        1
    )
    count = count.clamp(min=_EPSILON)
    f, w = f / count, w / count
    fixed_variance = (ff / count - f * f).clamp(min=0)
    squared = (fw / count - f * w) ** 2
    squared = squared / (fixed_variance * (ww / count - w * w).clamp(min=0) + _EPSILON**1.5)
    # windows that are flat in the fixed volume say nothing; if they counted, a moving volume that
    # grows until nothing is flat would score best
    weights = weights * (fixed_variance / (fixed_variance + _FLAT)).flatten(1)
    return 1 - (squared.flatten(1) * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=_EPSILON)


COSTS: dict[Cost, Callable[[Tensor, Tensor, Tensor, Shape | None], Tensor]] = {
    "ncc": ncc_cost,
    "lncc": lncc_cost,
    "mse": mse_cost,
    "mi": mi_cost,
}


def _parzen(values: Tensor) -> Tensor:
    """How much of each value ``[B, P]`` each bin takes: ``[B, P, bins]``, 1 in all."""
    bins = torch.arange(_BINS, dtype=values.dtype, device=values.device)
    windows = torch.exp(-2 * (values[:, :, None] * (_BINS - 1) - bins) ** 2)
    return windows / windows.sum(dim=2, keepdim=True)
