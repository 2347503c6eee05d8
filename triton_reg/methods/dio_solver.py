"""The stages and levels of DIO's optimisation, for a few pairs at once."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from triton_reg.method import Prompts
from triton_reg.methods.amplitude import at_unit_amplitude
from triton_reg.methods.descent import (
    Course,
    Parametrisation,
    Problem,
    descend,
    step_cosine,
)
from triton_reg.methods.dio_prompts import prompt_forces
from triton_reg.methods.dio_refinement import refined
from triton_reg.methods.dio_settings import LINEAR, DescentSettings, Transform, Units
from triton_reg.methods.implicit import without_gradients
from triton_reg.methods.level_grids import LevelGrid, between, placement_on
from triton_reg.methods.parametrisations import Linear, Spline, Velocity
from triton_reg.methods.prompt_terms import PromptWeights
from triton_reg.methods.regularisers import Regularisers
from triton_reg.ops.advance import Moments, Vector
from triton_reg.ops.feature_force import ForceSettings
from triton_reg.ops.resize import Shape
from triton_reg.ops.sampling import positions_of, sampled_with_slopes


class SolverSettings(Protocol):
    """What the solver asks of :class:`triton_reg.methods.dio.DIO`, which says what it means."""

    @property
    def transform(self) -> Transform: ...
    @property
    def first(self) -> Transform | None: ...
    @property
    def level_factors(self) -> tuple[int, ...]: ...
    @property
    def iterations(self) -> tuple[int, ...]: ...
    @property
    def force(self) -> ForceSettings: ...
    @property
    def descent(self) -> DescentSettings: ...
    @property
    def regularisers(self) -> Regularisers: ...
    @property
    def prompt_weights(self) -> PromptWeights: ...
    @property
    def spline_spacing(self) -> float: ...
    @property
    def voxel(self) -> Vector: ...


class Sides(NamedTuple):
    """One side, fixed or moving, of a few pairs.

    Attributes:
        levels: features ``[B, C, *level]``, coarsest first.
        masks: ``[B, 1, *level]`` of each level; none where everything counts.
        shape: of the volume.
        volumes: ``[B, 1, *level]``, windowed, of each level, where steps are to be compared with
            their gradients; none otherwise.
    """

    levels: Sequence[Tensor]
    masks: Sequence[Tensor]
    shape: Shape
    volumes: Sequence[Tensor] = ()


class Solution(NamedTuple):
    """Displacement ``[B, 3, d, h, w]`` in moving voxels, and how each level went."""

    vectors: Tensor
    extras: Mapping[str, Tensor]


class Solver:
    """The optimisation of a few pairs, stage by stage and level by level."""

    def __init__(
        self, settings: SolverSettings, fixed: Sides, moving: Sides, prompts: Prompts | None
    ) -> None:
        if settings.descent.units == "voxel" and settings.force.loss == "mse":
            levels = at_unit_amplitude(fixed.levels, moving.levels)
            fixed, moving = (
                one._replace(levels=own) for one, own in zip((fixed, moving), levels, strict=True)
            )
        self.settings, self.fixed, self.moving, self.prompts = settings, fixed, moving, prompts
        self.grids = [LevelGrid.over(fixed.shape, factor) for factor in settings.level_factors]
        rigid = "rigid" in (settings.first, settings.transform)
        self.matrix = start_matrix(fixed, moving, settings.descent.units, rigid=rigid)
        self.courses: list[Course] = []
        self.cosines: list[Tensor] = []

    def solve(self) -> Solution:
        """The displacement of all stages together, without gradients."""
        # an autocast of the caller would round positions to 16 bits
        with torch.autocast(self.matrix.device.type, enabled=False), torch.no_grad():
            found = self._solved()
        vectors = without_gradients(found.vectors, *self.fixed.levels, *self.moving.levels)
        return found._replace(vectors=vectors)

    def _solved(self) -> Solution:
        own = self.settings
        if own.first is not None:
            self._linear(own.first)
        if own.transform in LINEAR:
            self._linear(own.transform)
            return self._solution(None)
        return self._solution(self._field())

    def _linear(self, kind: Transform) -> None:
        """Find an affine or rigid map, and put it before what the matrix was."""
        shape, voxel = self.fixed.shape, self.settings.voxel
        start = Linear(self.grids[0], shape, kind, voxel)
        parameters = self.fixed.levels[0].new_zeros(len(self.matrix), 3, start.columns, 1, 1)
        moments = Moments.of(parameters)
        for level, grid in enumerate(self.grids):
            parametrisation = Linear(grid, shape, kind, voxel)
            parameters = self.descend(level, kind, parametrisation, parameters, moments).parameters
        found = Linear(self.grids[-1], shape, kind, voxel).matrix(parameters)
        linear, shift = self.matrix[..., :3], self.matrix[..., 3:]
        self.matrix = torch.cat([linear @ found[..., :3], linear @ found[..., 3:] + shift], dim=2)

    def _field(self) -> Tensor:
        """Vectors ``[B, 3, D, H, W]`` in fixed voxels, to be followed by the matrix."""
        own, transform = self.settings, self.settings.transform
        whole = LevelGrid(self.fixed.shape, 1)
        smallest = min(own.voxel)
        depth, height, width = (own.spline_spacing * smallest / size for size in own.voxel)
        spacing = depth, height, width
        vectors = parameters = self.fixed.levels[0].new_zeros(
            len(self.matrix), 3, *self.grids[0].shape
        )
        if transform == "bspline":
            count = Spline(whole, spacing).control_shape(self.fixed.shape)
            parameters = vectors.new_zeros(len(vectors), 3, *count)
        moments = Moments.of(parameters)
        for level, grid in enumerate(self.grids):
            parametrisation = None
            if transform == "bspline":
                parametrisation = Spline(grid, spacing)
            elif level:
                parameters, moments = refined(
                    parameters, moments, self.grids[level - 1], grid, own.descent.units
                )
            if transform == "svf":
                parametrisation = Velocity()
            course = self.descend(level, transform, parametrisation, parameters, moments)
            parameters = course.parameters
            vectors = parametrisation.vectors(parameters) if parametrisation else parameters
        last = self.grids[-1]
        return between(vectors, last, whole) * last.factor

    def descend(
        self,
        level: int,
        transform: Transform,
        parametrisation: Parametrisation | None,
        parameters: Tensor,
        moments: Moments,
    ) -> Course:
        """One level; see :func:`triton_reg.methods.descent.descend`."""
        own, grid = self.settings, self.grids[level]
        placement = placement_on(self.matrix, grid)
        forces = prompt_forces(self.prompts, grid, placement, own.voxel, own.prompt_weights)
        smooth = None if transform in LINEAR else own.regularisers.force(own.voxel)
        vectors = parametrisation.vectors(parameters) if parametrisation else parameters
        problem = Problem(
            self.fixed.levels[level],
            self.moving.levels[level],
            placement,
            own.force,
            self._weights(level, placement, vectors),
            (*forces, *([] if smooth is None else [smooth])),
        )
        course = descend(
            problem,
            parametrisation,
            parameters,
            moments,
            own.descent.step(transform, grid, own.voxel, own.force.loss),
            own.iterations[level],
            own.descent.rule,
        )
        self.courses.append(course)
        if self.moving.volumes:
            vectors = course.parameters
            vectors = parametrisation.vectors(vectors) if parametrisation else vectors
            self.cosines.append(step_cosine(problem, vectors, self.moving.volumes[level]))
        return course

    def _weights(self, level: int, placement: Tensor, vectors: Tensor) -> Tensor | None:
        """How much of each fixed voxel, and of where it starts to lead, is inside the masks."""
        if not self.fixed.masks:
            return None
        positions = positions_of(vectors, placement)
        inside = sampled_with_slopes(self.moving.masks[level], positions, "linear").values
        return self.fixed.masks[level] * inside

    def _solution(self, vectors: Tensor | None) -> Solution:
        """Displacements; of a linear map alone, at the corners of the fixed volume."""
        shape, device = self.fixed.shape, self.matrix.device
        corner = [torch.tensor([0, size - 1], device=device) for size in shape]
        every = [torch.arange(size, device=device) for size in shape]
        axes = corner if vectors is None else every
        voxels = torch.stack(torch.meshgrid(*axes, indexing="ij")).to(self.matrix)
        sizes = zip(shape, self.moving.shape, strict=True)
        scale = self.matrix.new_tensor([(m - 1) / max(f - 1, 1) for f, m in sizes])
        source = voxels if vectors is None else voxels + vectors
        moved = torch.einsum("bij,...jzyx->bizyx", self.matrix[..., :3], source)
        moved = moved + self.matrix[..., 3].view(-1, 3, 1, 1, 1)
        extras = {
            "iterations": torch.stack([one.iterations for one in self.courses], dim=1),
            "converged": torch.stack([one.converged for one in self.courses], dim=1),
            "loss": torch.stack([one.loss for one in self.courses], dim=1),
            "gradient_ratio": torch.stack([one.gradient_ratio for one in self.courses], dim=1),
        }
        if self.cosines:
            extras["step_cosine"] = torch.stack(self.cosines, dim=1)
        return Solution(moved - scale.view(1, 3, 1, 1, 1) * voxels, extras)


def start_matrix(fixed: Sides, moving: Sides, units: Units, *, rigid: bool = False) -> Tensor:
    """Where fixed voxels lie at first, ``[B, 3, 4]``: corner voxels on corner voxels.

    In published units it is the outer faces that lie on each other, which for volumes of one size
    is the same. A rigid map could not undo the stretch of either: where one begins, it is centre
    on centre, with voxels as large as voxels.
    """
    matrix = fixed.levels[0].new_zeros(len(fixed.levels[0]), 3, 4)
    for axis, (own, other) in enumerate(zip(fixed.shape, moving.shape, strict=True)):
        if rigid:
            matrix[:, axis, axis] = 1
            matrix[:, axis, 3] = (other - own) / 2
        elif units == "published":
            matrix[:, axis, axis] = other / own
            matrix[:, axis, 3] = (other / own - 1) / 2
        else:
            matrix[:, axis, axis] = (other - 1) / max(own - 1, 1)
    return matrix
