"""VoxelOpt with soft argmins: the method that a feature network is trained through."""

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from triton_reg.displacement import Displacement
from triton_reg.method import Features, Prompts, Result
from triton_reg.methods.checks import (
    check_on_grid,
    check_pairs,
    check_same_grid,
    checked_volume,
    refuse_prompts,
)
from triton_reg.methods.pyramid import (
    cropped,
    features_of,
    halved,
    level_count,
    masked_pyramid,
    padded,
)
from triton_reg.methods.voxelopt import VoxelOpt
from triton_reg.ops.resize import grid_shape, resize_reference
from triton_reg.ops.soft_level import register_soft_level

# part of the fingerprint: raise it with any change of the arithmetic that changes results
_ARITHMETIC = 1


@dataclass(frozen=True, kw_only=True)
class SoftVoxelOpt:
    """VoxelOpt whose displacement has gradients with respect to the features of both subjects.

    Zhang et al., MICCAI 2025, with the argmin over displacement labels replaced by the expected
    label of a softmax: low temperatures come close to :class:`VoxelOpt` and give gradients to few
    voxels, high ones give gradients to all and blur the search. Nothing is detached: gradients
    run through the cost volumes, their entropy and the filter that it widens, the integration, the
    composition and the warps of every level, down to the coarsest. It is plain torch, several times
    slower than :class:`VoxelOpt`; train with this one, register with that one.

    Couplings far above the temperature round displacements to whole voxels, hard or soft, and
    hardly any gradient passes: train with a schedule that ends near the temperature.

    Attributes:
        voxelopt: every other setting, with an extractor whose features may have gradients, such as
            ``NetworkFeatures(network, trainable=True)``.
        temperature: of the softmax, in units of the cost, which is a mean absolute feature
            difference.
        recompute: whether the backward pass computes each solve once more rather than keep what it
            made on the way: with two solves a level a third less memory and half as much time
            again, with more solves less still; the same gradients.
    """

    voxelopt: VoxelOpt = field(default_factory=VoxelOpt)
    temperature: float = 0.02
    recompute: bool = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"SoftVoxelOpt: temperature must be above 0, got {self.temperature}")

    @property
    def fingerprint(self) -> str:
        """A digest of every setting and of the version of the arithmetic."""
        said = f"voxelopt-soft {_ARITHMETIC} {self.voxelopt!r} {self.temperature!r}"
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()

    def prepare(self, volume: Tensor, mask: Tensor) -> Features:
        """Feature pyramids as :meth:`VoxelOpt.prepare` makes them, with the extractor's gradients.

        Raises:
            ValueError: as :meth:`VoxelOpt.prepare` does.
        """
        volume = checked_volume("SoftVoxelOpt", volume, mask)
        finest = self.voxelopt.features(volume, mask)
        check_on_grid("SoftVoxelOpt", finest, volume)
        inside = (mask > 0).to(finest.dtype)
        shape = halved(finest) if self.voxelopt.downsample == 2 else grid_shape(finest)
        levels = level_count(shape, self.voxelopt.levels)
        if self.voxelopt.downsample == 2:
            finest, inside = (resize_reference(one, shape) for one in (finest, inside))
        if self.voxelopt.level.masked:
            first, *others = masked_pyramid(finest, inside, levels, resize_reference)
            return cropped(first, shape), *others
        pyramid = [finest]
        level = padded(finest, levels)
        for _ in range(levels - 1):
            level = resize_reference(level, halved(level))
            pyramid.append(level)
        return tuple(pyramid)

    def register(
        self, fixed: Features, moving: Features, pairs: Tensor, prompts: Prompts | None = None
    ) -> Result:
        """Register pairs of prepared subjects; arguments and result as :meth:`VoxelOpt.register`.

        Raises:
            TypeError, ValueError: as :meth:`VoxelOpt.register` does.
        """
        refuse_prompts("SoftVoxelOpt", prompts)
        check_same_grid("SoftVoxelOpt", fixed, moving)
        check_pairs("SoftVoxelOpt", pairs, fixed, moving)
        # an autocast of the caller would round displacements to 16 bits
        with torch.autocast(fixed[0].device.type, enabled=False):
            displacement, entropy = self._register_levels(fixed, moving, pairs)
        shape = grid_shape(fixed[0])
        return Result(
            Displacement(cropped(displacement, shape), shape, shape),
            {"entropy": cropped(entropy, shape)},
        )

    def _register_levels(
        self, fixed: Features, moving: Features, pairs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Displacement and entropy on the padded grid, level by level."""
        displacement = entropy = None
        for level in reversed(range(len(fixed))):
            target, source = features_of(fixed, moving, pairs, level)
            if displacement is not None:
                # twice as far on twice as many voxels, as in upsample_twice
                displacement = 2 * resize_reference(displacement, grid_shape(target))
            for _ in range(self.voxelopt.solves[min(level, len(self.voxelopt.solves) - 1)]):
                displacement, entropy = self._solve(target, source, displacement)
        assert displacement is not None
        assert entropy is not None
        return displacement, entropy

    def _solve(
        self, fixed: Tensor, moving: Tensor, displacement: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        own = self.voxelopt.level, self.temperature, self.voxelopt.squarings
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(
                register_soft_level, fixed, moving, displacement, *own, use_reentrant=False
            )
        return register_soft_level(fixed, moving, displacement, *own)
