"""A launch of each GPU kernel of VoxelOpt at one level, ready to be timed or run."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from triton_reg.ops._triton.adaptive_filter import Sides, adaptive_filter, filter_codes
from triton_reg.ops._triton.compose import compose
from triton_reg.ops._triton.cost_entropy import Entropy, cost_entropy, entropy_blocks
from triton_reg.ops._triton.coupled_argmin import code_bits, coupled_argmin
from triton_reg.ops._triton.filter_weights import entropy_range, entropy_weights
from triton_reg.ops._triton.layout import Lines, padded_channels
from triton_reg.ops._triton.local_contrast import local_contrast
from triton_reg.ops._triton.mind_ssc import mind_ssc
from triton_reg.ops._triton.warp import resize, upsample_and_warp, warp
from triton_reg.ops.level_settings import LevelSettings
from triton_reg.ops.mind_ssc import CHANNEL_OFFSETS

Shape = tuple[int, int, int]
Case = Callable[[], object]


def kernel_cases(
    shape: Shape, pairs: int, channels: int, precision: str, device: torch.device
) -> dict[str, Case]:
    """One launch over ``pairs`` of each kernel of a solve, under the names of the roofline."""
    voxels, padded = math.prod(shape), padded_channels(channels)
    dtype = torch.float16 if precision == "fast" else torch.float32

    def empty(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(sizes, dtype=dtype, device=device)

    features = torch.rand(2, pairs, voxels, padded, device=device)
    features[..., channels:] = 0
    kept = features.to(dtype)
    fixed, moving = (Lines.of(one, shape, channels) for one in kept)
    coarse = torch.rand(pairs, 3, *(size // 2 for size in shape), device=device) - 0.5
    known, vectors, spare = (torch.rand(pairs, 3, voxels, device=device) - 0.5 for _ in range(3))
    rows, kind = (14, torch.int32) if precision == "fast" else (27, torch.float32)
    cost, spare_cost = (empty(pairs, rows, voxels, dtype=kind) for _ in range(2))
    entropy = Entropy(empty(pairs, voxels), empty(pairs, 2, entropy_blocks(voxels, padded, True)))
    extent, values = empty(pairs, 2), empty(pairs, 1, voxels, dtype=dtype)
    sides, level = Sides(values), LevelSettings()
    codes, warped = empty(pairs, voxels, dtype=torch.int16), torch.empty_like(kept[0])

    def weights() -> None:
        entropy_range(entropy.extremes, extent)
        entropy_weights(entropy.values, extent, level, values)

    return {
        # `kept` is named so that it outlives this function: kernels are given its address alone
        "up_warp": lambda kept=kept: upsample_and_warp(moving, coarse, known, warped),
        "cost_entropy": lambda kept=kept: cost_entropy(fixed, moving, cost, entropy),
        "weights": weights,
        "filter": lambda: adaptive_filter(cost, shape, sides, 1, spare_cost),
        "argmin": lambda: coupled_argmin(cost, known, 0.1, 1, codes),
        "filter_codes": lambda: filter_codes(codes, shape, code_bits(1), sides, vectors),
        "filter_vectors": lambda: adaptive_filter(vectors, shape, sides, 1, spare),
        "square": lambda: compose(known, known, shape, spare, scales=(0.5, 0.5)),
        "compose": lambda: compose(known, vectors, shape, spare),
    }


def subject_cases(shape: Shape, channels: int, device: torch.device) -> dict[str, Case]:
    """What is done once a subject, or once a result: features, halving, warping."""
    volume = torch.rand(1, 1, *shape, device=device)
    features = torch.rand(1, channels, *shape, device=device)
    displacement = torch.rand(1, 3, *shape, device=device) - 0.5
    half = (shape[0] // 2, shape[1] // 2, shape[2] // 2)
    return {
        "mind_ssc": lambda: mind_ssc(volume, 1, 2, CHANNEL_OFFSETS),
        "local_contrast": lambda: local_contrast(volume, (5, 9), 0.02),
        "halve": lambda: resize(features, half),
        "warp": lambda: warp(volume, displacement, shape),
        "warp_nearest": lambda: warp(volume, displacement, shape, interpolation="nearest"),
    }
