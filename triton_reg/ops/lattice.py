"""Where a dense search looks: control points, and displacement labels around each of them."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from triton_reg.ops.resize import Shape

Vector = tuple[float, float, float]


class Lattice(NamedTuple):
    """Control points and displacement labels, in voxels of the features that are compared.

    Control point ``k`` lies at ``start + k * step`` on each axis, and label ``l`` adds
    ``(l - width // 2) * label_step`` to that. Labels are counted with the last axis fastest.

    Attributes:
        points: control points along each axis.
        width: labels along each axis, odd; there are ``L = width³``.
        start: position of the first control point.
        step: distance of neighbouring control points.
        label_step: distance of neighbouring labels.
    """

    points: Shape
    width: int
    start: Vector
    step: Vector
    label_step: Vector

    @classmethod
    def corner_aligned(
        cls, feature_shape: Shape, points: Shape, width: int, reach: Vector
    ) -> "Lattice":
        """First and last control points on the corner voxels.

        Args:
            feature_shape: ``(d, h, w)`` of the features.
            points: control points along each axis, at least 2.
            width: labels along each axis, odd and at least 3.
            reach: largest displacement along each axis, as a share of half the volume's extent.

        Raises:
            ValueError: if points, width or reach are not as said.
        """
        if min(points) < 2:
            raise ValueError(f"Lattice: needs at least 2 control points an axis, got {points}")
        if width < 3 or width % 2 == 0:
            raise ValueError(f"Lattice: width must be odd and at least 3, got {width}")
        if min(reach) <= 0:
            raise ValueError(f"Lattice: reach must be positive, got {reach}")
        extents = [size - 1 for size in feature_shape]
        step = [extent / (count - 1) for extent, count in zip(extents, points, strict=True)]
        label_step = [
            share * extent / (width - 1) for share, extent in zip(reach, extents, strict=True)
        ]
        return cls(points, width, (0.0, 0.0, 0.0), _vector(step), _vector(label_step))

    @classmethod
    def from_values(cls, values: Iterable[Any]) -> "Lattice":
        """A lattice from its values in order, as operators get them."""
        points, width, *vectors = values
        return cls(tuple(points), width, *(tuple(vector) for vector in vectors))

    @property
    def labels(self) -> int:
        """How many displacements each control point tries."""
        return self.width**3

    def steps(self, like: Tensor) -> Tensor:
        """The labels of one axis in label steps, ``[width]``."""
        radius = self.width // 2
        return torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)

    def control_positions(self, like: Tensor) -> list[Tensor]:
        """Positions of the control points along each axis in feature voxels."""
        return [
            self.start[axis]
            + self.step[axis] * torch.arange(count, dtype=like.dtype, device=like.device)
            for axis, count in enumerate(self.points)
        ]


def _vector(values: list[float]) -> Vector:
    first, second, third = values
    return first, second, third
