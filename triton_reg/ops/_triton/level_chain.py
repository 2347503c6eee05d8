"""The chain of launches that a pyramid level of VoxelOpt is on a GPU, each over a whole batch.

The definition stands in ``ops/solve_level.py``. With ``precision="fast"`` the features, the
filter's weights and the centred cost volume are stored in fp16 and all arithmetic is float32: half
the bytes of a chain that waits for memory. ``precision="exact"`` stores float32 throughout. Search
radius 2 and 3, and wide filters of the cost volume, take float32 kernels at either precision.
"""

from functools import lru_cache

import torch
from torch import Tensor

from triton_reg.ops._triton.adaptive_filter import Sides, adaptive_filter, filter_codes
from triton_reg.ops._triton.compose import compose, integrate
from triton_reg.ops._triton.cost_entropy import (
    Entropy,
    cost_entropy,
    cost_entropy_wide,
    entropy_blocks,
)
from triton_reg.ops._triton.coupled_argmin import code_bits, coupled_argmin
from triton_reg.ops._triton.filter_weights import entropy_range, entropy_weights
from triton_reg.ops._triton.layout import PACKED_LABELS, Lines
from triton_reg.ops._triton.warp import upsample_and_warp, warp_features
from triton_reg.ops._triton.workspace import Arena, LevelPlan


