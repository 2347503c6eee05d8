"""One pyramid level of VoxelOpt on a GPU: a chain of launches, each over the whole batch.

The definition stands in ``ops/solve_level.py``. With ``precision="fast"`` the features, the
filter's weights and the centred cost volume are stored in fp16 and all arithmetic is float32: half
the bytes of a chain that waits for memory. ``precision="exact"`` stores float32 throughout. Search
radius 2 and 3, and wide filters of the cost volume, take float32 kernels at either precision.
"""

import torch
from torch import Tensor

from triton_reg.ops._triton.adaptive_filter import Sides, adaptive_filter, filter_codes
from triton_reg.ops._triton.compose import compose, integrate
from triton_reg.ops._triton.cost_entropy import cost_entropy, cost_entropy_wide
from triton_reg.ops._triton.coupled_argmin import code_bits, coupled_argmin
from triton_reg.ops._triton.filter_weights import entropy_weights
from triton_reg.ops._triton.layout import channels_last
from triton_reg.ops._triton.warp import warp_features
from triton_reg.ops.level_settings import LevelSettings

Shape = tuple[int, int, int]


def solve_level(
    fixed: Tensor, moving: Tensor, level: LevelSettings, *, precision: str = "fast"
) -> tuple[Tensor, Tensor]:
    """Displacement that aligns ``moving``, already warped, to ``fixed``.

    Args:
        fixed, moving: ``[B, C, D, H, W]``.
        precision: ``"fast"`` (fp16 storage) or ``"exact"`` (float32).

    Returns:
        The displacement ``[B, 3, D, H, W]`` in voxels and the entropy ``[B, D, H, W]`` in nats.
    """
    shape, dtype = _shape(fixed), _storage(level, precision)
    found, entropy = _solve(
        channels_last(fixed, dtype), channels_last(moving, dtype), shape, fixed.shape[1], level
    )
    return found.view(len(fixed), 3, *shape), entropy.view(len(fixed), *shape)


def register_level(
    fixed: Tensor,
    moving: Tensor,
    displacement: Tensor | None,
    level: LevelSettings,
    squarings: int,
    *,
    precision: str = "fast",
) -> tuple[Tensor, Tensor]:
    """Warp, solve, integrate and compose: all that a pyramid level does to a displacement.

    Args:
        fixed, moving: ``[B, C, D, H, W]``.
        displacement: what is known so far, ``[B, 3, D, H, W]`` in voxels of this level; or None.
        squarings: steps of scaling and squaring.
        precision: ``"fast"`` (fp16 storage) or ``"exact"`` (float32).

    Returns:
        The new displacement ``[B, 3, D, H, W]`` and the entropy ``[B, D, H, W]`` in nats.
    """
    shape, dtype = _shape(fixed), _storage(level, precision)
    lines, known = channels_last(moving, dtype), None
    if displacement is not None:
        known = displacement.to(torch.float32).flatten(2).contiguous()
        lines = warp_features(lines, known, shape)
    velocity, entropy = _solve(channels_last(fixed, dtype), lines, shape, fixed.shape[1], level)
    found = integrate(velocity, shape, squarings)
    if known is not None:
        found = compose(found, known, shape)
    return found.view(len(fixed), 3, *shape), entropy.view(len(fixed), *shape)


def _shape(features: Tensor) -> Shape:
    depth, height, width = features.shape[2:]
    return depth, height, width


def _storage(level: LevelSettings, precision: str) -> torch.dtype:
    """In what the features are stored."""
    if precision not in ("fast", "exact"):
        raise ValueError(f"precision must be 'fast' or 'exact', got {precision!r}")
    fits_packed = level.radius == 1 and not (level.filter_cost and level.is_wide)
    return torch.float16 if precision == "fast" and fits_packed else torch.float32


def _solve(
    fixed: Tensor, moving: Tensor, shape: Shape, channels: int, level: LevelSettings
) -> tuple[Tensor, Tensor]:
    """The displacement ``[B, 3, N]`` and entropy ``[B, N]`` of channels-last features."""
    cost, entropy, extremes = _cost_and_entropy(fixed, moving, shape, channels, level)
    sides = _sides(entropy, extremes, level, fixed.dtype)
    if level.filter_cost:
        cost, _ = adaptive_filter(cost, shape, sides, level.passes, torch.empty_like(cost))
    return _coupled_argmins(cost, shape, sides, level), entropy


def _cost_and_entropy(fixed, moving, shape, channels, level):
    """The cost volume of the level, with the entropy at the radius that it is wanted at."""
    arguments = (fixed, moving, shape, channels)
    wanted = level.entropy_radius or level.radius
    form = "packed" if fixed.dtype == torch.float16 else "plain"
    if level.radius == 1:
        found = cost_entropy(*arguments, form)
    else:
        found = cost_entropy_wide(*arguments, level.radius)
    if wanted == level.radius:
        return found
    if wanted == 1:
        return found[0], *cost_entropy(*arguments, "none")[1:]
    return found[0], *cost_entropy_wide(*arguments, wanted)[1:]


def _sides(entropy, extremes, level, storage):
    """Side weights of the level's filter."""
    if level.constant_sides is not None:
        return Sides(None, level.constant_sides)
    dtype = torch.float32 if level.is_wide else storage
    return Sides(entropy_weights(entropy, extremes, level, dtype))


def _coupled_argmins(cost, shape, sides, level):
    """The displacement ``[B, 3, N]`` after the schedule of argmins and filters."""
    batch, _, voxels = cost.shape
    bits = code_bits(level.radius)
    kind = torch.int16 if level.radius == 1 else torch.int32
    codes = cost.new_empty(batch, voxels, dtype=kind)
    vectors = cost.new_zeros(batch, 3, voxels, dtype=torch.float32)
    spare = torch.empty_like(vectors)
    # the first pass reads codes; a wide filter cannot, and starts from an identity pass
    passes_of_codes = 0 if level.is_wide else min(level.passes, 1)
    first = sides if passes_of_codes else Sides(None)
    for coupling in (0.0, *level.couplings):
        coupled_argmin(cost, vectors, coupling, level.radius, codes)
        filter_codes(codes, shape, bits, first, vectors)
        left = level.passes - passes_of_codes
        vectors, spare = adaptive_filter(vectors, shape, sides, left, spare)
    return vectors
