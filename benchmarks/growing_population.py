"""Two groups of heads of which one has grown inside a ball, and the volume changes that are true.

A subject's point y shows the phantom's point ``g^-1(phi(y))``: ``phi`` is the subject's own smooth
random diffeomorphism, and ``g`` stretches a ball of the grown group evenly about its centre, by
``growth`` in volume, and falls off to nothing between two radii. The template of all subjects lies
where the phantom's points lie on average, and from there ln det J to each subject is known.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import map_coordinates

from cohort.data.geometry import Grid
from cohort.data.phantom import FIELD_OF_VIEW_MM, sample_head
from cohort.data.store import CohortStore, Subject
from cohort.data.velocity import SmoothVelocity
from triton_reg import Displacement
from triton_reg.displacement import jacobian_determinant

_SEED = 7
_NOISE, _WHITE_MATTER = 0.02, 800.0
_BALL, BALL_LABEL = 0.35, 99  # its level, where white matter is near 1
_FINE = 4001  # radii in a table


@dataclass(frozen=True)
class Growth:
    """A ball that grows: `factor` in volume up to `radius_mm`, nothing from `end_mm` on."""

    factor: float
    center_mm: tuple[float, float, float]
    radius_mm: float
    end_mm: float

    def map(self, points: np.ndarray) -> np.ndarray:
        """Where points ``[3, n]`` in mm go."""
        return self._moved(points, *self._table())

    def inverse(self, points: np.ndarray) -> np.ndarray:
        """Where points ``[3, n]`` come from."""
        before, after = self._table()
        return self._moved(points, after, before)

    def radius(self, points: np.ndarray) -> np.ndarray:
        """Distance from the centre in mm, ``[n]``."""
        return np.linalg.norm(points - np.array(self.center_mm)[:, None], axis=0)

    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Radii before and after: even, then a cubic that ends flat."""
        radii = np.linspace(0, 2 * self.end_mm, _FINE)
        rate = self.factor ** (1 / 3) - 1
        width = self.end_mm - self.radius_mm
        t = np.clip((radii - self.radius_mm) / width, 0, 1)
        falling = (2 * t**3 - 3 * t**2 + 1) * self.radius_mm + (t**3 - 2 * t**2 + t) * width
        return radii, radii + rate * np.where(radii < self.radius_mm, radii, falling)

    def _moved(self, points: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        center = np.array(self.center_mm)[:, None]
        radius = np.maximum(self.radius(points), 1e-9)
        scale = np.where(radius < old[-1], np.interp(radius, old, new) / radius, 1.0)
        return center + (points - center) * scale


@dataclass(frozen=True)
class GrowingPopulation:
    """Half of the subjects, ``b-...``, have grown, the others, ``a-...``, have not.

    Attributes:
        each: subjects a group.
        size, spacing_mm: of the cubic grid.
        ball: what grows in the second group; a factor of 1 makes the groups alike.
        visible: whether the ball is a structure with an edge, or any tissue that lies there.
        deformation_mm: root mean square of everyone's own velocity.
    """

    each: int
    size: int
    spacing_mm: float
    ball: Growth
    visible: bool = True
    deformation_mm: float = 2.0

    @property
    def grid(self) -> Grid:
        """Of all volumes; world zero is in the middle."""
        return Grid.axis_aligned((self.size,) * 3, [self.spacing_mm] * 3, np.zeros(3))

    @property
    def subjects(self) -> dict[str, int]:
        """Ids, and 1 for the group that has grown."""
        both = [(f"a-{one:02d}", 0) for one in range(self.each)]
        return dict(both + [(f"b-{one:02d}", 1) for one in range(self.each)])

    def write(self, path: Path) -> CohortStore:
        """Commit everyone to a new store."""
        store = CohortStore.create(path, self.grid, settings={})
        for number, (subject_id, grown) in enumerate(self.subjects.items()):
            volume, labels = self._head(number, grown)
            subject = Subject(subject_id, volume, labels=labels)
            store.commit(subject, {"source": None})
        return store

    def write_design(self, path: Path) -> Path:
        """The groups as a table."""
        rows = [f"{name},{grown}" for name, grown in self.subjects.items()]
        path.write_text("\n".join(["subject,group", *rows, ""]))
        return path

    @cached_property
    def phantom_points(self) -> np.ndarray:
        """float64 ``[3, D, H, W]`` mm: where the phantom's point of each template point lies."""
        points = self._points
        mean = np.mean(list(self._positions()), axis=0) - points
        field = torch.from_numpy((mean / self.spacing_mm).reshape(1, 3, *self.grid.shape)).float()
        forth = Displacement(field, self.grid.shape, self.grid.shape)
        back = forth.inverse(iterations=60, tolerance=1e-3).displacement.vectors[0].numpy()
        return (points + self.spacing_mm * back.reshape(3, -1)).reshape(3, *self.grid.shape)

    def true_maps(self) -> Iterator[np.ndarray]:
        """ln det J of template -> subject, each ``[D, H, W]`` on the template's grid."""
        voxels = self.grid.world_to_voxel(self.phantom_points.reshape(3, -1).T).T
        mean = _log_det(self.phantom_points, self.spacing_mm)
        for moved in self._positions():
            values = _log_det(moved.reshape(3, *self.grid.shape), self.spacing_mm)
            there = map_coordinates(values, voxels, order=1, mode="nearest")
            yield there.reshape(self.grid.shape) + mean

    @property
    def _points(self) -> np.ndarray:
        return self.grid.voxel_to_world(np.indices(self.grid.shape).reshape(3, -1).T).T

    def _positions(self) -> Iterator[np.ndarray]:
        """Where each of the phantom's points lies in each subject, ``[3, n]`` mm."""
        for number, grown in enumerate(self.subjects.values()):
            points = self._points
            if grown:
                points = self.ball.map(points)
            velocity = self._velocity(number)
            yield points + self._flow(-velocity, points)

    def _head(self, number: int, grown: int) -> tuple[np.ndarray, np.ndarray]:
        points = self._points
        points = points + self._flow(self._velocity(number), points)
        if grown:
            points = self.ball.inverse(points)
        scale = float((np.array(FIELD_OF_VIEW_MM) / self.grid.extent_mm()).max())
        level, labels = sample_head(points * scale, edge_mm=0.4 * self.spacing_mm * scale)
        if self.visible:
            depth = self.ball.radius_mm - self.ball.radius(points)
            share = np.clip(0.5 + depth / (0.8 * self.spacing_mm), 0, 1)
            level = level + share * (_BALL - level)
            labels = np.where(depth > 0, BALL_LABEL, labels)
        rng = np.random.default_rng((_SEED, number, 1))
        noisy = level + _NOISE * rng.standard_normal(level.shape)
        shape = self.grid.shape
        volume = (_WHITE_MATTER * noisy.reshape(shape)).astype(np.float32)
        return volume, labels.reshape(shape).astype(np.uint16)

    def _velocity(self, number: int) -> SmoothVelocity:
        rng = np.random.default_rng((_SEED, number))
        return SmoothVelocity.draw(rng, self.grid.extent_mm(), self.deformation_mm)

    def _flow(self, velocity: SmoothVelocity, points: np.ndarray) -> np.ndarray:
        """``[3, n]`` mm, by cubic splines between every second voxel: it is that smooth."""
        half = self.grid.resampled((self.size // 2,) * 3)
        coarse = half.voxel_to_world(np.indices(half.shape).reshape(3, -1).T)
        found = velocity.flow(coarse).T.reshape(3, *half.shape)
        voxels = half.world_to_voxel(points.T).T
        return np.stack([map_coordinates(one, voxels, order=3, mode="nearest") for one in found])


def _log_det(positions_mm: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Of a map that is given on a grid ``[3, D, H, W]``; at the border that next to it."""
    voxels = positions_mm / spacing_mm
    moved = torch.from_numpy(voxels - np.indices(voxels.shape[1:]))[None]
    return np.pad(np.log(jacobian_determinant(moved)[0].numpy()), 1, mode="edge")