class LevelChain:
    """The launches of one level for a fixed number of pairs, on memory that stays where it is.

    Nothing in it waits for the GPU or depends on what tensors hold, so that it can be captured.

    Attributes:
        fixed, moving: to be filled: addresses ``[B]`` of the subjects' features.
        coarse: to be filled: the known displacement ``[B, 3, d, h, w]``; None if there is none.
    """

    def __init__(self, plan: LevelPlan, pairs: int, arena: Arena) -> None:
        self.plan, voxels, level = plan, plan.voxels, plan.level
        self.fixed = arena.take(pairs, dtype=torch.int64)
        self.moving = arena.take(pairs, dtype=torch.int64)
        grid = plan.coarse_shape
        self.coarse = grid and arena.take(pairs, 3, *grid, dtype=torch.float32)
        self._warped = arena.take(pairs, voxels, plan.padded, dtype=plan.dtype)
        self._warped_lines = Lines.of(self._warped, plan.shape, plan.channels)
        self._cost = self._take_cost(arena, pairs, level.radius)
        self._spare_cost = (
            self._take_cost(arena, pairs, level.radius) if level.filter_cost else None
        )
        self._entropy = self._take_entropy(arena, pairs)
        self._entropy_cost = None
        if plan.entropy_radius != level.radius and not plan.is_fused(plan.entropy_radius):
            self._entropy_cost = self._take_cost(arena, pairs, plan.entropy_radius)
        self._range = arena.take(pairs, 2, dtype=torch.float32)
        narrow = plan.is_packed and not level.is_wide
        kind = torch.float16 if narrow else torch.float32
        self._sides = arena.take(pairs, level.tap_radius, voxels, dtype=kind)
        kind = torch.int16 if level.radius == 1 else torch.int32
        self._codes = arena.take(pairs, voxels, dtype=kind)
        self._vectors = [arena.take(pairs, 3, voxels, dtype=torch.float32) for _ in range(4)]

    def launch(self) -> tuple[Tensor, Tensor]:
        """Warp, solve, integrate and compose, as often as the plan says.

        Returns:
            The displacement ``[B, 3, N]`` and the entropy ``[B, N]``, in the chain's own memory.
        """
        plan = self.plan
        fixed, moving = self._lines(self.fixed), self._lines(self.moving)
        source = self._warped_lines
        known, free = self._vectors[2:]
        if self.coarse is None:
            known.zero_()
            source = moving
        else:
            upsample_and_warp(moving, self.coarse, known, self._warped, plan.factor)
        for solve in range(plan.solves):
            if solve > 0:
                warp_features(moving, known, self._warped)
                source = self._warped_lines
            velocity, spare = self.solve(fixed, source)
            step, _ = integrate(velocity, plan.shape, plan.squarings, spare)
            compose(step, known, plan.shape, free)
            known, free = free, known
        return known, self._entropy.values

    def solve(self, fixed: Lines, moving: Lines) -> tuple[Tensor, Tensor]:
        """The velocity ``[B, 3, N]`` that a solve finds, and as much memory that is left over."""
        level, shape = self.plan.level, self.plan.shape
        self._find_cost_and_entropy(fixed, moving)
        sides = self._find_sides()
        cost = self._cost
        if self._spare_cost is not None:
            cost, _ = adaptive_filter(cost, shape, sides, level.passes, self._spare_cost)
        return self._coupled_argmins(cost, sides)

    @property
    def entropy(self) -> Tensor:
        """The entropy ``[B, N]`` in nats of the last solve."""
        return self._entropy.values

    def _lines(self, where: Tensor) -> Lines:
        plan = self.plan
        return Lines(where, plan.shape, plan.channels, plan.padded, plan.dtype)

    def _take_cost(self, arena: Arena, pairs: int, radius: int) -> Tensor:
        if radius == 1 and self.plan.is_packed:
            return arena.take(pairs, PACKED_LABELS, self.plan.voxels, dtype=torch.int32)
        return arena.take(pairs, (2 * radius + 1) ** 3, self.plan.voxels, dtype=torch.float32)

    def _take_entropy(self, arena: Arena, pairs: int) -> Entropy:
        plan = self.plan
        blocks = entropy_blocks(plan.voxels, plan.padded, plan.is_fused(plan.entropy_radius))
        values = arena.take(pairs, plan.voxels, dtype=torch.float32)
        return Entropy(values, arena.take(pairs, 2, blocks, dtype=torch.float32))

    def _find_cost_and_entropy(self, fixed: Lines, moving: Lines) -> None:
        """The cost volume of the level, with the entropy at the radius that it is wanted at."""
        level, wanted = self.plan.level, self.plan.entropy_radius
        radius, masked = level.radius, level.masked
        if self.plan.is_fused(radius):
            cost_entropy(fixed, moving, self._cost, self._entropy_of(radius))
        else:
            cost_entropy_wide(fixed, moving, self._cost, self._entropy_of(radius), masked)
        if self._entropy_cost is not None:
            cost_entropy_wide(fixed, moving, self._entropy_cost, self._entropy, masked)
        elif wanted != radius:
            cost_entropy(fixed, moving, None, self._entropy)

    def _entropy_of(self, radius: int) -> Entropy:
        """Where the kernel of the level's own radius writes; not wanted if it is another's."""
        if radius == self.plan.entropy_radius:
            return self._entropy
        # the wanted one overwrites the values; the other's ranges go where vectors will be
        return Entropy(self._entropy.values, self._vectors[0])

    def _find_sides(self) -> Sides:
        """Side weights of the level's filter."""
        level = self.plan.level
        if level.constant_sides is not None:
            return Sides(None, level.constant_sides)
        entropy_range(self._entropy.extremes, self._range)
        entropy_weights(self._entropy.values, self._range, level, self._sides)
        return Sides(self._sides)

    def _coupled_argmins(self, cost: Tensor, sides: Sides) -> tuple[Tensor, Tensor]:
        """The displacement ``[B, 3, N]`` after the schedule of argmins and filters."""
        level, shape = self.plan.level, self.plan.shape
        vectors, spare = self._vectors[:2]
        vectors.zero_()
        # the first pass reads codes; a wide filter cannot, and starts from an identity pass
        passes_of_codes = 0 if level.is_wide else min(level.passes, 1)
        first = sides if passes_of_codes else Sides(None)
        for coupling in (0.0, *level.couplings):
            coupled_argmin(cost, vectors, coupling, level.radius, self._codes)
            filter_codes(self._codes, shape, code_bits(level.radius), first, vectors)
            left = level.passes - passes_of_codes
            vectors, spare = adaptive_filter(vectors, shape, sides, left, spare)
        return vectors, spare


@lru_cache(maxsize=64)
def chain_bytes(plan: LevelPlan, pairs: int) -> int:
    """Memory that a chain for so many pairs works on."""
    counting = Arena()
    LevelChain(plan, pairs, counting)
    return counting.used_bytes
