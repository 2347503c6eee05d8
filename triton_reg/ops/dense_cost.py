"""How badly each of many displacements explains each control point."""

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.checks import check_volumes
from triton_reg.ops.lattice import Lattice


def dense_cost_reference(fixed: Tensor, moving: Tensor, lattice: Lattice) -> Tensor:
    """Squared feature difference of every control point and displacement label.

    ``cost(l, p) = Σ_c (fixed_c(p) - moving_c(p + l))²``, a sum over channels; moving is sampled
    linearly and continues as at its border. Low is good. Heinrich, "Closing the gap between deep
    and conventional image registration using probabilistic dense displacement networks", MICCAI
    2019, equation 1, as the released code has it.

    Args:
        fixed: features at the control points, ``[B, C, *lattice.points]``.
        moving: features ``[B, C, d, h, w]``.
        lattice: control points and labels in voxels of ``moving``.

    Returns:
        ``[B, L, *lattice.points]``.
    """
    planes = []
    for plane in range(lattice.points[0]):  # all at once would be gigabytes
        target = fixed[:, :, plane].flatten(2)[:, :, None]
        planes.append((sampled_plane(moving, lattice, plane) - target).square().sum(1))
    cost = torch.stack(planes, dim=2)  # [B, L, d, h w]
    return cost.view(*cost.shape[:3], *lattice.points[1:])


def sampled_plane(moving: Tensor, lattice: Lattice, plane: int) -> Tensor:
    """A volume at every label of the control points of one plane.

    Args:
        moving: ``[B, C, d, h, w]``; sampled linearly, and continued as at its border.
        lattice: in voxels of ``moving``.
        plane: which control points, counted along the first axis.

    Returns:
        ``[B, C, L, P]`` for the ``P`` control points of the plane.
    """
    depth, height, width = lattice.control_positions(moving)
    steps = lattice.steps(moving)
    offsets = torch.cartesian_prod(steps, steps, steps) * steps.new_tensor(lattice.label_step)
    points = torch.cartesian_prod(depth[plane : plane + 1], height, width)
    extent = steps.new_tensor([max(size - 1, 1) for size in moving.shape[2:]])
    normalised = (offsets[:, None] + points) * (2 / extent) - 1  # [L, P, 3]
    grid = normalised.flip(-1).expand(len(moving), 1, -1, -1, -1)
    return F.grid_sample(moving, grid, padding_mode="border", align_corners=True)[:, :, 0]


def check_dense(call: str, fixed: Tensor, moving: Tensor, lattice: Lattice) -> None:
    """Raise ``ValueError`` unless features and lattice fit together."""
    check_volumes(call, fixed=fixed, moving=moving)
    if fixed.shape[:2] != moving.shape[:2]:
        raise ValueError(
            f"{call}: fixed and moving must share batch size and channels, got "
            f"{list(fixed.shape)} and {list(moving.shape)}"
        )
    if tuple(fixed.shape[2:]) != tuple(lattice.points):
        raise ValueError(
            f"{call}: fixed must hold the features of {lattice.points} control points, got "
            f"{list(fixed.shape)}"
        )
