"""Features on a coarser grid, for methods that compare them at few points."""

import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.resize import Shape, grid_shape, resize


def averaged(features: Tensor, shape: Shape, step: int) -> Tensor:
    """Features ``[N, C, *shape]`` averaged over about ``step`` voxels an axis, on so many fewer.

    Corner points stay on the corner voxels. Features on another grid than the volume's ``shape``
    are left as they are.
    """
    if grid_shape(features) != shape or step == 1:
        return features
    first, second, third = (max(2, size // step) for size in shape)
    width = 2 * (step // 2) + 1
    smooth = F.avg_pool3d(features, width, 1, step // 2, count_include_pad=False)
    return resize(smooth, (first, second, third))
