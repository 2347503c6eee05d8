"""What the tests of compiled kernels share: inputs, the bordered layout, and the float64 oracle."""

from collections.abc import Callable

import numpy as np
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg.ops._cpu.layout import crop, pad, padded_size
from triton_reg.ops.resize import Shape, grid_shape

SHAPES: tuple[Shape, ...] = ((5, 3, 7), (9, 12, 10), (16, 18, 20))
EPSILON = torch.finfo(torch.float32).eps


def batch(shape: Shape, channels: int, pairs: int, seed: int) -> Tensor:
    volumes = [smooth_volume(shape, seed + 10 * pair, channels) for pair in range(pairs)]
    return torch.cat(volumes).contiguous()


def masked_features(shape: Shape, channels: int, seed: int) -> torch.Tensor:
    """Features and a mask ``[1, channels + 1, D, H, W]`` that is 0, 1 and in between."""
    features, mask = batch(shape, channels, 1, seed), batch(shape, 1, 1, seed + 100)
    return torch.cat([features, (4 * mask - 1.5).clamp(0, 1)], dim=1)


def vectors(shape: Shape, longest: float, pairs: int, seed: int) -> Tensor:
    return longest * (2 * batch(shape, 3, pairs, seed) - 1)


def bordered(volume: Tensor, border: int) -> np.ndarray:
    """One ``[K, D, H, W]`` in the bordered layout."""
    out = np.full((len(volume), padded_size(grid_shape(volume[None]), border)), np.nan, np.float32)
    pad(volume.contiguous().numpy(), np.float32(1), border, out)
    return out


def inside(volume: np.ndarray, shape: tuple[int, ...], border: int) -> Tensor:
    out = np.empty((len(volume), *shape), np.float32)
    crop(volume, border, out)
    return torch.from_numpy(out)


def assert_as_good_as_float32(
    actual: np.ndarray, definition: Callable[..., Tensor], *inputs: Tensor
) -> None:
    """At most twice the definition's own float32 error, both against float64."""
    truth = definition(*(one.double() for one in inputs))
    own_error = (definition(*inputs).double() - truth).abs().max()
    error = (torch.from_numpy(actual).double() - truth).abs().max()
    assert error <= 2 * own_error + 8 * EPSILON * truth.abs().max()
