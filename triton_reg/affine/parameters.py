"""What an affine registration moves: rotation, scales, shears and translation in the world.

A fixed world position ``x`` lies at ``A (x - c) + c + t`` in the moving world, both in mm, where
``c`` is the fixed centre of mass and ``A = R K S``: a rotation, a unit upper triangle of shears and
a diagonal of scales. Steps are taken in rotation vectors (radians), applied from the left,
translations (mm), logarithms of scales and shears, so no resolution changes their meaning.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Transform = Literal["rigid", "similarity", "scaling", "affine"]
DEGREES_OF_FREEDOM: dict[Transform, int] = {
    "rigid": 6,
    "similarity": 7,
    "scaling": 9,
    "affine": 12,
}
_SHEARS = ((0, 1), (0, 2), (1, 2))


@dataclass(frozen=True, eq=False)
class AffineParameters:
    """Parameters of ``B`` transforms, float64.

    rotation: ``[B, 3, 3]``. translation_mm, log_scales: ``[B, 3]``. shears: ``[B, 3]``, the entries
    01, 02 and 12 of ``K``.
    """

    rotation: Tensor
    translation_mm: Tensor
    log_scales: Tensor
    shears: Tensor

    @classmethod
    def rigid(cls, rotation: Tensor, translation_mm: Tensor) -> "AffineParameters":
        """A rotation ``[B, 3, 3]`` and a translation ``[B, 3]``, no scale and no shear."""
        none = torch.zeros_like(translation_mm)
        return cls(rotation, translation_mm, none, none)

    def linear(self) -> Tensor:
        """``A``, ``[B, 3, 3]``."""
        return self.rotation @ self._sheared() * self.log_scales.exp()[:, None, :]

    def matrix(self, center_mm: Tensor) -> Tensor:
        """``[B, 4, 4]``: fixed world mm -> moving world mm, for centres ``[B, 3]``."""
        matrix = torch.eye(4, dtype=torch.float64, device=center_mm.device)
        matrix = matrix.repeat(len(center_mm), 1, 1)
        linear = self.linear()
        matrix[:, :3, :3] = linear
        turned = (linear @ center_mm[:, :, None])[:, :, 0]
        matrix[:, :3, 3] = center_mm + self.translation_mm - turned
        return matrix

    def derivative(self, transform: Transform) -> Tensor:
        """Of the 9 entries of ``A``, row by row, and ``t`` by the step: ``[B, 12, n]``."""
        linear, count = self.linear(), len(self.rotation)
        axes = torch.eye(3, dtype=linear.dtype, device=linear.device)
        columns = [_skew(axis) @ linear for axis in axes]
        scales = [_only_column(linear, axis) for axis in range(3)]
        if transform == "similarity":
            columns.append(scales[0] + scales[1] + scales[2])
        elif transform in ("scaling", "affine"):
            columns.extend(scales)
        if transform == "affine":
            scale = self.log_scales.exp()
            for row, column in _SHEARS:
                sheared = torch.zeros_like(linear)
                sheared[:, :, column] = self.rotation[:, :, row] * scale[:, None, column]
                columns.append(sheared)
        of_linear = torch.stack(columns, dim=-1).reshape(count, 9, -1)
        whole = linear.new_zeros(count, 12, of_linear.shape[2] + 3)
        whole[:, :9, :3] = of_linear[:, :, :3]
        whole[:, 9:, 3:6] = torch.eye(3, dtype=linear.dtype, device=linear.device)
        whole[:, :9, 6:] = of_linear[:, :, 3:]
        return whole

    def stepped(self, step: Tensor, transform: Transform) -> "AffineParameters":
        """After a step ``[B, n]``: rotation vector, translation, then log scales, then shears."""
        log_scales, shears = self.log_scales, self.shears
        if transform == "similarity":
            log_scales = log_scales + step[:, 6:7]
        elif transform in ("scaling", "affine"):
            log_scales = log_scales + step[:, 6:9]
        if transform == "affine":
            shears = shears + step[:, 9:12]
        rotation = torch.linalg.matrix_exp(_skew(step[:, :3])) @ self.rotation
        return AffineParameters(rotation, self.translation_mm + step[:, 3:6], log_scales, shears)

    def where(self, chosen: Tensor, other: "AffineParameters") -> "AffineParameters":
        """These parameters for the rows that are ``chosen [B]``, the others' elsewhere."""
        rows = chosen[:, None]
        return AffineParameters(
            torch.where(rows[:, :, None], self.rotation, other.rotation),
            torch.where(rows, self.translation_mm, other.translation_mm),
            torch.where(rows, self.log_scales, other.log_scales),
            torch.where(rows, self.shears, other.shears),
        )

    def _sheared(self) -> Tensor:
        sheared = torch.zeros_like(self.rotation)
        sheared[:, (0, 1, 2), (0, 1, 2)] = 1.0
        for index, (row, column) in enumerate(_SHEARS):
            sheared[:, row, column] = self.shears[:, index]
        return sheared


def rotation_of(vectors: Tensor) -> Tensor:
    """Rotations ``[B, 3, 3]`` by rotation vectors ``[B, 3]`` in radians."""
    return torch.linalg.matrix_exp(_skew(vectors))


def _only_column(matrix: Tensor, column: int) -> Tensor:
    kept = torch.zeros_like(matrix)
    kept[:, :, column] = matrix[:, :, column]
    return kept


def _skew(vectors: Tensor) -> Tensor:
    """The matrices ``[..., 3, 3]`` whose product with y is ``vectors x y``."""
    x, y, z = vectors.unbind(dim=-1)
    none = torch.zeros_like(x)
    rows = [none, -z, y, z, none, -x, -y, x, none]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
