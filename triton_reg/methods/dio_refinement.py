"""What one level of DIO leaves to the next: vectors, and what its optimiser remembers."""

import math

from torch import Tensor

from triton_reg.methods.dio_settings import Units
from triton_reg.methods.level_grids import LevelGrid, between
from triton_reg.ops.advance import Moments


def refined(
    vectors: Tensor, moments: Moments, coarse: LevelGrid, fine: LevelGrid, units: Units
) -> tuple[Tensor, Moments]:
    """Vectors and moments ``[B, 3, ...]`` of one level on the next, vectors in its own voxels.

    A voxel's part in the mean over a finer level is smaller, and so is what a voxel's length
    changes there: moments are brought to the size of its gradients. As large as they were, which is
    what is published, they would keep its steps short until they are forgotten, longer than a level
    lasts.

    Args:
        vectors: in voxels of the coarser level.
        moments: of its optimiser.
        coarse, fine: the levels.
        units: whose steps they are, see :class:`triton_reg.methods.dio_settings.DescentSettings`.

    Returns:
        Vectors in voxels of the finer level, and moments as many steps old.
    """
    ratio = coarse.factor // fine.factor
    first, second = (between(one, coarse, fine) for one in moments[:2])
    if units == "voxel":
        share = math.prod(coarse.shape) / math.prod(fine.shape) / ratio
        first, second = first * share, second * share**2
    return between(vectors, coarse, fine) * ratio, Moments(first, second, moments.steps)
