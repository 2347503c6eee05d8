"""The weights with which the golden vectors of networks were made: sines of a flat index."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def formula_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Weights of the named shapes, which stand in the order of the network's parameters."""
    weights = {}
    for number, (name, shape) in enumerate(shapes.items(), start=1):
        index = torch.arange(math.prod(shape), dtype=torch.float64)
        wave = torch.sin(0.7311 * index + 1.37 * number)
        if len(shape) >= 4:
            fan = shape[0] if "up_conv" in name else math.prod(shape) // shape[0]
            wave = torch.sin(0.7311 * index + 1.37 * number + 0.001 * (index % 977))
            values = wave * math.sqrt(4 / fan)
        elif math.prod(shape) == 1:
            values = torch.full_like(wave, 0.2 + 0.05 * math.sin(number - 1))
        else:
            values = 0.1 * wave + name.endswith("weight")
        weights[name] = values.view(*shape).float()
    return weights
