"""Where voxels lie: grids, and the step between voxels and RAS millimetres.

Points are arrays ``[..., 3]``. Voxel coordinates follow the array axes (D, H, W), nibabel's
i, j, k; world coordinates are millimetres, to the right, to the front, up (RAS).
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cohort.errors import UsageError

_GRID = re.compile(r"(\d+)x(\d+)x(\d+)@(\d*\.?\d+)(?:x(\d*\.?\d+)x(\d*\.?\d+))?(?:mm)?")
_GRID_HELP = "a grid is SHAPE@SPACING, for example 96x112x96@2mm or 96x112x96@2x2x2.5mm"
_MAX_VOXELS = 2**31


@dataclass(frozen=True, eq=False)
class Grid:
    """A box of voxels in the world.

    shape: (D, H, W). affine: ``[4, 4]`` float64, voxel -> RAS mm; copied, then read-only.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"grid: shape must be three sizes of at least 1, got {self.shape}")
        affine = np.array(self.affine, dtype=np.float64)
        fault = affine_fault(affine)
        if fault:
            raise ValueError(f"grid: {fault}")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def axis_aligned(
        cls, shape: tuple[int, int, int], spacing_mm: npt.ArrayLike, center_mm: npt.ArrayLike
    ) -> "Grid":
        """The RAS grid of this shape and spacing whose centre lies at ``center_mm``."""
        affine = np.diag([*np.asarray(spacing_mm, dtype=np.float64), 1.0])
        return cls(shape, affine).centered_on(center_mm)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Grid":
        """The grid that `to_json` described."""
        return cls(tuple(document["shape"]), np.asarray(document["affine"]))

    def to_json(self) -> dict[str, Any]:
        """``{"shape": [...], "affine": [[...]]}``; floats keep every bit."""
        return {"shape": list(self.shape), "affine": self.affine.tolist()}

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The step along each array axis."""
        first, second, third = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(first), float(second), float(third)

    @property
    def center_mm(self) -> np.ndarray:
        """World position ``[3]`` of the middle between the corner voxels."""
        return self.voxel_to_world((np.asarray(self.shape) - 1) / 2)

    def voxel_to_world(self, points: npt.ArrayLike) -> np.ndarray:
        """Voxel coordinates ``[..., 3]`` to RAS mm."""
        return np.asarray(points) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def world_to_voxel(self, points: npt.ArrayLike) -> np.ndarray:
        """RAS mm ``[..., 3]`` to voxel coordinates."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(points) @ inverse[:3, :3].T + inverse[:3, 3]

    def centered_on(self, center_mm: npt.ArrayLike) -> "Grid":
        """This grid, moved so that its centre lies at ``center_mm``."""
        affine = self.affine.copy()
        affine[:3, 3] += np.asarray(center_mm, dtype=np.float64) - self.center_mm
        return Grid(self.shape, affine)

    def corners(self) -> np.ndarray:
        """Voxel coordinates ``[8, 3]`` of the corner voxels."""
        return np.stack(np.meshgrid(*[(0, size - 1) for size in self.shape]), axis=-1).reshape(
            -1, 3
        )

    def extent_mm(self) -> np.ndarray:
        """Size ``[3]`` along the world axes of the box that holds every voxel, edges included."""
        corners = self.voxel_to_world(self.corners())
        return np.ptp(corners, axis=0) + np.abs(self.affine[:3, :3]).sum(axis=1)

    def distance(self, other: "Grid") -> float:
        """Largest distance between two grids' corner voxels, in voxels; inf if shapes differ."""
        if self.shape != other.shape:
            return float("inf")
        corners = self.corners()
        moved = self.world_to_voxel(other.voxel_to_world(corners))
        return float(np.abs(moved - corners).max())


def affine_fault(affine: np.ndarray) -> str | None:
    """What keeps ``affine`` from placing voxels in the world, or None."""
    if affine.shape != (4, 4):
        return f"affine must be 4 x 4, got {' x '.join(map(str, affine.shape))}"
    if not np.isfinite(affine).all():
        return f"affine must be finite, got {affine.tolist()}"
    if not np.allclose(affine[3], (0, 0, 0, 1)):
        return f"the last row of an affine must be 0 0 0 1, got {affine[3].tolist()}"
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    # relative to the voxel size, so that micrometres are as good as metres
    if (lengths == 0).any() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-6:
        return f"affine must be invertible, got {affine[:3].tolist()}"
    return None


def parse_grid(text: str) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Shape and spacing in mm from ``96x112x96@2mm`` or ``96x112x96@2x2x2.5mm``."""
    match = _GRID.fullmatch(text.strip())
    if match is None:
        raise UsageError("E_GRID", f"cannot read grid {text!r}: {_GRID_HELP}")
    depth, height, width, first, second, third = match.groups()
    shape = (int(depth), int(height), int(width))
    spacing_mm = (float(first), float(second or first), float(third or first))
    if min(shape) < 1 or min(spacing_mm) <= 0:
        raise UsageError(
            "E_GRID", f"grid {text!r} has an empty axis or no spacing: need sizes and mm above 0"
        )
    voxels = shape[0] * shape[1] * shape[2]
    if voxels >= _MAX_VOXELS:
        raise UsageError(
            "E_GRID", f"grid {text!r} has {voxels} voxels: need fewer than {_MAX_VOXELS}"
        )
    return shape, spacing_mm
