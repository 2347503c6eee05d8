"""Volumes that know where their voxels lie, and what of them a pyramid level sees."""

from dataclasses import dataclass

import torch
from torch import Tensor

# of the smoothing against the spacing of the level, in mm for all volumes: unequal blur would
# look like another scale
_SIGMA = 0.7
_DARKEST, _BRIGHTEST = 0.01, 0.99
_THRESHOLD_ROUNDS = 8


@dataclass(frozen=True, eq=False)
class PlacedVolume:
    """A volume and where its voxels lie.

    Attributes:
        volume: ``[D, H, W]``, any real dtype.
        affine: ``[4, 4]``, voxel -> world in mm (RAS, or any world that all volumes share).
        mask: ``[D, H, W]``, above 0 where to look; None for everywhere. Smoothing does not stop at
            its edge: it should keep a few mm away from what is to be ignored.

    Raises:
        ValueError: if a shape does not fit, a voxel is not finite, the affine cannot be inverted,
            or the mask is empty.
    """

    volume: Tensor
    affine: Tensor
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.volume.dim() != 3 or min(self.volume.shape) < 1:
            found = list(self.volume.shape)
            raise ValueError(f"PlacedVolume: volume must be [D, H, W], got {found}")
        if not self.volume.isfinite().all():
            raise ValueError("PlacedVolume: volume must be finite, got NaN or infinite voxels")
        if tuple(self.affine.shape) != (4, 4):
            found = list(self.affine.shape)
            raise ValueError(f"PlacedVolume: affine must be [4, 4], got {found}")
        affine = self.affine.detach().to("cpu", torch.float64)
        if not affine.isfinite().all() or affine[:3, :3].det() == 0:
            raise ValueError(f"PlacedVolume: affine must be invertible, got {affine.tolist()}")
        if self.mask is None:
            return
        if self.mask.shape != self.volume.shape:
            raise ValueError(
                f"PlacedVolume: the mask must have the volume's shape {list(self.volume.shape)}, "
                f"got {list(self.mask.shape)}"
            )
        if not (self.mask > 0).any():
            raise ValueError("PlacedVolume: the mask is empty; need voxels above 0")


@dataclass(frozen=True, eq=False)
class LevelVolume:
    """A volume at one pyramid level.

    values: float32 ``[d, h, w]``, 0 to 1 from dark to bright, clipped. inside: float32, same
    shape, 1 where the mask holds. affine: float64 ``[4, 4]``, level voxel -> mm, on the CPU.
    """

    values: Tensor
    inside: Tensor
    affine: Tensor


def at_level(placed: PlacedVolume, spacing_mm: float) -> LevelVolume:
    """Smooth and resample along the volume's own axes; an axis that is coarser keeps its voxels.

    The mask's voxels are those that are inside by more than half; where a thin mask leaves none,
    the voxels that it touches most.
    """
    affine = placed.affine.detach().to("cpu", torch.float64)
    sigmas = _SIGMA * spacing_mm / affine[:3, :3].norm(dim=0)
    steps = (sigmas / _SIGMA).clamp(min=1).tolist()
    values, mask = placed.volume.float(), placed.mask
    inside = None if mask is None else (mask > 0).float()
    start = []
    for axis, step in enumerate(steps):
        matrix, first = _smoothing_matrix(
            values.shape[axis], step, float(sigmas[axis]), values.device
        )
        values = _along(axis, matrix, values)
        inside = None if inside is None else _along(axis, matrix, inside)
        start.append(first)
    level = affine.clone()
    level[:3, :3] *= torch.tensor(steps, dtype=torch.float64)
    level[:3, 3] += affine[:3, :3] @ torch.tensor(start, dtype=torch.float64)
    if inside is None:
        inside = torch.ones_like(values)
    else:
        inside = (inside > min(0.5, float(inside.max()) * 0.99)).float()
    return LevelVolume(_scaled(values, inside), inside, level)


def _smoothing_matrix(
    size: int, step: float, sigma: float, device: torch.device
) -> tuple[Tensor, float]:
    """Gaussian weights ``[n, size]`` of every ``step``-th position, and the first position."""
    count = int((size - 1) / step + 1e-6) + 1
    first = (size - 1) / 2 - (count - 1) / 2 * step
    positions = torch.arange(count, device=device) * step + first
    distance = (torch.arange(size, device=device) - positions[:, None]) / max(sigma, 0.1)
    weights = torch.exp(-0.5 * distance**2)
    return weights / weights.sum(dim=1, keepdim=True), first


def _along(axis: int, matrix: Tensor, values: Tensor) -> Tensor:
    """``matrix [n, size]`` applied to one axis of ``values``."""
    return torch.movedim(torch.movedim(values, axis, -1) @ matrix.T, -1, axis)


def _scaled(values: Tensor, inside: Tensor) -> Tensor:
    """``values`` from 0 to 1, clipped: a few bright voxels must not decide."""
    seen = values[inside > 0].sort().values
    bright = seen[seen > _threshold(seen)]  # of the body alone: there may be any amount of air
    low = seen[int(_DARKEST * (len(seen) - 1))]
    high = bright[int(_BRIGHTEST * (len(bright) - 1))] if len(bright) else seen[-1]
    return ((values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)).clamp(0, 1)


def _threshold(values: Tensor) -> Tensor:
    """Half way between the mean above and the mean below (Ridler and Calvard, 1978)."""
    threshold = values.mean()
    for _ in range(_THRESHOLD_ROUNDS):
        above = values > threshold
        if not above.any() or above.all():
            break
        threshold = (values[above].mean() + values[~above].mean()) / 2
    return threshold
