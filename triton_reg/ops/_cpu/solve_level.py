"""One pyramid level of VoxelOpt: a chain of kernels on bordered volumes."""

import math

import numpy as np

from triton_reg.ops._cpu.adaptive_filter import (
    constant_side,
    filter_three_taps,
    filter_wide,
    gaussian_taps,
)
from triton_reg.ops._cpu.arithmetic import f4
from triton_reg.ops._cpu.compose import (
    NEAR,
    compose_bordered,
    compose_far,
    integrate_bordered,
    longest_component,
    square_far,
)
from triton_reg.ops._cpu.cost_entropy import cost_entropy
from triton_reg.ops._cpu.coupled_argmin import coupled_argmin
from triton_reg.ops._cpu.layout import crop, pad, padded_size, scratch, zero_border
from triton_reg.ops._cpu.warp import warp_linear
from triton_reg.ops.level_settings import LevelSettings

_TINY = float(np.finfo(np.float32).tiny)


def solve_level(
    fixed: np.ndarray, moving: np.ndarray, settings: LevelSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Displacement that aligns ``moving``, already warped, to ``fixed``.

    Args:
        fixed, moving: ``[B, C, D, H, W]``.

    Returns:
        The displacement ``[B, 3, D, H, W]`` in voxels and the entropy ``[B, D, H, W]`` in nats.
    """
    displacement = np.empty((len(fixed), 3, *fixed.shape[2:]), np.float32)
    entropy = np.empty((len(fixed), *fixed.shape[2:]), np.float32)
    for pair in range(len(fixed)):
        vectors = _solve_pair(fixed[pair], moving[pair], None, settings, entropy[pair])
        crop(vectors, _border(settings), displacement[pair])
    return displacement, entropy


def register_level(
    fixed: np.ndarray,
    moving: np.ndarray,
    displacement: np.ndarray | None,
    settings: LevelSettings,
    squarings: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Warp, solve, integrate and compose: all that a pyramid level does to a displacement.

    The same as the four operations in turn, without their four copies: at this size fresh memory
    costs as much as the arithmetic that fills it.

    Args:
        fixed, moving: ``[B, C, D, H, W]``.
        displacement: what is known so far, ``[B, 3, D, H, W]`` in voxels of this level; or None.
        squarings: steps of scaling and squaring.

    Returns:
        The new displacement ``[B, 3, D, H, W]`` and the entropy ``[B, D, H, W]`` in nats.
    """
    result = np.empty((len(fixed), 3, *fixed.shape[2:]), np.float32)
    entropy = np.empty((len(fixed), *fixed.shape[2:]), np.float32)
    for pair in range(len(fixed)):
        known = None if displacement is None else displacement[pair]
        velocity = _solve_pair(fixed[pair], moving[pair], known, settings, entropy[pair])
        _advance(velocity, known, squarings, (*fixed.shape[2:], _border(settings)), result[pair])
    return result, entropy


def _border(level: LevelSettings) -> int:
    """Voxels by which any stencil of this level reaches out of the volume."""
    return max(level.radius, level.entropy_radius or 1, level.tap_radius)


def _advance(velocity, known, squarings, geometry, out):
    """Integrate a bordered velocity and put it before the ``known`` displacement."""
    step, left = integrate_bordered(velocity, squarings, geometry)
    if known is not None and left == 0 and longest_component(step) <= NEAR:
        compose_bordered(step, known, geometry, out)
        return
    crop(step, geometry[3], out)
    square_far(out, left)
    if known is not None:
        compose_far(out.copy(), known, out)


def _solve_pair(fixed, moving, known, level, entropy):
    """The bordered displacement ``[3, P]`` of one pair; fills ``entropy [D, H, W]``."""
    geometry = (*fixed.shape[1:], _border(level))
    bordered = _bordered(moving, known, _border(level))
    size = bordered.shape[1]
    cost = _cost_volume(fixed, bordered, level, entropy)
    smooth = _smoother(level, geometry, size, entropy)
    if level.filter_cost:
        smooth(cost)
    vectors = scratch("compose first", 3, size)
    vectors[:] = 0
    plane = size // (fixed.shape[1] + 2 * _border(level))
    begin, end = _border(level) * plane, size - _border(level) * plane
    for coupling in (0.0, *level.couplings):
        coupled_argmin(cost, vectors, f4(coupling), level.radius, begin, end)
        smooth(vectors)
    return vectors


def _smoother(level, geometry, size, entropy):
    """A function that filters bordered volumes ``[K, P]`` in place as the level wants."""
    if level.constant_sides is not None:
        sides = _constant_sides(level.constant_sides, geometry, size)
        return lambda volumes: filter_three_taps(volumes, sides, level.passes, geometry)
    taps = _entropy_taps(entropy, level)
    if level.is_wide:
        return lambda volumes: filter_wide(volumes, taps, level.passes, geometry)
    sides = (taps[1], taps[1], taps[1])
    return lambda volumes: filter_three_taps(volumes, sides, level.passes, geometry)


def _bordered(moving, displacement, border):
    """The moving features ``[C, P]``, warped if there is a displacement."""
    channels, depth, height, width = moving.shape
    bordered = scratch("moving", channels, padded_size(moving.shape[1:], border))
    if displacement is None:
        pad(moving, f4(1), border, bordered)
        return bordered
    zero_border(bordered, depth, height, width, border)
    inside = bordered.reshape(channels, *(size + 2 * border for size in moving.shape[1:]))
    warp_linear(moving, displacement, False, inside, border)
    return bordered


def _cost_volume(fixed, moving, level, entropy):
    """The bordered cost volume ``[L, P]`` of one pair; fills ``entropy [D, H, W]``."""
    size, radius, other = moving.shape[1], level.radius, level.entropy_radius
    own_entropy = entropy
    if other not in (None, radius):
        cost = scratch("cost", (2 * other + 1) ** 3, size)
        cost_entropy(fixed, moving, level.masked, other, _border(level), cost, entropy)
        own_entropy = scratch("unused entropy", *entropy.shape)
    cost = scratch("cost", (2 * radius + 1) ** 3, size)
    cost_entropy(fixed, moving, level.masked, radius, _border(level), cost, own_entropy)
    return cost


def _constant_sides(values, geometry, size):
    sides = scratch("taps", 3, size)
    for side, value in zip(sides, values, strict=True):
        constant_side(f4(value), geometry, side)
    return sides[0], sides[1], sides[2]


def _entropy_taps(entropy, level):
    """Bordered Gaussian taps ``[tap_radius + 1, P]``, from this pair's own range of entropies."""
    highest = float(entropy.max())
    if level.smoothing == "adaptive":
        low, high = level.sigma_range
        origin = float(entropy.min())
        scale = (high - low) / math.log(2)
        span = highest - origin
    else:
        origin, low, scale, span = 0.0, 0.0, level.alpha, highest
    border, inverse = _border(level), 1 / max(span, _TINY)
    taps = scratch("taps", level.tap_radius + 1, padded_size(entropy.shape, border))
    gaussian_taps(entropy, f4(origin), f4(inverse), f4(low), f4(scale), border, taps)
    return taps
