"""How badly features tell the structures of their voxels, which they learn to predict."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.features.coded import CodedFeatures

ARITHMETIC = 2  # of this loss: a training that began with another does not go on with it

_BALANCE = 0.25  # power of the inverse share of a class; small structures would be passed over
_HEAVIEST = 1e4
_MOST_VOXELS = 1 << 14  # with a structure, and as many without, that a level compares in a step


class Compared(NamedTuple):
    """The voxels of a level that are compared.

    Attributes:
        rows: their numbers, ``[n]``.
        members: class of each of the volume's voxels that they consist of, ``[n, factor^3]``; the
            number of classes where that lies outside of the volume.
        stands_for: so many voxels of the level each of them speaks for, ``[n]``.
        there: how many voxels of the level are of each class, drawn or not, ``[K]``.
    """

    rows: Tensor
    members: Tensor
    stands_for: Tensor
    there: Tensor


class StructureLoss:
    """Cross entropy and 1 - soft Dice of the structures that voxels likely belong to.

    Where a level has more voxels than are compared, some are drawn from those with a structure and
    some from the background, and sums over them are estimates of those over all. How much there is
    of each structure is counted, so that one of which no voxel was drawn counts all the same.

    Args:
        factors: how much coarser than the volume each level of the features is, coarsest first.
        classes: class of every voxel of all scans, background 0.
    """

    def __init__(self, factors: Sequence[int], classes: Tensor) -> None:
        shares = torch.bincount(classes.flatten().long()).double()
        shares = shares / shares.sum()
        self.factors, self.count = factors, len(shares)
        weights = (shares.max() / shares.clamp_min(1e-12)).clamp_max(_HEAVIEST) ** _BALANCE
        # nothing for what lies outside
        self.weights = F.pad(weights.float(), [0, 1]).to(classes.device)

    def __call__(
        self,
        network: CodedFeatures,
        levels: Sequence[Tensor],
        classes: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Mean over the levels.

        Args:
            network: whose codes count.
            levels: its raw features ``[1, C, *level]``, which may go on beyond the volume.
            classes: of the volume, ``[1, 1, D, H, W]`` integers.
            generator: of the choice of voxels, where there are more than are compared.
        """
        losses = []
        for factor, raw in zip(self.factors, levels, strict=True):
            depth, height, width = (-(-size // factor) for size in classes.shape[2:])
            flat = raw[0, :, :depth, :height, :width].flatten(1).T
            members = block_members(classes[0, 0].long(), factor, self.count)
            compared = drawn(members, self.count, generator)
            nearness = network.nearness(flat[compared.rows].float())
            losses.append(self._loss(F.log_softmax(nearness, dim=1), compared))
        return torch.stack(losses).mean()

    def _loss(self, logarithms: Tensor, compared: Compared) -> Tensor:
        """Of the logarithms of each class's likelihood, ``[n, K]``, in the voxels compared."""
        members = compared.members
        each = _shares(members, self.count) * compared.stands_for[:, None]
        known = members.clamp_max(self.count - 1)
        weighted = each * self.weights[members]
        likely = logarithms.gather(1, known)
        entropy = -(weighted * likely).sum() / weighted.sum()
        # sums over voxels of what is predicted, and of its product with what is there
        common = each.new_zeros(self.count)
        common = common.index_add(0, known.flatten(), (each * likely.exp()).flatten())
        predicted = compared.stands_for @ logarithms.exp()
        return entropy + 1 - _overlap(common, compared.there, predicted)


def block_members(classes: Tensor, factor: int, outside: int) -> Tensor:
    """Classes of the voxels of each block of ``factor`` voxels an axis, ``[n, factor^3]``.

    Args:
        classes: ``[D, H, W]`` integers.
        factor: side of a block.
        outside: what a block at a far end has beyond the volume.
    """
    missing = [-size % factor for size in classes.shape]
    blocks = F.pad(classes, [0, missing[2], 0, missing[1], 0, missing[0]], value=outside)
    for axis in range(3):
        blocks = blocks.unfold(axis, factor, factor)
    return blocks.reshape(-1, factor**3)


def drawn(members: Tensor, outside: int, generator: torch.Generator) -> Compared:
    """All voxels of a level, or some of those with and some of those without a structure.

    Args:
        members: see :class:`Compared`, of all voxels.
        outside: the class that stands for what lies outside of the volume.
        generator: of the choice; a voxel may be drawn twice.
    """
    has_structure = ((members > 0) & (members < outside)).any(1)
    rows, stands_for = [], []
    for kind in (has_structure, ~has_structure):
        (own,) = kind.nonzero(as_tuple=True)
        share = 1.0
        if len(own) > _MOST_VOXELS:
            share = len(own) / _MOST_VOXELS
            chosen = torch.randint(len(own), (_MOST_VOXELS,), generator=generator)
            own = own[chosen.to(own.device)]
        rows.append(own)
        stands_for.append(torch.full((len(own),), share, device=own.device))
    found, shares = torch.cat(rows), _shares(members, outside)
    there = shares.new_zeros(outside + 1).index_add(0, members.flatten(), shares.flatten())
    return Compared(found, members[found], torch.cat(stands_for), there[:outside])


def _shares(members: Tensor, outside: int) -> Tensor:
    """What part of its voxel each member is, ``[n, factor^3]``; 0 outside of the volume."""
    inside = members < outside
    return inside / inside.sum(1, keepdim=True)


def _overlap(common: Tensor, there: Tensor, predicted: Tensor) -> Tensor:
    """Mean soft Dice of the structures that are there, from sums ``[K]``; 1 if there are none."""
    found = (2 * common[1:] + 1) / (there[1:] + predicted[1:] + 1)
    given = there[1:] > 0
    return found[given].mean() if given.any() else found.new_ones(())
