"""How far and how finely a dense search looks, for volumes of any size."""

from dataclasses import dataclass

from triton_reg.ops.lattice import Vector
from triton_reg.ops.resize import Shape


@dataclass(frozen=True, kw_only=True)
class CubeSearch:
    """As many control points on every axis, and a reach in shares of the volume: as published.

    Neither is as long in millimetres on one axis as on another, unless the volume is a cube.

    Attributes:
        count: control points along each axis.
        width: labels along each axis, odd.
        share: largest displacement, of half the volume's extent.
    """

    count: int
    width: int
    share: float

    def __post_init__(self) -> None:
        _check(self.width)
        if self.count < 2 or self.share <= 0:
            raise ValueError(
                f"CubeSearch: needs at least 2 control points and a positive share, got {self}"
            )

    def points(self, shape: Shape) -> Shape:
        """Control points along each axis of a volume ``(D, H, W)``: as many on each."""
        del shape
        return self.count, self.count, self.count

    def reach(self, shape: Shape) -> Vector:
        """Largest displacement along each axis, as a share of half the volume's extent."""
        del shape
        return self.share, self.share, self.share


@dataclass(frozen=True, kw_only=True)
class EvenSearch:
    """Control points as far apart, and labels as far out, along every axis.

    Lengths are in voxels, or in whatever ``voxel`` is given in.

    Attributes:
        spacing: distance of control points, about: a whole number of them fits.
        width: labels along each axis, odd.
        extent: largest displacement.
        voxel: size of a voxel along each axis.
    """

    spacing: float
    width: int
    extent: float
    voxel: Vector = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        _check(self.width)
        if min(self.spacing, self.extent, *self.voxel) <= 0:
            raise ValueError(f"EvenSearch: lengths must be positive, got {self}")

    def points(self, shape: Shape) -> Shape:
        """Control points along each axis of a volume ``(D, H, W)``: at least two."""
        first, second, third = (
            max(2, round((size - 1) * length / self.spacing) + 1)
            for size, length in zip(shape, self.voxel, strict=True)
        )
        return first, second, third

    def reach(self, shape: Shape) -> Vector:
        """Largest displacement along each axis, as a share of half the volume's extent."""
        first, second, third = (
            2 * self.extent / (max(size - 1, 1) * length)
            for size, length in zip(shape, self.voxel, strict=True)
        )
        return first, second, third


Search = CubeSearch | EvenSearch


def label_shares(search: Search, shape: Shape) -> Vector:
    """Length of a label step along each axis, as a share of half the volume's extent."""
    first, second, third = (share / (search.width // 2) for share in search.reach(shape))
    return first, second, third


def label_steps(search: Search, shape: Shape) -> Vector:
    """Length of a label step along each axis in voxels."""
    first, second, third = (
        share * (size - 1) / 2
        for share, size in zip(label_shares(search, shape), shape, strict=True)
    )
    return first, second, third


def _check(width: int) -> None:
    if width < 3 or width % 2 == 0:
        raise ValueError(f"a search needs an odd width of at least 3 labels an axis, got {width}")
