"""Which kernels answer ``feature_force``."""

from torch import Tensor

from triton_reg.ops._triton.correlation_force import correlation_force
from triton_reg.ops._triton.feature_force import squares_force
from triton_reg.ops.feature_force import ForceSettings


def feature_force(
    fixed: Tensor,
    moving: Tensor,
    vectors: Tensor,
    placement: Tensor,
    settings: ForceSettings,
    *,
    weights: Tensor | None,
    active: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See :func:`triton_reg.ops.feature_force.feature_force`."""
    given = fixed, moving, vectors, placement
    symmetric = settings.derivative == "symmetric"
    if settings.loss == "mse":
        return squares_force(*given, symmetric=symmetric, weights=weights, active=active)
    return correlation_force(
        *given, settings.window, symmetric=symmetric, weights=weights, active=active
    )
