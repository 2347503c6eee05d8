"""Where voxels lie: grids, and the step between voxels and RAS millimetres.

Points are arrays ``[..., 3]``. Voxel coordinates follow the array axes (D, H, W), nibabel's
i, j, k; world coordinates are millimetres, to the right, to the front, up (RAS).
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import (
    aff2axcodes,
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from cohort.data.affine_checks import affine_fault, shear
from cohort.errors import UsageError

_GRID = re.compile(r"(\d+)x(\d+)x(\d+)@(\d*\.?\d+)(?:x(\d*\.?\d+)x(\d*\.?\d+))?(?:mm)?")
_GRID_HELP = "a grid is SHAPE@SPACING, for example 96x112x96@2mm or 96x112x96@2x2x2.5mm"
_MAX_VOXELS = 2**31
_OPPOSITES = ("LR", "PA", "IS")
_MAX_AXIS_TILT = 1e-3  # sine of the angle; rounding in a header stays below it


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
            raise ValueError(f"grid: {fault.found}")
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

    @property
    def axcodes(self) -> str:
        """Where the array axes lead, such as ``LPS``: the nearest axes of the world."""
        return "".join(map(str, aff2axcodes(self.affine)))

    @property
    def is_right_handed(self) -> bool:
        """Whether the array axes are a rotation of the world's; else their mirror image."""
        return bool(np.linalg.det(self.affine[:3, :3]) > 0)

    @property
    def is_oblique(self) -> bool:
        """Whether the array axes are tilted against those of the world."""
        cosines = np.sort(np.abs(self.affine[:3, :3]) / self.spacing_mm, axis=0)
        return bool(np.linalg.norm(cosines[:2], axis=0).max() > _MAX_AXIS_TILT)

    @property
    def shear(self) -> float:
        """How far the array axes are from orthogonal: the largest absolute cosine of two."""
        return shear(self.affine)

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

    def resampled(self, shape: tuple[int, int, int]) -> "Grid":
        """A grid of ``shape`` with the same corner voxels; each size of 1 keeps its first."""
        steps = [
            (old - 1) / (new - 1) if new > 1 else 1.0
            for old, new in zip(self.shape, shape, strict=True)
        ]
        return Grid(shape, self.affine @ np.diag([*steps, 1.0]))

    def cropped(self, start: npt.ArrayLike, stop: npt.ArrayLike) -> "Grid":
        """The box of voxels from ``start [3]`` up to but without ``stop [3]``, where it lies."""
        first, last = np.asarray(start, dtype=int), np.asarray(stop, dtype=int)
        if (first < 0).any() or (first >= last).any() or (last > self.shape).any():
            raise ValueError(
                f"grid: need a box inside of {self.shape} with a voxel per axis, got "
                f"{first.tolist()} to {last.tolist()}"
            )
        affine = self.affine.copy()
        affine[:3, 3] = self.voxel_to_world(first)
        depth, height, width = (last - first).tolist()
        return Grid((depth, height, width), affine)

    def oriented(self, axcodes: str) -> "Grid":
        """The same voxels with array axes that lead to ``axcodes``, such as ``LPS``.

        `reorder` brings the values along.
        """
        turn = self._turn(axcodes)
        depth, height, width = (self.shape[axis] for axis in np.argsort(turn[:, 0]))
        return Grid((depth, height, width), self.affine @ inv_ornt_aff(turn, self.shape))

    def reorder(self, values: np.ndarray, axcodes: str) -> np.ndarray:
        """Values ``[D, H, W, ...]`` of this grid as ``oriented(axcodes)`` has them; a view."""
        if values.shape[:3] != self.shape:
            raise ValueError(f"grid: need values of shape {self.shape}, got {values.shape[:3]}")
        return apply_orientation(values, self._turn(axcodes))

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

    def _turn(self, axcodes: str) -> np.ndarray:
        """nibabel's ``[3, 2]``: which axis each array axis becomes, and which way."""
        letters = axcodes.upper()
        if len(letters) != 3 or any(len(set(pair) & set(letters)) != 1 for pair in _OPPOSITES):
            raise ValueError(
                f"grid: need one letter each of {', '.join(_OPPOSITES)}, got {axcodes!r}"
            )
        return ornt_transform(io_orientation(self.affine), axcodes2ornt(letters))


def ras_to_lps(points: npt.ArrayLike) -> np.ndarray:
    """RAS mm ``[..., 3]`` as the LPS mm of ITK and DICOM, and back: two axes change their sign."""
    return np.asarray(points) * np.array([-1.0, -1.0, 1.0])


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
