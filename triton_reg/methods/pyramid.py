"""Feature pyramids of any size: how many levels there are, and what halves evenly."""

from collections.abc import Callable

import torch
from torch import Tensor

from triton_reg.method import Features
from triton_reg.ops.blocks import continued
from triton_reg.ops.resize import Shape, grid_shape

SMALLEST_SIZE = 16  # voxels per axis: four levels down to two voxels


def level_count(shape: Shape, most: int) -> int:
    """Levels of a pyramid over a volume: at most ``most``, none below two voxels.

    Raises:
        ValueError: if a size is below 16.
    """
    if min(shape) < SMALLEST_SIZE:
        raise ValueError(
            f"VoxelOpt: each size must be at least {SMALLEST_SIZE} voxels on the grid that is "
            f"matched, which downsample=2 halves; got {shape}"
        )
    return min(most, min(shape).bit_length() - 1)


def halved(field: Tensor) -> Shape:
    """Half the sizes of the last three axes, rounded down."""
    depth, height, width = grid_shape(field)
    return depth // 2, height // 2, width // 2


def padded(field: Tensor, levels: int) -> Tensor:
    """Repeat the last voxels until every size can be halved ``levels - 1`` times."""
    unit = 2 ** (levels - 1)
    return continued(field, (unit, unit, unit))


def cropped(field: Tensor, shape: Shape) -> Tensor:
    """Undo :func:`padded` on a field whose last three axes are the volume's."""
    depth, height, width = shape
    return field[..., :depth, :height, :width].contiguous()


def masked_pyramid(
    features: Tensor, mask: Tensor, levels: int, resized: Callable[[Tensor, Shape], Tensor]
) -> list[Tensor]:
    """Pyramid of features with their mask as a last channel; coarse levels average inside it.

    Outside of the mask features go on as the coarser levels have them: they do not count there, but
    a linear sample across the edge must not meet a step.

    Args:
        features: ``[N, C, D, H, W]`` of the finest level.
        mask: ``[N, 1, D, H, W]`` from 0 to 1.
        levels: how many.
        resized: what makes a field coarser or finer.

    Returns:
        One ``[N, C + 1, d, h, w]`` a level, finest first, padded so that each size can be halved.

    Raises:
        ValueError: if a mask is empty.
    """
    if not mask.flatten(1).amax(1).gt(0).all():
        raise ValueError("VoxelOpt: a mask is empty; need voxels to compare, or no mask at all")
    sums = [padded(torch.cat([features * mask, mask], dim=1), levels)]
    for _ in range(levels - 1):
        sums.append(resized(sums[-1], halved(sums[-1])))
    outside = sums[-1][:, :-1].sum((2, 3, 4), keepdim=True)
    outside = outside / sums[-1][:, -1:].sum((2, 3, 4), keepdim=True)
    pyramid = []
    for level in reversed(sums):
        share = level[:, -1:]
        inside = level[:, :-1] / torch.where(share > 0, share, 1)
        inside = torch.where(share > 0, inside, outside)
        pyramid.append(torch.cat([inside, share], dim=1))
        outside = resized(inside, (2 * share.shape[2], 2 * share.shape[3], 2 * share.shape[4]))
    return pyramid[::-1]


def features_of(
    fixed: Features, moving: Features, pairs: Tensor, level: int
) -> tuple[Tensor, Tensor]:
    """Fixed and moving features ``[B, C, d, h, w]`` of pairs at one level, in at least float32."""
    chosen = []
    for features, rows in zip((fixed, moving), pairs.unbind(1), strict=True):
        one = features[level].index_select(0, rows)
        one = one.float() if one.element_size() < 4 else one
        chosen.append(padded(one, len(fixed)) if level == 0 else one)
    return chosen[0], chosen[1]
