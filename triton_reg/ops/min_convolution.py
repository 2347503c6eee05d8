"""Let each displacement label profit from cheap ones beside it."""

import torch
import torch.nn.functional as F
from torch import Tensor

# half width of the border that pooled min-convolutions repeat
_PAD = 3


def pooled_min_convolution_reference(cost: Tensor, width: int) -> Tensor:
    """Approximate min-convolution over the labels of each control point.

    A minimum over 3 x 3 x 3 labels and two means over as many, the border repeated: an
    approximation of the lower envelope of parabolas whose gradients are cheap. Heinrich, MICCAI
    2019, section 2.2.

    Args:
        cost: ``[B, L, d, h, w]``.
        width: labels along each axis, ``L = width³``.
    """
    cubes = _by_point(cost, width)
    padded = F.pad(cubes, [_PAD] * 6, mode="replicate")
    lowest = -F.max_pool3d(-padded, 3, stride=1)
    return _by_label(F.avg_pool3d(F.avg_pool3d(lowest, 3, stride=1), 3, stride=1), cost)


def exact_min_convolution_reference(cost: Tensor, width: int, curvature: float) -> Tensor:
    """``min_k cost(k) + curvature |l - k|²`` over the labels of each control point.

    The lower envelope of parabolas, one axis after the other. Felzenszwalb and Huttenlocher,
    "Distance transforms of sampled functions", Theory of Computing 2012.

    Args:
        cost: ``[B, L, d, h, w]``.
        width: labels along each axis, ``L = width³``.
        curvature: price of the squared distance of two labels, in label steps.
    """
    cubes = _by_point(cost, width)
    steps = torch.arange(width, dtype=cost.dtype, device=cost.device)
    price = curvature * (steps[:, None] - steps).square()
    for axis in (2, 3, 4):
        lines = cubes.movedim(axis, -1)
        lowest = torch.stack([(lines + row).amin(-1) for row in price], dim=-1)
        cubes = lowest.movedim(-1, axis)
    return _by_label(cubes, cost)


def _by_point(cost: Tensor, width: int) -> Tensor:
    """``[B, L, d, h, w]`` -> ``[B d h w, 1, width, width, width]``."""
    return cost.flatten(2).transpose(1, 2).reshape(-1, 1, width, width, width)


def _by_label(cubes: Tensor, like: Tensor) -> Tensor:
    """Back to the shape of ``like``."""
    batch, labels, *points = like.shape
    return cubes.reshape(batch, -1, labels).transpose(1, 2).reshape(batch, labels, *points)
