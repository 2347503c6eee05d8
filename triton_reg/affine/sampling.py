"""Points of the fixed volumes, and the moving volumes' values and slopes where they arrive."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.affine.costs import Shape
from triton_reg.affine.parameters import AffineParameters
from triton_reg.affine.placed import LevelVolume


@dataclass(frozen=True, eq=False)
class FixedPoints:
    """Where ``B`` fixed volumes are looked at.

    offsets_mm: float32 ``[B, P, 3]``, from the centre. values, weights: ``[B, P]``; a weight is 0
    outside of the mask. center_mm: float64 ``[B, 3]``. shape: of the grid that the points are all
    voxels of, or None.
    """

    offsets_mm: Tensor
    values: Tensor
    weights: Tensor
    center_mm: Tensor
    shape: Shape | None

    @classmethod
    def of(
        cls, levels: Sequence[LevelVolume], center_mm: Tensor, limit: int | None
    ) -> "FixedPoints":
        """Of one level of each volume; at most ``limit`` points, or the whole grid if None."""
        if limit is None:
            shape = _largest(levels)
            rows = [_padded_grid(level, center, shape)
                    for level, center in zip(levels, center_mm, strict=True)]  # fmt: skip
        else:
            shape = None
            rows = [_chosen(level, center, limit)
                    for level, center in zip(levels, center_mm, strict=True)]  # fmt: skip
            longest = max(len(values) for _, values, _ in rows)
            rows = [tuple(_lengthened(part, longest) for part in row) for row in rows]
        offsets, values, weights = (torch.stack(part) for part in zip(*rows, strict=True))
        return cls(offsets, values, weights, center_mm, shape)

    def thinned(self, limit: int) -> "FixedPoints":
        """About ``limit`` of the points, evenly spread; a whole grid stays whole."""
        step = max(self.values.shape[1] // limit, 1)
        if self.shape is not None or step == 1:
            return self
        kept = [part[:, ::step] for part in (self.offsets_mm, self.values, self.weights)]
        return replace(self, offsets_mm=kept[0], values=kept[1], weights=kept[2])


@dataclass(frozen=True, eq=False)
class MovingVolumes:
    """``B`` moving volumes of one level in one tensor.

    channels: float32 ``[B, 5, d, h, w]``: values, inside, slopes per mm along the world axes; the
    edge is one voxel that is outside. to_voxel: float64 ``[B, 4, 4]``, moving mm -> voxel.
    """

    channels: Tensor
    to_voxel: Tensor

    @classmethod
    def of(cls, levels: Sequence[LevelVolume]) -> "MovingVolumes":
        """Of one level of each volume, padded to the largest."""
        shape = _largest(levels)
        channels = torch.stack([_channels(level, shape) for level in levels])
        to_voxel = torch.stack([torch.linalg.inv(level.affine) for level in levels])
        to_voxel[:, :3, 3] += 1  # the edge
        return cls(channels, to_voxel.to(channels.device))

    def values_at(self, points: FixedPoints, matrices: Tensor) -> tuple[Tensor, Tensor]:
        """Values and inside, ``[B, K, P]`` each, through ``K`` matrices ``[B, K, 4, 4]`` a pair."""
        sampled = self._sample(self.channels[:, :2], points, matrices)
        return sampled[:, 0], sampled[:, 1]

    def slopes_at(
        self, points: FixedPoints, parameters: AffineParameters
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values and inside ``[B, P]``, slopes ``[B, 3, P]`` per mm."""
        matrices = parameters.matrix(points.center_mm)[:, None]
        sampled = self._sample(self.channels, points, matrices)[:, :, 0]
        return sampled[:, 0], sampled[:, 1], sampled[:, 2:]

    def _sample(self, channels: Tensor, points: FixedPoints, matrices: Tensor) -> Tensor:
        """``[B, C, K, P]``; positions are formed in float64 and used in float32."""
        linear = matrices[..., :3, :3]
        arrived = matrices[..., :3, 3] + (linear @ points.center_mm[:, None, :, None])[..., 0]
        to_voxel = self.to_voxel[:, None]
        linear = to_voxel[..., :3, :3] @ linear
        arrived = to_voxel[..., :3, 3] + (to_voxel[..., :3, :3] @ arrived[..., None])[..., 0]
        # grid_sample counts from -1 to 1 between corner voxels and wants the last axis first
        half = (linear.new_tensor(channels.shape[2:]) - 1) / 2
        linear, arrived = (linear / half[:, None]).flip(-2), (arrived / half - 1).flip(-1)
        grid = points.offsets_mm[:, None] @ linear.transpose(-1, -2).float()
        grid = grid + arrived[:, :, None].float()
        sampled = F.grid_sample(
            channels, grid[:, None], mode="bilinear", padding_mode="border", align_corners=True
        )
        return sampled[:, :, 0]


def _largest(levels: Sequence[LevelVolume]) -> Shape:
    depth, height, width = (max(level.values.shape[axis] for level in levels) for axis in range(3))
    return depth, height, width


def _fill(values: Tensor, shape: Shape) -> list[int]:
    """What F.pad needs to bring ``values [d, h, w]`` to a shape, at the ends."""
    missing = [size - now for size, now in zip(shape, values.shape, strict=True)]
    return [0, missing[2], 0, missing[1], 0, missing[0]]


def _channels(level: LevelVolume, shape: Shape) -> Tensor:
    values = F.pad(level.values[None], [1] * 6, mode="replicate")[0]
    slopes = torch.stack(torch.gradient(values))
    to_world = torch.linalg.inv(level.affine[:3, :3]).T.float().to(slopes.device)
    slopes = torch.einsum("ij,jdhw->idhw", to_world, slopes)
    stacked = torch.cat([values[None], F.pad(level.inside, [1] * 6)[None], slopes])
    depth, height, width = shape
    return F.pad(stacked, _fill(values, (depth + 2, height + 2, width + 2)))


def _positions(level: LevelVolume, center_mm: Tensor) -> Tensor:
    """Offsets from the centre of all voxels, float64 ``[d h w, 3]``."""
    device = level.values.device
    axes = [torch.arange(size, dtype=torch.float64, device=device) for size in level.values.shape]
    voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    affine = level.affine.to(device)
    return voxels @ affine[:3, :3].T + (affine[:3, 3] - center_mm)


def _chosen(level: LevelVolume, center_mm: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets, values and weights of a fixed random choice of the voxels inside."""
    (inside,) = level.inside.flatten().nonzero(as_tuple=True)
    order = torch.randperm(len(inside), generator=torch.Generator().manual_seed(0))
    chosen = inside[order[:limit].to(inside.device)]
    offsets = _positions(level, center_mm)[chosen].float()
    return offsets, level.values.flatten()[chosen], torch.ones_like(offsets[:, 0])


def _padded_grid(
    level: LevelVolume, center_mm: Tensor, shape: Shape
) -> tuple[Tensor, Tensor, Tensor]:
    fill = _fill(level.values, shape)
    offsets = _positions(level, center_mm).float().T.unflatten(1, level.values.shape)
    return (
        F.pad(offsets, fill).flatten(1).T,
        F.pad(level.values, fill).flatten(),
        F.pad(level.inside, fill).flatten(),
    )


def _lengthened(values: Tensor, length: int) -> Tensor:
    return F.pad(values, [0, 0] * (values.dim() - 1) + [0, length - len(values)])
