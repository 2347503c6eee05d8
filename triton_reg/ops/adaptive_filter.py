"""A separable symmetric filter whose taps may differ from voxel to voxel."""

import torch
from torch import Tensor

from triton_reg.ops.checks import check_volumes

# one symmetric filter for each axis: [B or 1, R + 1, D or 1, H or 1, W or 1], centre tap first
Taps = tuple[Tensor, Tensor, Tensor]


def gaussian_taps(sigma: Tensor, tap_radius: int) -> Taps:
    """Normalised Gaussian taps of each voxel's own width, the same along all three axes.

    Args:
        sigma: ``[B, D, H, W]`` in voxels; 0 gives the identity.
        tap_radius: ``R``; taps run from ``-R`` to ``R``.

    Returns:
        Three times the same ``[B, R + 1, D, H, W]``.
    """
    precision = -0.5 / sigma.clamp_min(1e-3) ** 2
    taps = torch.stack([torch.exp(precision * step**2) for step in range(tap_radius + 1)], dim=1)
    taps = taps / (taps[:, :1] + 2 * taps[:, 1:].sum(1, keepdim=True))
    return taps, taps, taps


def constant_taps(side_taps: tuple[float, float, float], like: Tensor) -> Taps:
    """Three-tap filters ``(s, 1 - 2 s, s)`` that are the same at every voxel.

    Args:
        side_taps: ``s`` of each axis.
        like: a tensor with the wanted dtype and device.
    """
    first, second, third = (
        like.new_tensor([1 - 2 * side, side]).view(1, 2, 1, 1, 1) for side in side_taps
    )
    return first, second, third


def adaptive_filter(field: Tensor, taps: Taps, passes: int = 3) -> Tensor:
    """Filter along the three axes in turn, ``passes`` times.

    ``y(x) = Σ_j w_|j|(x) f(x + j e_a)`` for axis a = 0, 1, 2; the taps are those of the voxel that
    is written, the field is zero outside its grid, and nothing is renormalised at the borders.
    VoxelOpt (Zhang et al., 2025), equation 6.

    Args:
        field: ``[B, K, D, H, W]``; every channel is filtered alike.
        taps: see :func:`gaussian_taps`.
        passes: how often to run through the three axes.

    Returns:
        A new tensor of the field's shape.
    """
    check_volumes("adaptive_filter", field=field)
    return adaptive_filter_reference(field, taps, passes)


def adaptive_filter_reference(field: Tensor, taps: Taps, passes: int = 3) -> Tensor:
    """Plain torch definition of :func:`adaptive_filter`."""
    result = torch.empty_like(field)
    for index in range(field.shape[1]):  # channel by channel, so that one stays in the cache
        channel = field[:, index]
        for _ in range(passes):
            for axis, weights in enumerate(taps, start=1):
                filtered = weights[:, 0] * channel
                for step in range(1, weights.shape[1]):
                    filtered.addcmul_(weights[:, step], _neighbours(channel, axis, step))
                channel = filtered
        result[:, index] = channel
    return result


def _neighbours(channel: Tensor, axis: int, step: int) -> Tensor:
    """``channel(x - step) + channel(x + step)`` along one axis, zero outside."""
    total = torch.zeros_like(channel)
    size = channel.shape[axis]
    if step < size:
        total.narrow(axis, step, size - step).add_(channel.narrow(axis, 0, size - step))
        total.narrow(axis, 0, size - step).add_(channel.narrow(axis, step, size - step))
    return total
