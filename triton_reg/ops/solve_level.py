"""One pyramid level of VoxelOpt: from a fixed and a moving feature map to a displacement."""

from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor

from triton_reg.ops.adaptive_filter import (
    Taps,
    adaptive_filter_reference,
    constant_taps,
    gaussian_taps,
)
from triton_reg.ops.checks import check_displacement, check_same_shape, check_volumes
from triton_reg.ops.compose import compose_reference, integrate_reference
from triton_reg.ops.cost_volume import cost_volume_reference
from triton_reg.ops.coupled_argmin import coupled_argmin_reference
from triton_reg.ops.entropy import entropy_reference, sigma_from_alpha, sigma_from_range
from triton_reg.ops.level_settings import LevelSettings
from triton_reg.ops.masked_cost import masked_cost_volume_reference
from triton_reg.ops.operators import array, check_device, has_kernel, operator
from triton_reg.ops.resize import grid_shape
from triton_reg.ops.warp import warp_reference


def solve_level(fixed: Tensor, moving: Tensor, settings: LevelSettings) -> tuple[Tensor, Tensor]:
    """Displacement that aligns ``moving`` to ``fixed`` within the search radius.

    Cost volume, its entropy, a filter as wide as the entropy says, and a schedule of argmins
    coupled ever more strongly to the smoothed displacement. VoxelOpt (Zhang et al., 2025).

    Args:
        fixed, moving: features ``[B, C, D, H, W]`` on one grid, moving already warped.
        settings: see :class:`LevelSettings`.

    Returns:
        The displacement ``[B, 3, D, H, W]`` in voxels and the entropy ``[B, D, H, W]`` in nats.

    Raises:
        ValueError: if the features differ in shape.
    """
    check_volumes("solve_level", fixed=fixed, moving=moving)
    check_same_shape("solve_level", fixed=fixed, moving=moving)
    check_device("solve_level", fixed)
    return _solve_level(fixed, moving, None, None, *astuple(settings))


def solve_level_reference(
    fixed: Tensor, moving: Tensor, settings: LevelSettings
) -> tuple[Tensor, Tensor]:
    """Plain torch definition of :func:`solve_level`."""
    cost_of = masked_cost_volume_reference if settings.masked else cost_volume_reference
    cost = cost_of(fixed, moving, settings.radius)
    if settings.entropy_radius in (None, settings.radius):
        entropy = entropy_reference(cost)
    else:
        entropy = entropy_reference(cost_of(fixed, moving, settings.entropy_radius))
    taps = filter_taps(entropy, settings)
    if settings.filter_cost:
        cost = adaptive_filter_reference(cost, taps, settings.passes)
    displacement = torch.zeros_like(cost[:, :3])
    for coupling in (0.0, *settings.couplings):
        labels = coupled_argmin_reference(cost, displacement, coupling, settings.radius)
        displacement = adaptive_filter_reference(labels, taps, settings.passes)
    return displacement, entropy


def register_level(
    fixed: Tensor,
    moving: Tensor,
    displacement: Tensor | None,
    settings: LevelSettings,
    squarings: int = 7,
) -> tuple[Tensor, Tensor]:
    """Improve a displacement by one solve: warp, solve, integrate, compose, in one go.

    Args:
        fixed, moving: features ``[B, C, D, H, W]`` on one grid, moving as it is.
        displacement: what is known, ``[B, 3, D, H, W]`` in voxels; None if nothing is.
        settings: see :class:`LevelSettings`.
        squarings: steps of scaling and squaring that turn what is found into a diffeomorphism.

    Returns:
        The displacement ``[B, 3, D, H, W]`` in voxels and the entropy ``[B, D, H, W]`` in nats.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    check_volumes("register_level", fixed=fixed, moving=moving)
    check_same_shape("register_level", fixed=fixed, moving=moving)
    check_device("register_level", fixed)
    if displacement is not None:
        check_displacement("register_level", displacement)
        check_same_shape("register_level", fixed=fixed[:, 0], displacement=displacement[:, 0])
    return _solve_level(fixed, moving, displacement, squarings, *astuple(settings))


def register_level_reference(
    fixed: Tensor,
    moving: Tensor,
    displacement: Tensor | None,
    settings: LevelSettings,
    squarings: int = 7,
) -> tuple[Tensor, Tensor]:
    """Plain torch definition of :func:`register_level`."""
    if displacement is not None:
        moving = warp_reference(moving, displacement, grid_shape(fixed))
    velocity, entropy = solve_level_reference(fixed, moving, settings)
    step = integrate_reference(velocity, squarings)
    return step if displacement is None else compose_reference(step, displacement), entropy


@operator(
    "triton_reg::solve_level",
    schema="(Tensor fixed, Tensor moving, Tensor? displacement, int? squarings, int radius,"
    " str smoothing, float[] sigma_range, float alpha, int tap_radius, int passes,"
    " bool filter_cost, int? entropy_radius, float[] couplings, bool masked) -> (Tensor, Tensor)",
)
def _solve_level(
    fixed: Tensor, moving: Tensor, displacement: Tensor | None, squarings: int | None, *values: Any
) -> tuple[Tensor, Tensor]:
    """Both public functions: without ``squarings`` the velocity itself is returned."""
    settings = LevelSettings.from_values(values)
    if not has_kernel(fixed, moving):
        return _solve_by_reference(fixed, moving, displacement, squarings, settings)
    from triton_reg.ops._cpu import solve_level as cpu

    if squarings is None:
        found = cpu.solve_level(array(fixed), array(moving), settings)
    else:
        known = None if displacement is None else array(displacement)
        found = cpu.register_level(array(fixed), array(moving), known, settings, squarings)
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


@_solve_level.register_kernel("cuda")
def _solve_level_cuda(
    fixed: Tensor, moving: Tensor, displacement: Tensor | None, squarings: int | None, *values: Any
) -> tuple[Tensor, Tensor]:
    """As above. Storage is float32 throughout."""
    settings = LevelSettings.from_values(values)
    if not has_kernel(fixed, moving):
        return _solve_by_reference(fixed, moving, displacement, squarings, settings)
    from triton_reg.ops._triton import solve_level as gpu

    given = fixed, moving, displacement
    with torch.cuda.device_of(fixed):
        if squarings is None:
            return gpu.solve_level(fixed, moving, settings, precision="exact")
        return gpu.register_level(*given, settings, squarings, precision="exact")


def _solve_by_reference(
    fixed: Tensor,
    moving: Tensor,
    displacement: Tensor | None,
    squarings: int | None,
    settings: LevelSettings,
) -> tuple[Tensor, Tensor]:
    if squarings is None:
        return solve_level_reference(fixed, moving, settings)
    return register_level_reference(fixed, moving, displacement, settings, squarings)


@_solve_level.register_fake
def _(fixed: Tensor, *arguments: Any, **settings: Any) -> tuple[Tensor, Tensor]:
    del arguments, settings
    shape = (fixed.shape[0], *fixed.shape[2:])
    return fixed.new_empty(shape[0], 3, *shape[1:]), fixed.new_empty(shape)


def filter_taps(entropy: Tensor, settings: LevelSettings) -> Taps:
    """The taps that ``settings`` give to a volume with this entropy ``[B, D, H, W]``."""
    if settings.constant_sides is not None:
        return constant_taps(settings.constant_sides, entropy)
    if settings.smoothing == "adaptive":
        return gaussian_taps(sigma_from_range(entropy, settings.sigma_range), settings.tap_radius)
    return gaussian_taps(sigma_from_alpha(entropy, settings.alpha), settings.tap_radius)
