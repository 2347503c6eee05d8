"""Features at unit amplitude, so that settings suit them whatever their own is."""

from collections.abc import Sequence

import torch
from torch import Tensor


def at_unit_amplitude(
    fixed: Sequence[Tensor], moving: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Both sides of each level, divided by how much their features vary.

    That is the root of the variance over the voxels, a mean of channels and of both sides, pair by
    pair and level by level; features that vary nowhere stay as they are.

    Args:
        fixed, moving: features ``[B, C, *level]`` of each level; levels of the two may differ in
            size.

    Returns:
        Those of the fixed and of the moving side, of the same shapes; differentiable.
    """
    pairs = [_at_unit(*level) for level in zip(fixed, moving, strict=True)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _at_unit(fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    # one by one: the order of a sum may depend on how many there are
    both = zip(fixed.unbind(), moving.unbind(), strict=True)
    variances = torch.stack([(_variance(one) + _variance(other)) / 2 for one, other in both])
    scales = torch.where(variances > 0, variances, 1.0).rsqrt().view(-1, 1, 1, 1, 1)
    return fixed * scales, moving * scales


def _variance(features: Tensor) -> Tensor:
    """Over the voxels of ``[C, *n]``, the mean of its channels."""
    voxels = features.movedim(0, -1).flatten(0, -2)
    centred = voxels.norm().square() / voxels.numel() - voxels.mean(0).square().mean()
    return centred.clamp_min(0)
