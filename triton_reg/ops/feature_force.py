"""How unlike features are under a displacement, and where the displacement should go instead."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from triton_reg.ops.checks import check_displacement, check_volumes
from triton_reg.ops.feature_force_backward import feature_force_backward
from triton_reg.ops.local_correlation import local_correlation_reference
from triton_reg.ops.operators import array, check_device, has_kernel, operator
from triton_reg.ops.sampling import Derivative, positions_of, sampled_with_slopes

Loss = Literal["mse", "lncc"]


@dataclass(frozen=True, kw_only=True)
class ForceSettings:
    """How features are compared.

    Attributes:
        loss: ``"mse"``, the mean squared difference over channels and voxels; ``"lncc"``, one minus
            the mean local correlation, see :mod:`triton_reg.ops.local_correlation`.
        window: width of the cubes of ``"lncc"`` in voxels, odd.
        derivative: of the samples, see :mod:`triton_reg.ops.sampling`.
    """

    loss: Loss = "mse"
    window: int = 5
    derivative: Derivative = "symmetric"

    def __post_init__(self) -> None:
        if self.loss not in ("mse", "lncc"):
            raise ValueError(f"ForceSettings: loss must be mse or lncc, got {self.loss!r}")
        if self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"ForceSettings: window must be odd and >= 3, got {self.window}")
        if self.derivative not in ("symmetric", "linear"):
            raise ValueError(
                f"ForceSettings: derivative must be symmetric or linear, got {self.derivative!r}"
            )


class Force(NamedTuple):
    """The loss ``[B]`` and its gradient ``[B, 3, D, H, W]`` with respect to the vectors."""

    loss: Tensor
    gradient: Tensor


def feature_force(
    fixed: Tensor,
    moving: Tensor,
    vectors: Tensor,
    placement: Tensor,
    settings: ForceSettings,
    *,
    weights: Tensor | None = None,
    active: Tensor | None = None,
) -> Force:
    """Compare fixed features with the moving ones that vectors lead to.

    Differentiable in ``fixed``, ``moving`` and ``vectors``, so that a step along the gradient is a
    layer of a network; the cell that a position lies in counts as constant.

    Args:
        fixed: ``[B, C, D, H, W]``.
        moving: ``[B, C, *m]``, zero outside; its size may be another.
        vectors: ``w``, ``[B, 3, D, H, W]``.
        placement: where ``w`` leads, ``[B, 3, 7]``, see
            :func:`triton_reg.ops.sampling.positions_of`.
        settings: see :class:`ForceSettings`.
        weights: of the fixed voxels, ``[B, 1, D, H, W]``; ones if omitted. The mean stays one over
            all voxels.
        active: ``[B]``, which pairs are wanted; the others' results are zeros. All if omitted.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    _check(fixed, moving, vectors, placement, weights)
    check_device("feature_force", fixed)
    tensors = fixed, moving, vectors, placement, weights, active
    return Force(*_feature_force(*tensors, settings.loss, settings.window, settings.derivative))


def feature_force_reference(
    fixed: Tensor,
    moving: Tensor,
    vectors: Tensor,
    placement: Tensor,
    settings: ForceSettings,
    *,
    weights: Tensor | None = None,
    active: Tensor | None = None,
) -> Force:
    """Plain torch definition of :func:`feature_force`."""
    positions = positions_of(vectors, placement.to(vectors))
    values, along = sampled_with_slopes(moving, positions, settings.derivative)
    weight = torch.ones_like(vectors[:, :1]) if weights is None else weights
    if active is not None:
        weight = weight * active.view(-1, 1, 1, 1, 1)
    if settings.loss == "mse":
        residual = values - fixed
        loss = (weight * residual.square()).flatten(1).sum(1) / fixed[0].numel()
        pull = 2 * weight * residual / fixed[0].numel()
    else:
        loss, pull = _correlation_pull(fixed, values, weight, settings.window)
    force = torch.einsum("bczyx,bcazyx->bazyx", pull, along)
    return Force(loss, torch.einsum("bia,bizyx->bazyx", placement[..., 4:].to(force), force))


