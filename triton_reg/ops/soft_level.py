"""One pyramid level of VoxelOpt with soft argmins: differentiable in features and displacement."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.adaptive_filter import adaptive_filter_reference
from triton_reg.ops.checks import check_displacement, check_same_shape, check_volumes
from triton_reg.ops.compose import compose_reference, integrate_reference
from triton_reg.ops.cost_volume import label_offsets
from triton_reg.ops.entropy import ENTROPY_TEMPERATURE
from triton_reg.ops.level_settings import LevelSettings
from triton_reg.ops.masked_cost import restricted
from triton_reg.ops.resize import grid_shape
from triton_reg.ops.solve_level import filter_taps
from triton_reg.ops.warp import warp_reference

_LOG_FLOOR = math.log(1e-6)  # as in triton_reg.ops.entropy


def soft_argmin(
    cost: Tensor, displacement: Tensor, coupling: float, radius: int, temperature: float
) -> Tensor:
    """Expected displacement label of each voxel, drawn towards a given displacement.

    ``Σ_o p(o) o`` with ``p = softmax(-(cost(o) + coupling * |displacement - o|²) / temperature)``.
    As the temperature falls this becomes :func:`triton_reg.ops.coupled_argmin.coupled_argmin`
    wherever one label is the cheapest; labels that tie are averaged here and summed there.

    Args:
        cost: ``[B, L, D, H, W]``, low is good.
        displacement: ``[B, 3, D, H, W]`` in voxels.
        coupling: weight of the squared distance; 0 for the plain soft argmin.
        radius: the search radius that made the ``L`` labels.
        temperature: in units of the cost, above 0.

    Returns:
        ``[B, 3, D, H, W]`` in voxels, each component within ``±radius``.

    Raises:
        ValueError: if the temperature is not positive or the labels are not those of the radius.
    """
    check_volumes("soft_argmin", cost=cost)
    check_displacement("soft_argmin", displacement)
    _check_temperature("soft_argmin", temperature)
    offsets = cost.new_tensor(label_offsets(radius))
    if cost.shape[1] != len(offsets):
        raise ValueError(
            f"soft_argmin: radius {radius} needs a cost of {len(offsets)} labels, "
            f"got {cost.shape[1]}"
        )
    # |displacement|² is the same for all labels and falls out of the softmax
    pull = offsets.square().sum(1).view(1, -1, 1, 1, 1)
    pull = pull - 2 * torch.einsum("lk,bkdhw->bldhw", offsets, displacement)
    probability = torch.softmax((cost + coupling * pull) / -temperature, dim=1)
    return torch.einsum("lk,bldhw->bkdhw", offsets, probability)


def solve_soft_level(
    fixed: Tensor, moving: Tensor, settings: LevelSettings, temperature: float
) -> tuple[Tensor, Tensor]:
    """:func:`triton_reg.ops.solve_level.solve_level` with soft argmins.

    Everything is differentiated: the cost, the filter's width that its entropy gives, also through
    each pair's own minimum and maximum, and every argmin of the schedule.

    Args:
        fixed, moving: features ``[B, C, D, H, W]`` on one grid, moving already warped.
        settings: see :class:`triton_reg.ops.level_settings.LevelSettings`.
        temperature: of the argmins, see :func:`soft_argmin`.

    Returns:
        The displacement ``[B, 3, D, H, W]`` in voxels and the entropy ``[B, D, H, W]`` in nats.

    Raises:
        ValueError: if the features differ in shape or the temperature is not positive.
    """
    check_volumes("solve_soft_level", fixed=fixed, moving=moving)
    check_same_shape("solve_soft_level", fixed=fixed, moving=moving)
    _check_temperature("solve_soft_level", temperature)
    cost = _cost_volume(fixed, moving, settings.radius, settings.masked)
    if settings.entropy_radius in (None, settings.radius):
        entropy = _entropy(cost)
    else:
        entropy = _entropy(_cost_volume(fixed, moving, settings.entropy_radius, settings.masked))
    taps = filter_taps(_differentiable_where_it_varies(entropy), settings)
    if settings.filter_cost:
        cost = adaptive_filter_reference(cost, taps, settings.passes)
    displacement = torch.zeros_like(cost[:, :3])
    for coupling in (0.0, *settings.couplings):
        labels = soft_argmin(cost, displacement, coupling, settings.radius, temperature)
        displacement = adaptive_filter_reference(labels, taps, settings.passes)
    return displacement, entropy


def register_soft_level(
    fixed: Tensor,
    moving: Tensor,
    displacement: Tensor | None,
    settings: LevelSettings,
    temperature: float,
    squarings: int = 7,
) -> tuple[Tensor, Tensor]:
    """:func:`triton_reg.ops.solve_level.register_level` with soft argmins.

    Args:
        fixed, moving: features ``[B, C, D, H, W]`` on one grid, moving as it is.
        displacement: what is known, ``[B, 3, D, H, W]`` in voxels; None if nothing is.
        settings: see :class:`triton_reg.ops.level_settings.LevelSettings`.
        temperature: of the argmins, see :func:`soft_argmin`.
        squarings: steps of scaling and squaring.

    Returns:
        The displacement ``[B, 3, D, H, W]`` in voxels and the entropy ``[B, D, H, W]`` in nats.

    Raises:
        ValueError: if the shapes do not fit together or the temperature is not positive.
    """
    if displacement is not None:
        check_displacement("register_soft_level", displacement)
        check_same_shape("register_soft_level", fixed=fixed[:, 0], displacement=displacement[:, 0])
        moving = warp_reference(moving, displacement, grid_shape(fixed))
    velocity, entropy = solve_soft_level(fixed, moving, settings, temperature)
    step = integrate_reference(velocity, squarings)
    return step if displacement is None else compose_reference(step, displacement), entropy


def _cost_volume(fixed: Tensor, moving: Tensor, radius: int, masked: bool) -> Tensor:
    """The reference's cost volume; that one writes into its own buffers, which autograd refuses."""
    if masked:
        cost = _cost_volume(fixed[:, :-1], moving[:, :-1], radius, masked=False)
        return restricted(cost, fixed[:, -1:], moving[:, -1:], radius)
    padded = F.pad(moving, [radius] * 6)
    depth, height, width = grid_shape(fixed)
    costs = []
    for i, j, k in label_offsets(radius):
        i, j, k = i + radius, j + radius, k + radius
        shifted = padded[:, :, i : i + depth, j : j + height, k : k + width]
        costs.append((shifted - fixed).abs().mean(1))
    return torch.stack(costs, dim=1)


def _entropy(cost: Tensor) -> Tensor:
    """The reference's entropy, without its changes in place, which autograd refuses."""
    log_probability = torch.log_softmax(cost / -ENTROPY_TEMPERATURE, dim=1).clamp(min=_LOG_FLOOR)
    probability = log_probability.exp()
    total = probability.sum(1)
    return total.log() - (probability * log_probability).sum(1) / total


def _differentiable_where_it_varies(entropy: Tensor) -> Tensor:
    """Cut the gradient of pairs whose entropy is one value: its normalisation divides by zero."""
    flat = entropy.detach().flatten(1)
    varies = (flat.amax(1) > flat.amin(1)).view(-1, 1, 1, 1)
    return torch.where(varies, entropy, entropy.detach())


def _check_temperature(call: str, temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"{call}: temperature must be above 0, got {temperature}")
