"""Pairs of scans, changed in ways that a network which learned from others has not seen."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_CUT_AXIS, _THICK_AXIS = 3, 4  # forwards and upwards, of [1, 1, D, H, W]
_SIZE = (40, 64, 56)
_BIAS, _NOISE = 0.4, 0.1  # sd of the field's logarithm; share of the largest value


class Side(NamedTuple):
    """``volume`` and ``mask`` of a subject, ``[1, 1, D, H, W]``."""

    volume: Tensor
    mask: Tensor


Change = Callable[[Side, Side, torch.Generator], tuple[Side, Side]]


def as_they_are(fixed: Side, moving: Side, _: torch.Generator) -> tuple[Side, Side]:
    """Nothing is changed."""
    return fixed, moving


def moving_thick(fixed: Side, moving: Side, _: torch.Generator) -> tuple[Side, Side]:
    """Moving slices of twice the thickness."""
    return fixed, thick(moving)


def both_thick(fixed: Side, moving: Side, _: torch.Generator) -> tuple[Side, Side]:
    """Slices of twice the thickness."""
    return thick(fixed), thick(moving)


def thick(side: Side) -> Side:
    """Slices of twice the thickness, and back on the grid between their middles."""
    pooled = F.avg_pool3d(side.volume, [2 if axis == _THICK_AXIS else 1 for axis in (2, 3, 4)])
    shape = list(side.volume.shape[2:])
    return side._replace(volume=F.interpolate(pooled, shape, mode="trilinear"))


def rear_third(volume: Tensor) -> Tensor:
    """A view of it, for volumes whose second axis leads from back to front."""
    return volume.narrow(_CUT_AXIS, 0, volume.shape[_CUT_AXIS] // 3)


def cropped(fixed: Side, moving: Side, _: torch.Generator) -> tuple[Side, Side]:
    """The rear third of the moving volume is empty, and its mask says so."""
    volume, mask = (one.clone() for one in moving)
    for one in (volume, mask):
        rear_third(one).zero_()
    return fixed, Side(volume, mask)


def inverted(fixed: Side, moving: Side, _: torch.Generator) -> tuple[Side, Side]:
    """Bright is dark in the moving volume."""
    return fixed, moving._replace(volume=moving.volume.amax() - moving.volume)


def biased(fixed: Side, moving: Side, generator: torch.Generator) -> tuple[Side, Side]:
    """The moving volume times a smooth field."""
    coarse = _BIAS * torch.randn(1, 1, 4, 4, 4, generator=generator)
    shape = list(moving.volume.shape[2:])
    field = F.interpolate(coarse, shape, mode="trilinear", align_corners=True).exp()
    return fixed, moving._replace(volume=moving.volume * field)


def noisy(fixed: Side, moving: Side, generator: torch.Generator) -> tuple[Side, Side]:
    """Noise in the moving volume."""
    noise = _NOISE * moving.volume.amax() * torch.randn(moving.volume.shape, generator=generator)
    return fixed, moving._replace(volume=moving.volume + noise)


def other_size(fixed: Side, moving: Side, _: torch.Generator) -> tuple[Side, Side]:
    """The moving volume on another grid, corner voxels on corner voxels."""
    volume = F.interpolate(moving.volume, _SIZE, mode="trilinear", align_corners=True)
    return fixed, Side(volume, torch.ones_like(volume))


CHANGES: dict[str, Change] = {
    "as they are": as_they_are,
    "moving 4x4x8 mm": moving_thick,
    "both 4x4x8 mm": both_thick,
    "moving cropped": cropped,
    "moving cropped, masked": cropped,
    "moving inverted": inverted,
    "moving with bias field": biased,
    "moving with noise": noisy,
    "moving of other size": other_size,
}
