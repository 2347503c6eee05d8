"""Where an affine registration starts: centres of mass, principal axes, a grid of rotations."""

import math
from itertools import product

import torch
from torch import Tensor

from triton_reg.affine.parameters import AffineParameters, rotation_of
from triton_reg.affine.placed import LevelVolume

_LARGEST_STEP_DEGREES = 15.0
# signs of the second and third axis; the first follows from a positive determinant
_SIGNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def center_of_mass(level: LevelVolume) -> Tensor:
    """World position ``[3]`` in mm, float64, weighted by intensity inside the mask."""
    return _moments(level, masked=True)[0]


def starts_of(
    fixed: LevelVolume, moving: LevelVolume, search_degrees: float
) -> dict[str, AffineParameters]:
    """Rigid starts of one pair by name, each with a batch of one.

    ``header`` changes nothing, ``center`` brings centre of mass to centre of mass, ``axes`` also
    the principal axes, in all four proper ways. With ``search_degrees``, ``rotation x,y,z`` turns
    about the centre in steps of 15 degrees at most, up to that angle about each axis. Moments are
    those inside the masks if both volumes have one: one alone would compare a part to a whole.
    """
    masked = bool((fixed.inside < 1).any() and (moving.inside < 1).any())
    fixed_mm, fixed_axes = _moments(fixed, masked)
    moving_mm, moving_axes = _moments(moving, masked)
    about_mm = center_of_mass(fixed)  # where the parameters turn
    identity = torch.eye(3, dtype=torch.float64, device=about_mm.device)
    rotations = {"header": identity, "center": identity}
    for second, third in _SIGNS:
        signs = identity.new_tensor([second * third, second, third])
        name = f"axes {''.join('+' if sign > 0 else '-' for sign in signs.tolist())}"
        rotations[name] = moving_axes * signs @ fixed_axes.T
    if search_degrees > 0:
        rotations |= _rotation_grid(search_degrees, identity)
    starts = {}
    for name, rotation in rotations.items():
        shift = moving_mm - about_mm + rotation @ (about_mm - fixed_mm)
        if name == "header":
            shift = torch.zeros_like(shift)
        starts[name] = AffineParameters.rigid(rotation[None], shift[None])
    return starts


def _rotation_grid(degrees: float, identity: Tensor) -> dict[str, Tensor]:
    count = 2 * math.ceil(degrees / _LARGEST_STEP_DEGREES) + 1
    angles = torch.linspace(-degrees, degrees, count, dtype=torch.float64).tolist()
    about = [rotation_of(torch.deg2rad(torch.tensor(angles, dtype=torch.float64))[:, None]
                         * torch.eye(3, dtype=torch.float64)[axis]).to(identity.device)
             for axis in range(3)]  # fmt: skip
    rotations = {}
    for (i, x), (j, y), (k, z) in product(enumerate(angles), repeat=3):
        if x or y or z:
            rotations[f"rotation {x:g},{y:g},{z:g}"] = about[2][k] @ about[1][j] @ about[0][i]
    return rotations


def _moments(level: LevelVolume, masked: bool) -> tuple[Tensor, Tensor]:
    """Centre of mass ``[3]`` in mm, and the principal axes in the columns of ``[3, 3]``.

    The axes are right-handed, from the shortest spread to the longest.
    """
    device = level.values.device
    weights = (level.values * level.inside if masked else level.values).double()
    total = weights.sum().clamp(min=torch.finfo(torch.float64).tiny)
    sizes = weights.shape
    axes = [torch.arange(size, dtype=torch.float64, device=device) for size in sizes]
    profiles = [weights.sum(dim=[o for o in range(3) if o != axis]) for axis in range(3)]
    center = torch.stack([p @ a for p, a in zip(profiles, axes, strict=True)]) / total
    away = [axis - middle for axis, middle in zip(axes, center, strict=True)]
    covariance = torch.empty(3, 3, dtype=torch.float64, device=device)
    for i in range(3):
        covariance[i, i] = (profiles[i] * away[i] ** 2).sum() / total
        for j in range(i):
            (other,) = {0, 1, 2} - {i, j}
            covariance[i, j] = away[j] @ weights.sum(dim=other) @ away[i] / total
            covariance[j, i] = covariance[i, j]
    affine = level.affine.to(device)
    linear = affine[:3, :3]
    principal = torch.linalg.eigh(linear @ covariance @ linear.T).eigenvectors
    principal[:, 0] *= principal.det().sign()
    return linear @ center + affine[:3, 3], principal
