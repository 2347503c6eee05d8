"""What a transform's parameters are, and the vectors that they stand for."""

from dataclasses import dataclass

import torch
from torch import Tensor

from triton_reg.methods.level_grids import LevelGrid
from triton_reg.ops.compose import compose


@dataclass(frozen=True)
class Velocity:
    """A stationary velocity field, integrated by scaling and squaring.

    Arsigny et al., "A log-Euclidean framework for statistics on diffeomorphisms", MICCAI 2006.

    Attributes:
        squarings: how often the field is composed with itself.
    """

    squarings: int = 6

    def vectors(self, parameters: Tensor) -> Tensor:
        """The displacement after unit time, in the velocity's voxels."""
        displacement = parameters / 2**self.squarings
        for _ in range(self.squarings):
            displacement = compose(displacement, displacement)
        return displacement


@dataclass(frozen=True)
class Spline:
    """A cubic B-spline over control points that the levels share; parameters in volume voxels.

    Rueckert et al., "Nonrigid registration using free-form deformations", IEEE TMI 1999.

    Attributes:
        level: whose voxels are asked.
        spacing: of the control points along each axis, in voxels of the volume.
    """

    level: LevelGrid
    spacing: tuple[float, float, float]

    def control_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Control points along each axis of a volume: every voxel lies inside four."""
        depth, height, width = (
            int((size - 1) / step) + 4 for size, step in zip(shape, self.spacing, strict=True)
        )
        return depth, height, width

    def vectors(self, parameters: Tensor) -> Tensor:
        """The spline at the level's voxels, in those."""
        found = parameters / self.level.factor
        for axis, size in enumerate(self.level.shape):
            shares = self._shares(axis, size, found.shape[2], found.device).to(found)
            found = torch.einsum("bczyx,nz->bcyxn", found, shares)  # the axis becomes the last
        return found.contiguous()

    def _shares(self, axis: int, size: int, count: int, device: torch.device) -> Tensor:
        """What each control point counts at each voxel of an axis, ``[size, count]``."""
        voxels = torch.arange(size, dtype=torch.float64, device=device)
        voxels = voxels * self.level.factor + self.level.offset
        points = torch.arange(count, device=device)
        distance = voxels[:, None] / self.spacing[axis] + 1 - points
        far = distance.abs()
        inner = 2 / 3 - far**2 + far**3 / 2
        outer = (2 - far).clamp_min(0) ** 3 / 6
        return torch.where(far < 1, inner, outer)


@dataclass(frozen=True)
class Linear:
    """An affine or rigid map about the volume's centre.

    Parameters are lengths in voxels of the volume, so that one rate suits all: entry ``[i, j]`` of
    an affine map is how far it moves the middle of face ``j`` along axis ``i``, those of a rigid
    map are its rotation vector times half the volume's smallest extent. The last column is the
    translation. Shape ``[B, 3, 4, 1, 1]``, rigid ``[B, 3, 2, 1, 1]``.

    Attributes:
        level: whose voxels are asked.
        shape: of the volume.
        kind: ``"affine"`` or ``"rigid"``.
        voxel: size of a voxel along each axis; what is rigid is so in these lengths.
    """

    level: LevelGrid
    shape: tuple[int, int, int]
    kind: str
    voxel: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def vectors(self, parameters: Tensor) -> Tensor:
        """``M x + t - x`` at the level's voxels, in those."""
        matrix = self.matrix(parameters)
        axes = [
            torch.arange(size, device=matrix.device).to(matrix) * self.level.factor
            + self.level.offset
            for size in self.level.shape
        ]
        voxels = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
        moved = matrix[..., :3] @ voxels + matrix[..., 3:] - voxels
        return (moved / self.level.factor).unflatten(2, self.level.shape)

    def matrix(self, parameters: Tensor) -> Tensor:
        """``[B, 3, 4]``: voxel ``x`` of the fixed volume goes to ``M x + t`` in its own voxels."""
        given = parameters.flatten(2)
        half = (given.new_tensor(self.shape) - 1).clamp_min(1) / 2
        size = given.new_tensor(self.voxel)
        if self.kind == "affine":
            linear = torch.eye(3, device=given.device).to(given) + given[..., :3] / half
        else:
            turn = given[..., 0] / half.min()
            linear = torch.linalg.matrix_exp(_skew(turn))
            linear = linear * size / size[:, None]  # from lengths to voxels
        shift = half[:, None] + given[..., -1:] - linear @ half[:, None]
        return torch.cat([linear, shift], dim=2)

    @property
    def columns(self) -> int:
        """Parameters of each axis."""
        return 4 if self.kind == "affine" else 2


def _skew(vector: Tensor) -> Tensor:
    """``[B, 3]`` -> the matrices ``[B, 3, 3]`` of their cross products."""
    x, y, z = vector.unbind(1)
    none = torch.zeros_like(x)
    rows = [none, -z, y, z, none, -x, -y, x, none]
    return torch.stack(rows, dim=1).view(-1, 3, 3)
