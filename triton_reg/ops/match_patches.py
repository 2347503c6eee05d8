"""How alike the patches of warped atlases and of a target are, and where they are most alike."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.operators import array, check_device, has_kernel, operator

# a patch with less than this share of its volume's variance says nothing: its values count as zeros
FLAT = 1e-4


class PatchMatch(NamedTuple):
    """Of V voxels and N atlases: ``positions [V, N]`` int64, the flat index of the voxel of each
    atlas whose patch was taken, and ``correlations [V, N]`` of the two patches, 0 where one is
    flat."""

    positions: Tensor
    correlations: Tensor


def match_patches(
    target: Tensor, warped: Tensor, voxels: Tensor, *, radius: int = 2, search: int = 0
) -> PatchMatch:
    """The patch of each atlas that is most like the target's, near the same voxel.

    The local search of Wang et al., "Multi-atlas segmentation with joint label fusion", IEEE TPAMI
    2013: patches of zero mean and unit variance that differ by the least sum of
    squares, which are those of the largest correlation. The patch in the middle wins a tie, then
    the first in the order of the axes. Edge voxels are repeated around the volumes.

    Args:
        target: ``[1, 1, D, H, W]``.
        warped: ``[1, N, D, H, W]``, atlases on the target's grid.
        voxels: ``[V]`` int64, flat indices of the target's voxels to look at.
        radius: half width of a patch in voxels.
        search: half width of the cube of voxels whose patches are tried; 0 takes the same voxel's.

    Raises:
        ValueError: if the volumes do not share a grid, or a radius is negative.
        TypeError: if voxels are not int64.
    """
    check_atlases("match_patches", target, warped, voxels)
    if radius < 1 or search < 0:
        raise ValueError(
            f"match_patches: radius must be at least 1 and search at least 0, got {radius} and "
            f"{search}"
        )
    check_device("match_patches", target, ("cpu",))
    return PatchMatch(*_match_patches(target, warped, voxels, radius, search))


def check_atlases(call: str, target: Tensor, warped: Tensor, voxels: Tensor) -> None:
    """Raise unless ``warped [1, N, D, H, W]`` lies on the grid of ``target [1, 1, D, H, W]``."""
    fits = target.dim() == warped.dim() == 5 and target.shape[:2] == (1, 1)
    if not fits or len(warped) != 1 or warped.shape[2:] != target.shape[2:]:
        raise ValueError(
            f"{call}: target must be [1, 1, D, H, W] and warped [1, N, D, H, W] on one grid, got "
            f"{list(target.shape)} and {list(warped.shape)}"
        )
    if voxels.dtype != torch.int64 or voxels.dim() != 1:
        raise TypeError(
            f"{call}: voxels must be [V] int64, got {list(voxels.shape)} {voxels.dtype}"
        )


def standardised(volumes: Tensor) -> Tensor:
    """Each of ``[1, N, D, H, W]`` with mean 0 and variance 1: what is flat is told by its size."""
    found = torch.empty_like(volumes)
    for number in range(volumes.shape[1]):  # one by one: the sums are in float64
        centred = volumes[:, number].double()
        centred = centred - centred.mean()
        found[:, number] = centred / centred.square().mean().sqrt().clamp_min(1e-300)
    return found


def bordered(volumes: Tensor, radius: int) -> Tensor:
    """Volumes ``[1, N, D, H, W]`` with their edge voxels repeated around them."""
    return F.pad(volumes, [radius] * 6, mode="replicate")


def patches_of(volume: Tensor, positions: Tensor, radius: int) -> Tensor:
    """Patches of mean 0 and variance 1 around flat ``positions [V]``: ``[V, P]``; flat ones are 0.

    Args:
        volume: ``[D, H, W]``, standardised.
        positions: int64.
        radius: half width of a patch in voxels.
    """
    windows = bordered(volume[None, None], radius)[0, 0]
    for axis in range(3):
        windows = windows.unfold(axis, 2 * radius + 1, 1)
    found = windows[torch.unravel_index(positions, volume.shape)].flatten(1)
    found = found - found.mean(1, keepdim=True)
    variance = found.square().mean(1, keepdim=True)
    return torch.where(variance > FLAT, found / variance.clamp_min(FLAT).sqrt(), 0.0)


def match_patches_reference(
    target: Tensor, warped: Tensor, voxels: Tensor, radius: int = 2, search: int = 0
) -> PatchMatch:
    """Plain torch definition of :func:`match_patches`."""
    shape = target.shape[2:]
    own = patches_of(standardised(target)[0, 0], voxels, radius)
    places = torch.stack(torch.unravel_index(voxels, shape), 1)
    steps = torch.arange(-search, search + 1)
    offsets = torch.cartesian_prod(steps, steps, steps).view(-1, 3)
    offsets = torch.cat([offsets.new_zeros(1, 3), offsets[offsets.any(1)]])  # the middle first
    size, stride = torch.tensor(shape), torch.tensor([shape[1] * shape[2], shape[2], 1])
    positions, correlations = [], []
    for volume in standardised(warped)[0]:
        place = voxels
        best = (own * patches_of(volume, voxels, radius)).mean(1)
        for offset in offsets[1:]:
            tried = places + offset
            inside = ((tried >= 0) & (tried < size)).all(1)
            there = (tried * stride).sum(1).where(inside, voxels)
            alike = (own * patches_of(volume, there, radius)).mean(1)
            better = alike > best
            place, best = there.where(better, place), alike.where(better, best)
        positions.append(place)
        correlations.append(best)
    return PatchMatch(torch.stack(positions, 1), torch.stack(correlations, 1))


@operator("triton_reg::match_patches")
def _match_patches(
    target: Tensor, warped: Tensor, voxels: Tensor, radius: int, search: int
) -> tuple[Tensor, Tensor]:
    if not has_kernel(target, warped):
        found = match_patches_reference(target, warped, voxels, radius, search)
        return found.positions, found.correlations
    from triton_reg.ops._cpu import match_patches as cpu

    volumes = bordered(standardised(torch.cat([target, warped], dim=1)), radius)[0]
    found = cpu.match_patches(array(volumes), array(voxels), radius, search, FLAT)
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


@_match_patches.register_fake
def _(
    target: Tensor, warped: Tensor, voxels: Tensor, radius: int, search: int
) -> tuple[Tensor, Tensor]:
    del radius, search
    shape = len(voxels), warped.shape[1]
    return voxels.new_empty(shape), target.new_empty(shape)
