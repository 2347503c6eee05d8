"""A displacement and its algebra."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.checks import check_displacement
from triton_reg.ops.compose import compose
from triton_reg.ops.resize import Shape, resize
from triton_reg.ops.warp import Interpolation, Padding, warp


@dataclass(frozen=True, eq=False)
class Displacement:
    """Where each fixed voxel lies in the moving volume.

    The moving position of fixed voxel ``x`` is ``x * (m - 1) / (f - 1) + u(x)`` per axis, for sizes
    ``f`` of the fixed and ``m`` of the moving volume; on one shared grid,
    ``moving(x + u(x)) ~ fixed(x)``.

    Attributes:
        vectors: ``u``, ``[B, 3, d, h, w]`` in moving voxels, channel i along axis i. The corner
            points of its grid are the corner voxels of the fixed volume; the grid may be a control
            grid, a coarse field or the full field.
        fixed_shape: ``(D, H, W)`` of the fixed volume.
        moving_shape: ``(D, H, W)`` of the moving volume.
    """

    vectors: Tensor
    fixed_shape: Shape
    moving_shape: Shape

    def __post_init__(self) -> None:
        check_displacement("Displacement", self.vectors)

    def warp(
        self, volume: Tensor, *, interpolation: Interpolation = "linear", padding: Padding = "zeros"
    ) -> Tensor:
        """Sample the moving ``volume [B, C, *moving_shape]`` on the fixed grid.

        Raises:
            ValueError: if the volume does not have ``moving_shape``.
        """
        if tuple(volume.shape[2:]) != tuple(self.moving_shape):
            raise ValueError(
                f"Displacement.warp: the volume must have the moving shape {self.moving_shape}, "
                f"got {tuple(volume.shape[2:])}"
            )
        return warp(
            volume,
            self.vectors,
            fixed_shape=self.fixed_shape,
            interpolation=interpolation,
            padding=padding,
        )

    def full(self) -> Tensor:
        """``u`` at every fixed voxel, ``[B, 3, *fixed_shape]`` in moving voxels."""
        return resize(self.vectors, self.fixed_shape)

    def then(self, second: "Displacement") -> "Displacement":
        """First this displacement, then ``second`` from where it arrives (one shared grid).

        Raises:
            ValueError: unless all shapes involved are the same.
        """
        own = (self.fixed_shape, self.moving_shape, second.fixed_shape, second.moving_shape)
        shapes = {tuple(shape) for shape in own}
        if len(shapes) > 1:
            raise ValueError(f"Displacement.then: needs one shared grid, got {sorted(shapes)}")
        composed = compose(self.full(), second.full())
        return Displacement(composed, self.fixed_shape, second.moving_shape)

    def inverse(self, *, iterations: int = 30, tolerance: float = 0.01) -> "Inverse":
        """The displacement that leads back, by fixed-point iteration (one shared grid).

        It solves ``v(y) = -u(y + v(y))``; outside of its grid ``u`` continues as at the border.
        The plain iteration, Chen et al., "A simple fixed-point approach to invert a deformation
        field", Medical Physics 2008, needs ``u`` to be a contraction. Here a voxel whose residual
        does not shrink keeps its vector and halves its step, and every fifth time tries the mean of
        its neighbours, so that fields that stretch more than twofold come out too. Where ``u``
        folds, several fixed positions lead to one: one of them is found, or a residual stays.

        Args:
            iterations: at most so many, each one warp of the field.
            tolerance: a pair is done when no voxel's residual is larger; in voxels.

        Raises:
            ValueError: unless fixed and moving share one grid.
        """
        if tuple(self.fixed_shape) != tuple(self.moving_shape):
            raise ValueError(
                "Displacement.inverse: needs one shared grid, got fixed shape "
                f"{self.fixed_shape} and moving shape {self.moving_shape}"
            )
        v, length = _inverted(self.full(), iterations, tolerance)
        backward = Displacement(v, self.moving_shape, self.fixed_shape)
        per_pair = length.flatten(1)
        return Inverse(backward, per_pair.amax(dim=1), per_pair.mean(dim=1))


@dataclass(frozen=True, eq=False)
class Inverse:
    """What :meth:`Displacement.inverse` found, and how far it is from an inverse.

    Attributes:
        displacement: ``v``: moving voxel ``y`` lies at fixed voxel ``y + v(y)``.
        residual_max, residual_mean: largest and mean length of ``u(y + v(y)) + v(y)``, ``[B]``, in
            voxels; what is left of a trip back and forth.
    """

    displacement: Displacement
    residual_max: Tensor
    residual_mean: Tensor


def _inverted(u: Tensor, iterations: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """``v`` with ``v(y) = -u(y + v(y))``, and the length of what is left: ``[B, 1, D, H, W]``."""
    v = -u
    residual = warp(u, v, padding="border") + v
    length = residual.norm(dim=1, keepdim=True)
    step = torch.ones_like(length)
    for iteration in range(iterations):
        # each pair stops by itself, so that a batch gives what each pair alone does
        unfinished = length.amax(dim=(1, 2, 3, 4), keepdim=True) > tolerance
        if not unfinished.any():
            break
        from_neighbours = iteration % 5 == 4
        if from_neighbours:
            trial = torch.where(length > tolerance, _mean_of_neighbours(v), v)
        else:
            trial = v - step * residual
        found = warp(u, trial, padding="border") + trial
        found_length = found.norm(dim=1, keepdim=True)
        better = (found_length < length) & unfinished
        v, residual = torch.where(better, trial, v), torch.where(better, found, residual)
        length = torch.where(better, found_length, length)
        if from_neighbours:
            step = torch.where(better, torch.ones_like(step), step)
        else:
            step = torch.where(better, step, step / 2)
    return v, length


def _mean_of_neighbours(v: Tensor) -> Tensor:
    """Mean over 3 x 3 x 3 voxels, the edge repeated."""
    padded = F.pad(v, (1,) * 6, mode="replicate")
    return F.avg_pool3d(padded, 3, stride=1)


def upsample_twice(displacement: Tensor, shape: Shape) -> Tensor:
    """A displacement ``[B, 3, d, h, w]`` of one pyramid level on the next finer grid ``shape``.

    Vectors are doubled as the released VoxelOpt code does, although ``(2n - 1) / (n - 1)`` would
    be exact for corner-aligned grids.
    """
    return 2 * resize(displacement, shape)


def moved_points(points: Tensor, displacement: Displacement) -> Tensor:
    """Where fixed positions lie in the moving volume.

    Args:
        points: ``[K, 3]`` in fixed voxels, axis order of the volume, of any dtype; sampled linearly
            between voxels, and with the border's displacement outside.
        displacement: of one pair, ``B = 1``.

    Returns:
        ``[K, 3]`` in moving voxels, float64 of points in float64 and else float32.

    Raises:
        ValueError: if points are no ``[K, 3]`` or the displacement is of several pairs.
    """
    vectors = displacement.vectors
    if points.dim() != 2 or points.shape[1] != 3 or len(vectors) != 1:
        raise ValueError(
            f"moved_points: needs points [K, 3] and the displacement of one pair, got "
            f"{list(points.shape)} and {list(vectors.shape)}"
        )
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    fixed_last = points.new_tensor(displacement.fixed_shape) - 1
    moving_last = points.new_tensor(displacement.moving_shape) - 1
    share = points / fixed_last.clamp_min(1)  # 0 and 1 are the corner voxels of every grid
    # grid_sample counts axes from the last
    where = (2 * share - 1).flip(1).view(1, 1, 1, -1, 3)
    found = F.grid_sample(
        vectors.to(points.dtype), where, padding_mode="border", align_corners=True
    )
    return share * moving_last + found.view(3, -1).T


def jacobian_determinant(vectors: Tensor) -> Tensor:
    """Determinant of the Jacobian of ``x + u(x)`` at the interior voxels, by central differences.

    Args:
        vectors: ``u``, ``[B, 3, D, H, W]`` in voxels, each size at least 3.

    Returns:
        ``[B, D - 2, H - 2, W - 2]``; 1 is no change of volume, 0 and below is folding.

    Raises:
        ValueError: if a size is below 3.
    """
    check_displacement("jacobian_determinant", vectors)
    if min(vectors.shape[2:]) < 3:
        raise ValueError(
            f"jacobian_determinant: each size must be at least 3, got {list(vectors.shape[2:])}"
        )
    derivatives = []
    for axis in range(3):
        size = vectors.shape[2 + axis]
        difference = vectors.narrow(2 + axis, 2, size - 2) - vectors.narrow(2 + axis, 0, size - 2)
        for other in {0, 1, 2} - {axis}:
            difference = difference.narrow(2 + other, 1, vectors.shape[2 + other] - 2)
        derivatives.append(0.5 * difference)
    # component first, axis of derivation second; the identity is that of x itself
    (a, b, c), (d, e, f), (g, h, i) = (
        [by_axis[:, component] + (component == axis) for axis, by_axis in enumerate(derivatives)]
        for component in range(3)
    )
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
