"""Random changes of a volume and of its labels: affine, elastic, of contrast."""

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.resize import Shape

_ELASTIC_VOXELS = 12  # between the points of a random deformation


def random_affine(generator: torch.Generator, sigma: float) -> Tensor:
    """The identity with a normal number added to each of its twelve entries, ``[1, 3, 4]``.

    Heinrich, MICCAI 2019: rows and columns in the order x, y, z of the last to the first axis, and
    positions in shares of half the volume's extent.
    """
    return torch.eye(3, 4)[None] + sigma * torch.randn(1, 3, 4, generator=generator)


def random_elastic(generator: torch.Generator, volume: Tensor, sigma: float) -> Tensor:
    """A smooth deformation for :func:`transformed`: random at points some 12 voxels apart.

    Args:
        generator: of the numbers.
        volume: ``[1, 1, D, H, W]``, whose grid is deformed.
        sigma: standard deviation at those points, in voxels.
    """
    shape = volume.shape[2:]
    points = [max(size // _ELASTIC_VOXELS, 3) for size in shape]
    coarse = torch.randn(1, 3, *points, generator=generator).to(volume)
    fine = F.interpolate(coarse, shape, mode="trilinear", align_corners=True)
    share = [2 * sigma / max(size - 1, 1) for size in reversed(shape)]  # x, y, z
    return fine.permute(0, 2, 3, 4, 1) * fine.new_tensor(share)


def transformed(
    volume: Tensor, labels: Tensor, matrix: Tensor, offsets: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A volume and its labels where an affine matrix looks for them.

    Args:
        volume: ``[1, 1, D, H, W]``; sampled linearly, and continued as at its border.
        labels: of the same shape, integers; the nearest, and 0 outside.
        matrix: see :func:`random_affine`.
        offsets: added to where it looks, see :func:`random_elastic`; none.
    """
    grid = F.affine_grid(matrix.to(volume), list(volume.shape), align_corners=True)
    if offsets is not None:
        grid = grid + offsets
    moved = F.grid_sample(volume, grid, padding_mode="border", align_corners=True)
    nearest = F.grid_sample(labels.to(volume), grid, mode="nearest", align_corners=True)
    return moved, nearest.to(labels.dtype)


def random_contrast(volume: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """A volume ``[1, 1, D, H, W]`` with another gamma, a smooth bias field and a little noise.

    Gamma is taken between the volume's extremes; logarithms of gamma and of the bias field are
    normal with standard deviation ``strength``, noise has a tenth of it in the volume's range.
    """
    low, high = volume.amin(), volume.amax()
    span = (high - low).clamp_min(torch.finfo(volume.dtype).tiny)
    gamma, *_ = torch.exp(strength * torch.randn(1, generator=generator)).tolist()
    coarse = strength * torch.randn(1, 1, 4, 4, 4, generator=generator)
    bias = F.interpolate(coarse.to(volume), volume.shape[2:], mode="trilinear", align_corners=True)
    noise = 0.1 * strength * torch.randn(volume.shape, generator=generator).to(volume)
    return low + span * (((volume - low) / span) ** gamma * bias.exp() + noise)


def transformed_points(points: Tensor, matrix: Tensor, shape: Shape) -> Tensor:
    """Where points ``[K, 3]`` of a volume lie after :func:`transformed`, in voxels.

    A volume is looked up where the matrix leads, so that its points go the other way.
    """
    half = (points.new_tensor(shape) - 1).clamp_min(1) / 2
    shares = (points / half - 1).flip(1)
    given = matrix[0].to(points)
    found = torch.linalg.solve(given[:, :3], (shares - given[:, 3]).T).T
    return (found.flip(1) + 1) * half
