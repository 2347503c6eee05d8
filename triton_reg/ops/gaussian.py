"""Gaussian smoothing of vectors on a grid."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.checks import check_volumes
from triton_reg.ops.operators import array, check_device, has_kernel, operator

Sigmas = tuple[float, float, float]
_REACH = 2  # standard deviations


def gaussian_taps(sigma: float) -> list[float]:
    """Shares of a Gaussian that fall to voxels ``-r..r``, ``r = 2 sigma`` rounded; their sum is 1.

    Each is the integral over its voxel, not the value at its centre. A sigma of 0 smooths nothing.
    """
    if sigma <= 0:
        return [1.0]
    radius = max(int(_REACH * sigma + 0.5), 1)
    edges = [(k - 0.5) / (sigma * math.sqrt(2)) for k in range(-radius, radius + 2)]
    shares = [math.erf(b) - math.erf(a) for a, b in pairwise(edges)]
    return [share / sum(shares) for share in shares]


def smoothed(vectors: Tensor, sigmas: Sigmas) -> Tensor:
    """``[B, C, D, H, W]`` smoothed along each axis with its sigma in voxels, zeros outside.

    Differentiable; it is its own adjoint.

    Raises:
        ValueError: if the shape is another or there are not three sigmas.
    """
    check_volumes("smoothed", vectors=vectors)
    if len(sigmas) != 3:
        raise ValueError(f"smoothed: there must be a sigma for each of 3 axes, got {sigmas}")
    check_device("smoothed", vectors)
    return _smoothed(vectors, sigmas)


def smoothed_reference(vectors: Tensor, sigmas: Sigmas) -> Tensor:
    """Plain torch definition of :func:`smoothed`."""
    flat = vectors.flatten(0, 1)[:, None]
    for axis, sigma in enumerate(sigmas):
        taps = gaussian_taps(sigma)
        shape = [1, 1, *(len(taps) if other == axis else 1 for other in range(3))]
        padding = [len(taps) // 2 if other == axis else 0 for other in range(3)]
        weights = torch.tensor(taps, device=flat.device).to(flat).view(shape)
        flat = F.conv3d(flat, weights, padding=padding)
    return flat.view_as(vectors)


def taps_of(sigmas: Sequence[float]) -> tuple[np.ndarray, ...]:
    """:func:`gaussian_taps` of each axis in float32, for kernels."""
    return tuple(np.array(gaussian_taps(sigma), np.float32) for sigma in sigmas)


@operator("triton_reg::smoothed")
def _smoothed(vectors: Tensor, sigmas: Sequence[float]) -> Tensor:
    along_z, along_y, along_x = sigmas
    if not has_kernel(vectors):
        return smoothed_reference(vectors, (along_z, along_y, along_x)).contiguous()
    from triton_reg.ops._cpu import gaussian as cpu

    return torch.from_numpy(cpu.smoothed(array(vectors), taps_of(sigmas)))


@_smoothed.register_kernel("cuda")
def _smoothed_cuda(vectors: Tensor, sigmas: Sequence[float]) -> Tensor:
    along_z, along_y, along_x = sigmas
    if not has_kernel(vectors):
        return smoothed_reference(vectors, (along_z, along_y, along_x)).contiguous()
    from triton_reg.ops._triton import gaussian as gpu

    with torch.cuda.device_of(vectors):
        return gpu.smoothed(vectors, (along_z, along_y, along_x))


@_smoothed.register_fake
def _(vectors: Tensor, sigmas: Sequence[float]) -> Tensor:
    del sigmas
    return vectors.new_empty(vectors.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Sequence[float]], output: Tensor) -> None:
    del output
    ctx.sigmas = inputs[1]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    return _smoothed(gradient, ctx.sigmas), None


_smoothed.register_autograd(_backward, setup_context=_setup_context)