def _correlation_pull(
    fixed: Tensor, warped: Tensor, weight: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """One minus the mean local correlation, and its gradient with respect to the samples."""

    def loss_of(warped: Tensor) -> Tensor:
        unlike = 1 - local_correlation_reference(fixed, warped, window)
        return (weight * unlike).flatten(1).sum(1) / fixed[0].numel()

    loss, pull, *_ = torch.func.vjp(loss_of, warped)
    return loss, pull(torch.ones_like(loss))[0]


@operator("triton_reg::feature_force")
def _feature_force(
    fixed: Tensor,
    moving: Tensor,
    vectors: Tensor,
    placement: Tensor,
    weights: Tensor | None,
    active: Tensor | None,
    loss: str,
    window: int,
    derivative: str,
) -> tuple[Tensor, Tensor]:
    settings = ForceSettings(loss=loss, window=window, derivative=derivative)  # type: ignore[arg-type]
    if not has_kernel(fixed, moving, vectors):
        return _by_reference(fixed, moving, vectors, placement, weights, active, settings)
    from triton_reg.ops._cpu import feature_force as cpu

    found, gradient = cpu.feature_force(
        array(channels_last(fixed)), array(channels_last(moving)), array(vectors),
        array(placement.double()), None if weights is None else array(weights[:, 0].float()),
        None if active is None else array(active), settings,
    )  # fmt: skip
    return torch.from_numpy(found), torch.from_numpy(gradient)


@_feature_force.register_kernel("cuda")
def _feature_force_cuda(
    fixed: Tensor,
    moving: Tensor,
    vectors: Tensor,
    placement: Tensor,
    weights: Tensor | None,
    active: Tensor | None,
    loss: str,
    window: int,
    derivative: str,
) -> tuple[Tensor, Tensor]:
    settings = ForceSettings(loss=loss, window=window, derivative=derivative)  # type: ignore[arg-type]
    if not _has_gpu_kernel(fixed, moving, vectors):
        return _by_reference(fixed, moving, vectors, placement, weights, active, settings)
    from triton_reg.ops._triton import force as gpu

    given = fixed, moving, vectors, placement, settings
    with torch.cuda.device_of(fixed):
        return gpu.feature_force(*given, weights=weights, active=active)


@_feature_force.register_fake
def _(fixed: Tensor, moving: Tensor, vectors: Tensor, *others: object) -> tuple[Tensor, Tensor]:
    del moving, others
    return vectors.new_empty(len(fixed)), vectors.new_empty(vectors.shape)


def _has_gpu_kernel(fixed: Tensor, moving: Tensor, vectors: Tensor) -> bool:
    """Those read features of half precision too."""
    return fixed.dtype == moving.dtype and has_kernel(vectors)


def _by_reference(
    fixed: Tensor,
    moving: Tensor,
    vectors: Tensor,
    placement: Tensor,
    weights: Tensor | None,
    active: Tensor | None,
    settings: ForceSettings,
) -> tuple[Tensor, Tensor]:
    given = fixed, moving, vectors, placement, settings
    found = feature_force_reference(*given, weights=weights, active=active)
    return found.loss.contiguous(), found.gradient.contiguous()


def channels_last(features: Tensor) -> Tensor:
    """``[B, C, *n]`` as ``[B, *n, C]``: a view of that memory format, else a copy's."""
    return features.permute(0, 2, 3, 4, 1)


def _check(
    fixed: Tensor, moving: Tensor, vectors: Tensor, placement: Tensor, weights: Tensor | None
) -> None:
    check_volumes("feature_force", fixed=fixed, moving=moving)
    check_displacement("feature_force", vectors)
    grid = [fixed.shape[0], *fixed.shape[2:]]
    given = {"vectors": vectors, "weights": weights}
    grids = {name: [one.shape[0], *one.shape[2:]] for name, one in given.items() if one is not None}
    if any(found != grid for found in grids.values()) or moving.shape[:2] != fixed.shape[:2]:
        raise ValueError(
            f"feature_force: fixed is {list(fixed.shape)}; vectors and weights must lie on its grid"
            f" and moving must share its pairs and channels, got {list(vectors.shape)},"
            f" {None if weights is None else list(weights.shape)} and {list(moving.shape)}"
        )
    if placement.requires_grad or (weights is not None and weights.requires_grad):
        raise ValueError(
            "feature_force: there are gradients with respect to features and vectors alone, but"
            " placement or weights ask for one; detach them"
        )
    if placement.shape != (len(fixed), 3, 7):
        raise ValueError(
            f"feature_force: placement must be [{len(fixed)}, 3, 7], got {list(placement.shape)}"
        )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    del output
    ctx.save_for_backward(*inputs[:6])
    ctx.values = inputs[6:]


def _backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    fixed, moving, vectors, placement, weights, active = ctx.saved_tensors
    loss, window, derivative = ctx.values
    nothing, wanted = [None] * 6, list(ctx.needs_input_grad[:3])
    compiled = has_kernel if fixed.device.type == "cpu" else _has_gpu_kernel
    if loss == "mse" and compiled(fixed, moving, vectors):
        found = feature_force_backward(*ctx.saved_tensors, derivative, *gradients, wanted)
        return *(one if want else None for one, want in zip(found, wanted, strict=True)), *nothing
    settings = ForceSettings(loss=loss, window=window, derivative=derivative)

    def force(fixed: Tensor, moving: Tensor, vectors: Tensor) -> tuple[Tensor, ...]:
        given = fixed, moving, vectors, placement, settings
        return tuple(feature_force_reference(*given, weights=weights, active=active))

    return *torch.func.vjp(force, fixed, moving, vectors)[1](gradients), *nothing


_feature_force.register_autograd(_backward, setup_context=_setup_context)
