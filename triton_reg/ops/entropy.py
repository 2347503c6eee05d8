"""How undecided the cost volume leaves each voxel, and how wide to smooth there."""

import math

import torch
from torch import Tensor

from triton_reg.ops.checks import check_volumes

# the published softmax divisor of the cost before its entropy is taken (spec: softmax of 10 s)
ENTROPY_TEMPERATURE = 0.1
_FLOOR = 1e-6  # the published floor under each probability


def entropy(cost: Tensor) -> Tensor:
    """Entropy in nats of the displacement labels at each voxel.

    ``q = softmax(-cost / 0.1)`` over the labels, floored at 1e-6 and renormalised;
    ``E = -Σ q ln q``. VoxelOpt (Zhang et al., 2025), equation 4.

    Args:
        cost: ``[B, L, D, H, W]``, low is good.

    Returns:
        ``[B, D, H, W]`` between 0 and ``ln L``.
    """
    check_volumes("entropy", cost=cost)
    return entropy_reference(cost)


def entropy_reference(cost: Tensor) -> Tensor:
    """Plain torch definition of :func:`entropy`.

    With ``l = max(ln q, ln floor)``, ``S1 = Σ e^l`` and ``S2 = Σ l e^l`` the renormalised entropy
    is ``ln S1 - S2 / S1``.
    """
    log_probability = torch.log_softmax(cost / -ENTROPY_TEMPERATURE, dim=1)
    log_probability.clamp_(min=math.log(_FLOOR))
    probability = log_probability.exp()
    total = probability.sum(1)
    weighted = probability.mul_(log_probability).sum(1)
    return total.log() - weighted / total


def normalised_entropy(entropy: Tensor) -> Tensor:
    """``log2(1 + E')`` with ``E`` brought to [0, 1] over each pair's own volume.

    An entropy that is the same everywhere gives 0, the lower end.

    Args:
        entropy: ``[B, D, H, W]`` in nats.
    """
    low = entropy.amin((1, 2, 3), keepdim=True)
    span = entropy.amax((1, 2, 3), keepdim=True) - low
    return torch.log2(1 + (entropy - low) / span.clamp_min(torch.finfo(entropy.dtype).tiny))


def sigma_from_range(entropy: Tensor, sigma_range: tuple[float, float]) -> Tensor:
    """Width of the adaptive filter in voxels, as the released code has it.

    ``sigma = low + (high - low) * normalised_entropy``.
    """
    low, high = sigma_range
    return low + (high - low) * normalised_entropy(entropy)


def sigma_from_alpha(entropy: Tensor, alpha: float) -> Tensor:
    """Width of the adaptive filter in voxels, as the paper has it.

    ``sigma = alpha ln(E / max E + 1)``, max over each pair's volume; VoxelOpt, equation 5.
    """
    highest = entropy.amax((1, 2, 3), keepdim=True)
    return alpha * torch.log1p(entropy / highest.clamp_min(torch.finfo(entropy.dtype).tiny))
