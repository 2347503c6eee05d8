"""Linear samples and slopes that can be differentiated as often as one likes."""

from itertools import product
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Derivative = Literal["symmetric", "linear"]


def positions_of(vectors: Tensor, placement: Tensor) -> Tensor:
    """Where fixed voxels lie in the moving volume.

    Args:
        vectors: ``w``, ``[B, 3, D, H, W]`` on the fixed grid.
        placement: ``[B, 3, 7]``; voxel ``x`` lies at ``P x + t + L w(x)`` for ``P`` in its first
            three columns, ``t`` in the fourth and ``L`` in the last three.

    Returns:
        ``[B, 3, D, H, W]`` in moving voxels.
    """
    axes = [torch.arange(size, device=vectors.device).to(vectors) for size in vectors.shape[2:]]
    voxels = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    base, offset, lead = placement[..., :3], placement[..., 3:4], placement[..., 4:]
    return (base @ voxels + offset + lead @ vectors.flatten(2)).view_as(vectors)


class Samples(NamedTuple):
    """What a volume says at positions: ``values [B, C, *n]`` and their ``slopes [B, C, 3, *n]``."""

    values: Tensor
    slopes: Tensor


def sampled_with_slopes(volume: Tensor, positions: Tensor, derivative: Derivative) -> Samples:
    """Linear samples, zeros outside, and their derivatives along the volume's axes.

    The ``"symmetric"`` derivative is the difference of the samples half a voxel to either side:
    continuous, and the central difference on a voxel. The ``"linear"`` one is that of the
    interpolation: it jumps on voxels, where the rounding of positions decides its side.

    Args:
        volume: ``[B, C, *m]``.
        positions: ``[B, 3, *n]`` in voxels of the volume.
        derivative: see above.
    """
    axes = [_taps(positions[:, axis].flatten(1), derivative) for axis in range(3)]
    flat = volume.flatten(2)
    values = flat.new_zeros(*flat.shape[:2], positions[0, 0].numel())
    along = [values, values, values]
    for cell in product(range(len(axes[0].values)), repeat=3):
        index = torch.zeros_like(axes[0].first)
        inside = torch.ones_like(index, dtype=torch.bool)
        for axis, tap, size in zip(axes, cell, volume.shape[2:], strict=True):
            here = axis.first + tap
            inside = inside & (here >= 0) & (here < size)
            index = index * size + here.clamp(0, size - 1)
        taken = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)) * inside[:, None]
        shares = [axis.values[tap] for axis, tap in zip(axes, cell, strict=True)]
        values = values + taken * (shares[0] * shares[1] * shares[2])[:, None]
        for axis in range(3):
            others = [share for other, share in enumerate(shares) if other != axis]
            slope = axes[axis].slopes[cell[axis]]
            along[axis] = along[axis] + taken * (slope * others[0] * others[1])[:, None]
    shape = positions.shape[2:]
    stacked = torch.stack(along, dim=2)
    return Samples(values.unflatten(2, shape), stacked.unflatten(3, shape))


class _Taps(NamedTuple):
    """Voxels along one axis, from ``first [B, N]`` on, and their weights."""

    first: Tensor
    values: list[Tensor]
    slopes: list[Tensor]


def _taps(position: Tensor, derivative: Derivative) -> _Taps:
    if derivative == "linear":
        first = position.detach().floor()
        share = position - first
        ones = torch.ones_like(share)
        return _Taps(first.long(), [1 - share, share], [-ones, ones])
    first = (position.detach() - 0.5).floor()
    share = position - 0.5 - first
    # not clamped: on a voxel both would pass on a gradient
    none = torch.zeros_like(share)
    lower = torch.where(share < 0.5, 0.5 - share, none)
    upper = torch.where(share < 0.5, none, share - 0.5)
    return _Taps(first.long(), [lower, 1 - lower - upper, upper], [share - 1, 1 - 2 * share, share])
