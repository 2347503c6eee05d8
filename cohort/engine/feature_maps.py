"""What a method compares, as colours: the main directions of its features, level by level."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg import Features, Method
from triton_reg.method import ShowsFeatures
from triton_reg.ops.resize import Shape

_COLOURS = 3
_BOUNDS = (0.01, 0.99)  # quantiles that become dark and bright


def feature_maps(method: Method, features: Features, shape: Shape) -> dict[str, np.ndarray]:
    """Features of one subject as red, green and blue, uint8 ``[3, *shape]`` by level.

    Colours are the three principal components over the voxels that have features, each from its
    1st to its 99th percentile. Nothing for a method that does not show its features, or that has
    fewer than three channels of them.
    """
    if not isinstance(method, ShowsFeatures):
        return {}
    levels = method.feature_levels(features)
    names = [f"features /{round(shape[0] / level.shape[2])}" for level in levels]
    return {
        name: _coloured(level[0].float().cpu(), shape)
        for name, level in zip(names, levels, strict=True)
        if level.shape[1] >= _COLOURS
    }


def _coloured(features: Tensor, shape: Shape) -> np.ndarray:
    """``[C, d, h, w]`` -> uint8 ``[3, *shape]``."""
    flat = features.flatten(1)
    inside = flat.abs().sum(0) > 0
    known = flat[:, inside] if inside.any() else flat
    centred = known - known.mean(1, keepdim=True)
    _, directions = torch.linalg.eigh(centred @ centred.T)
    chosen = directions[:, -_COLOURS:].flip(1)
    # an eigenvector has no sign of its own: its largest entry is positive
    largest = chosen.abs().argmax(0, keepdim=True)
    chosen = chosen * chosen.gather(0, largest).sign()
    values = chosen.T @ centred
    low, high = (np.quantile(values.numpy(), bound, axis=1)[:, None] for bound in _BOUNDS)
    shares = (values - torch.from_numpy(low)) / torch.from_numpy(high - low).clamp_min(1e-12)
    colours = torch.zeros(_COLOURS, flat.shape[1])
    colours[:, inside if inside.any() else slice(None)] = shares.clamp(0, 1).float()
    grown = F.interpolate(colours.view(1, _COLOURS, *features.shape[1:]), size=shape)
    return (255 * grown[0]).round().to(torch.uint8).numpy()
