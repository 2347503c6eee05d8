"""One pyramid level of VoxelOpt: from a fixed and a moving feature map to a displacement."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

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
from triton_reg.ops.operators import array, check_device, has_kernel
from triton_reg.ops.resize import grid_shape
from triton_reg.ops.warp import warp_reference

Smoothing = Literal["adaptive", "adaptive-paper", "isotropic", "released"]

# exp(-2) and exp(-4) are Gaussians of sigma 0.5 and 0.3536; the released non-adaptive kernel was
# meant to be isotropic but one of its coordinate grids counts axis 2 twice and axis 1 not at all
_ISOTROPIC_SIDES = (0.10650698, 0.10650698, 0.10650698)
_RELEASED_SIDES = (0.10650698, 1 / 3, 0.01766842)


@dataclass(frozen=True, kw_only=True)
class LevelSettings:
    """How one level is solved; the defaults are those of the released VoxelOpt code.

    Attributes:
        radius: half width of the search window in voxels.
        smoothing: ``"adaptive"`` (width from the entropy as in the released code),
            ``"adaptive-paper"`` (as in the paper), ``"isotropic"`` (sigma 0.5 everywhere), or
            ``"released"`` (the released non-adaptive kernel, which is not isotropic).
        sigma_range: lowest and highest filter width in voxels, for ``"adaptive"``.
        alpha: filter width at the highest entropy over ln 2, for ``"adaptive-paper"``.
        tap_radius: half width of the filter in voxels.
        passes: how often the filter runs through the three axes.
        filter_cost: whether the cost volume is smoothed too, not only the displacement.
        entropy_radius: search radius of the cost whose entropy is taken; that of the level if None.
        couplings: weights of the coupled argmins, one an iteration, after a first uncoupled one.
    """

    radius: int = 1
    smoothing: Smoothing = "adaptive"
    sigma_range: tuple[float, float] = (0.1, 0.5)
    alpha: float = 1.5
    tap_radius: int = 1
    passes: int = 3
    filter_cost: bool = True
    entropy_radius: int | None = None
    couplings: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


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
    return _solve_level(fixed, moving, None, None, **asdict(settings))


def solve_level_reference(
    fixed: Tensor, moving: Tensor, settings: LevelSettings
) -> tuple[Tensor, Tensor]:
    """Plain torch definition of :func:`solve_level`."""
    cost = cost_volume_reference(fixed, moving, settings.radius)
    if settings.entropy_radius in (None, settings.radius):
        entropy = entropy_reference(cost)
    else:
        entropy = entropy_reference(cost_volume_reference(fixed, moving, settings.entropy_radius))
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
    return _solve_level(fixed, moving, displacement, squarings, **asdict(settings))


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


@torch.library.custom_op("triton_reg::solve_level", mutates_args=(), device_types="cpu")
def _solve_level(
    fixed: Tensor,
    moving: Tensor,
    displacement: Tensor | None,
    squarings: int | None,
    radius: int,
    smoothing: str,
    sigma_range: Sequence[float],
    alpha: float,
    tap_radius: int,
    passes: int,
    filter_cost: bool,
    entropy_radius: int | None,
    couplings: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Both public functions: without ``squarings`` the velocity itself is returned."""
    settings: dict[str, Any] = {
        "radius": radius,
        "smoothing": smoothing,
        "sigma_range": tuple(sigma_range),
        "alpha": alpha,
        "tap_radius": tap_radius,
        "passes": passes,
        "filter_cost": filter_cost,
        "entropy_radius": entropy_radius,
        "couplings": tuple(couplings),
    }
    if not has_kernel(fixed, moving):
        return _solve_by_reference(fixed, moving, displacement, squarings, settings)
    from triton_reg.ops._cpu import solve_level as cpu

    if squarings is None:
        found = cpu.solve_level(array(fixed), array(moving), **settings)
    else:
        known = None if displacement is None else array(displacement)
        found = cpu.register_level(array(fixed), array(moving), known, squarings, **settings)
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


_SETTINGS = tuple(field.name for field in fields(LevelSettings))


@_solve_level.register_kernel("cuda")
def _solve_level_cuda(
    fixed: Tensor, moving: Tensor, displacement: Tensor | None, squarings: int | None, *values: Any
) -> tuple[Tensor, Tensor]:
    """As above; ``values`` are the settings in their order. Storage is float32 throughout."""
    settings = dict(zip(_SETTINGS, values, strict=True))
    if not has_kernel(fixed, moving):
        return _solve_by_reference(fixed, moving, displacement, squarings, settings)
    from triton_reg.ops._triton import solve_level as gpu

    if squarings is None:
        return gpu.solve_level(fixed, moving, precision="exact", **settings)
    return gpu.register_level(fixed, moving, displacement, squarings, precision="exact", **settings)


def _solve_by_reference(
    fixed: Tensor,
    moving: Tensor,
    displacement: Tensor | None,
    squarings: int | None,
    settings: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    level = LevelSettings(**settings)
    if squarings is None:
        return solve_level_reference(fixed, moving, level)
    return register_level_reference(fixed, moving, displacement, level, squarings)


@_solve_level.register_fake
def _(fixed: Tensor, *arguments: Any, **settings: Any) -> tuple[Tensor, Tensor]:
    del arguments, settings
    shape = (fixed.shape[0], *fixed.shape[2:])
    return fixed.new_empty(shape[0], 3, *shape[1:]), fixed.new_empty(shape)


def filter_taps(entropy: Tensor, settings: LevelSettings) -> Taps:
    """The taps that ``settings`` give to a volume with this entropy ``[B, D, H, W]``."""
    match settings.smoothing:
        case "adaptive":
            sigma = sigma_from_range(entropy, settings.sigma_range)
            return gaussian_taps(sigma, settings.tap_radius)
        case "adaptive-paper":
            return gaussian_taps(sigma_from_alpha(entropy, settings.alpha), settings.tap_radius)
        case "isotropic":
            return constant_taps(_ISOTROPIC_SIDES, entropy)
        case "released":
            return constant_taps(_RELEASED_SIDES, entropy)
