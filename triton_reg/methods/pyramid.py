"""Feature pyramids of any size: how many levels there are, and what halves evenly."""

import torch.nn.functional as F
from torch import Tensor

from triton_reg.method import Features
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
    missing = [-size % unit for size in field.shape[2:]]
    if not any(missing):
        return field
    return F.pad(field, [0, missing[2], 0, missing[1], 0, missing[0]], mode="replicate")


def cropped(field: Tensor, shape: Shape) -> Tensor:
    """Undo :func:`padded` on a field whose last three axes are the volume's."""
    depth, height, width = shape
    return field[..., :depth, :height, :width].contiguous()


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
