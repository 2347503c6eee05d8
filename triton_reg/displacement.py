"""A displacement and its algebra."""

from dataclasses import dataclass

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
        shapes = {self.fixed_shape, self.moving_shape, second.fixed_shape, second.moving_shape}
        if len(shapes) > 1:
            raise ValueError(f"Displacement.then: needs one shared grid, got {sorted(shapes)}")
        composed = compose(self.full(), second.full())
        return Displacement(composed, self.fixed_shape, second.moving_shape)


def upsample_twice(displacement: Tensor, shape: Shape) -> Tensor:
    """A displacement ``[B, 3, d, h, w]`` of one pyramid level on the next finer grid ``shape``.

    Vectors are doubled as the released VoxelOpt code does, although ``(2n - 1) / (n - 1)`` would
    be exact for corner-aligned grids.
    """
    return 2 * resize(displacement, shape)


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
