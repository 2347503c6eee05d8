"""The cheapest displacement label of each voxel, drawn towards a given displacement."""

import torch
from torch import Tensor

from triton_reg.ops.checks import check_displacement, check_volumes
from triton_reg.ops.cost_volume import label_offsets

# the released code takes the argmax of softmax(-cost / 5e-5) in float32, where a probability
# equals the highest one as soon as exp(-difference / 5e-5) rounds to 1
TIE_TOLERANCE = 5e-5 * 2**-25


def coupled_argmin(cost: Tensor, displacement: Tensor, coupling: float, radius: int) -> Tensor:
    """Label ``o`` that minimises ``cost(o) + coupling * |displacement - o|²`` at each voxel.

    Labels that attain the minimum together, within 1.5e-12, are *summed* as in the released
    VoxelOpt code: where the cost says nothing (all labels tie) the result is no displacement.

    Args:
        cost: ``[B, L, D, H, W]``, low is good.
        displacement: ``[B, 3, D, H, W]`` in voxels.
        coupling: weight of the squared distance; 0 for the plain argmin.
        radius: the search radius that made the ``L`` labels.

    Returns:
        ``[B, 3, D, H, W]`` in whole voxels.

    Raises:
        ValueError: if the shapes or the number of labels do not fit.
    """
    check_volumes("coupled_argmin", cost=cost)
    check_displacement("coupled_argmin", displacement)
    labels = (2 * radius + 1) ** 3
    if cost.shape[1] != labels or cost.shape[2:] != displacement.shape[2:]:
        raise ValueError(
            f"coupled_argmin: radius {radius} needs a cost of {labels} labels on the displacement's"
            f" grid {list(displacement.shape[2:])}, got {list(cost.shape)}"
        )
    return coupled_argmin_reference(cost, displacement, coupling, radius)


def coupled_argmin_reference(
    cost: Tensor, displacement: Tensor, coupling: float, radius: int
) -> Tensor:
    """Plain torch definition of :func:`coupled_argmin`."""
    steps = torch.arange(-radius, radius + 1, dtype=cost.dtype, device=cost.device)
    pull = coupling * (displacement[:, :, None] - steps.view(1, 1, -1, 1, 1, 1)) ** 2
    offsets = label_offsets(radius)

    def candidate(label: int) -> Tensor:
        first, second, third = (step + radius for step in offsets[label])
        return cost[:, label] + pull[:, 0, first] + pull[:, 1, second] + pull[:, 2, third]

    best = candidate(0)
    for label in range(1, len(offsets)):
        torch.minimum(best, candidate(label), out=best)
    best += TIE_TOLERANCE
    winner = torch.zeros_like(best, dtype=torch.int32)
    for label, offset in enumerate(offsets):
        winner += (candidate(label) <= best) * _pack(offset)
    return _unpack(winner).to(cost.dtype)


_BITS = 10  # a sum of tied offsets stays within ±294 at radius 3, so ten bits an axis hold it


def _pack(offset: tuple[int, ...]) -> int:
    """Three small signed numbers as one, such that packed numbers add up like the triples."""
    return (offset[0] << 2 * _BITS) + (offset[1] << _BITS) + offset[2]


def _unpack(packed: Tensor) -> Tensor:
    """The triples ``[B, 3, D, H, W]`` of packed sums ``[B, D, H, W]``."""
    half, axes = 1 << (_BITS - 1), []
    for _ in range(3):
        low = ((packed + half) & (2 * half - 1)) - half
        axes.append(low)
        packed = (packed - low) >> _BITS
    return torch.stack(axes[::-1], dim=1)
