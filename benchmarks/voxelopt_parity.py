"""Whether VoxelOpt's kernels and their plain-torch definitions agree on the same device.

Near ties make argmins flip under any rounding, and what follows differs by whole voxels: float32
and float64 of the definition differ by over 0.1 voxels at 0.1 % of voxels, and the definition whose
two finest levels are rounded to fp16, as precision="fast" stores them, at 1 %. So whole pairs agree
by statistics, single operations to rounding.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg import LevelSettings, VoxelOpt
from triton_reg.ops._triton import register_pyramid as gpu
from triton_reg.ops.compose import (
    compose,
    compose_reference,
    integrate,
    integrate_reference,
)
from triton_reg.ops.local_contrast import local_contrast, local_contrast_reference
from triton_reg.ops.mind_ssc import mind_ssc, mind_ssc_reference
from triton_reg.ops.pyramid_settings import PyramidSettings
from triton_reg.ops.register_pyramid import register_pyramid_reference
from triton_reg.ops.resize import grid_shape, resize, resize_reference
from triton_reg.ops.warp import warp, warp_reference
from triton_reg.ops.work_memory import forget_work

Shape = tuple[int, int, int]
CHANNELS = 14
LEVELS = 5
# mean error and share of voxels whose error exceeds 0.1, in voxels, and the relative difference of
# what is left between fixed and warped features
BOUNDS = {"exact": (1e-3, 3e-3, 2e-3), "fast": (2e-2, 5e-2, 1e-2)}


@dataclass(frozen=True)
class Given:
    """An extractor whose features are known, whatever the volume."""

    features: Tensor

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        del volume, mask
        return self.features


def noise(shape: Shape, seed: int, channels: int, step: int) -> Tensor:
    """Smooth random fields ``[1, C, D, H, W]``; ``step`` is the distance of their knots."""
    generator = torch.Generator().manual_seed(seed)
    knots = (max(2, size // step) for size in shape)
    return resize_reference(torch.randn(1, channels, *knots, generator=generator), shape)


def features_of(shape: Shape, seed: int) -> Tensor:
    """Features like those of a segmentation network: sums of one, nothing in the background."""
    coarse, fine = noise(shape, seed, CHANNELS, 24), noise(shape, seed + 50, CHANNELS, 8)
    values = torch.softmax(2 * (coarse + fine), 1)
    return values * (noise(shape, seed + 100, 1, 12) > -1)


@lru_cache(maxsize=1)
def make_case(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """Fixed and moving features ``[1, C, D, H, W]``, a few voxels apart."""
    fixed = features_of(shape, 1)
    moving = warp_reference(fixed, 2 * noise(shape, 2, 3, 16), shape)
    return fixed.to(device), moving.to(device)


def plain_pyramid(features: Tensor) -> tuple[Tensor, ...]:
    """Levels by the definitions, from features padded until each size can be halved."""
    missing = [-size % 2 ** (LEVELS - 1) for size in features.shape[2:]]
    padding = [0, missing[2], 0, missing[1], 0, missing[0]]
    levels = [F.pad(features, padding, mode="replicate")]
    for _ in range(LEVELS - 1):
        depth, height, width = grid_shape(levels[-1])
        levels.append(resize_reference(levels[-1], (depth // 2, height // 2, width // 2)))
    return tuple(levels)


def settings_of(name: str, precision: str) -> PyramidSettings:
    """Those of the released code or of the method's defaults."""
    method = {"released": VoxelOpt.parity(), "default": VoxelOpt()}[name]
    return PyramidSettings(
        level=method.level,
        solves=method.solves,
        squarings=method.squarings,
        precision=precision,  # type: ignore[arg-type]
    )


def register_by_definition(fixed: Tensor, moving: Tensor) -> Tensor:
    """The displacement of plain torch in float32."""
    pair = torch.zeros(1, 2, dtype=torch.int32, device=fixed.device)
    levels = plain_pyramid(fixed), plain_pyramid(moving)
    found, _ = register_pyramid_reference(*levels, pair, settings_of("released", "exact"))
    depth, height, width = grid_shape(fixed)
    return found[..., :depth, :height, :width]


def register_by_kernels(fixed: Tensor, moving: Tensor, precision: str) -> Tensor:
    """The displacement of the method itself, through all that a user's call goes through."""
    method = VoxelOpt(
        level=LevelSettings(),
        solves=(1,),
        precision=precision,  # type: ignore[arg-type]
    )
    anything = torch.ones_like(fixed[:, :1])
    sides = [
        replace(method, features=Given(one)).prepare(anything, anything) for one in (fixed, moving)
    ]
    pair = torch.zeros(1, 2, dtype=torch.int32, device=fixed.device)
    return method.register(*sides, pair).displacement.vectors


def residual(fixed: Tensor, moving: Tensor, displacement: Tensor) -> float:
    """What is left between fixed and warped features."""
    return (fixed - warp_reference(moving, displacement, grid_shape(fixed))).abs().mean().item()


def check_pairs(shape: Shape, device: torch.device) -> list[str]:
    """A line for each precision; raises ``AssertionError`` where they disagree."""
    fixed, moving = make_case(shape, device)
    expected = register_by_definition(fixed, moving)
    left, lines = residual(fixed, moving, expected), []
    for precision, (mean, share, relative) in BOUNDS.items():
        found = register_by_kernels(fixed, moving, precision)
        error = (found - expected).abs()
        apart = (error > 0.1).double().mean().item()
        change = abs(residual(fixed, moving, found) / left - 1)
        line = (
            f"{shape} {precision}: mean error {error.mean().item():.2g}, "
            f"{apart:.3%} over 0.1 voxels, residual differs by {change:.2%}"
        )
        assert error.mean() <= mean, line
        assert apart <= share, line
        assert change <= relative, line
        lines.append(line)
    return lines


def check_batches(shape: Shape, device: torch.device, precision: str) -> str:
    """Raises ``AssertionError`` unless a pair has the same bits in any batch, with any features'
    addresses, with and without CUDA graphs."""
    settings = replace(settings_of("released", precision), solves=(2,))
    sides = [plain_pyramid(side) for side in make_case(shape, device)]
    both = [torch.cat(level) for level in zip(*sides, strict=True)]
    features = gpu.stored_levels(both, settings)
    rows = torch.tensor([[0, 1], [1, 0], [1, 1], [0, 0], [0, 1]], device=device)
    given = features, features, rows, CHANNELS, settings
    found = gpu.register_pyramid(*given)
    for options in ({"graphs": False}, {"batches": (1, 2, 4, 8, 8)}, {}):
        again = gpu.register_pyramid(*given, **options)  # type: ignore[arg-type]
        for one, other in zip(found, again, strict=True):
            assert torch.equal(one, other), f"{shape} {precision}: {options} change bits"
    for row, (fixed, moving) in enumerate(rows.tolist()):
        alone = [gpu.stored_levels(list(sides[side]), settings) for side in (fixed, moving)]
        one, _ = gpu.register_pyramid(*alone, torch.zeros_like(rows[:1]), CHANNELS, settings)
        assert torch.equal(one, found[0][row : row + 1]), f"{shape} {precision}: pair {row} alone"
    forget_work()
    return f"{shape} {precision}: the same bits in any batch, with and without graphs"


def check_operations(shape: Shape, device: torch.device) -> list[str]:
    """A line for each operation; raises ``AssertionError`` where one is off by more than 1e-4."""
    fields = [noise(shape, seed, 3, 8).to(device) for seed in (1, 2)]
    volume = noise(shape, 3, 1, 4).to(device)
    half = (shape[0] // 2, shape[1] // 2, shape[2] // 2)
    labels = (4 * volume).round()
    found = {
        "resize": (resize(volume, half), resize_reference(volume, half)),
        "warp": (warp(volume, fields[0]), warp_reference(volume, fields[0], shape)),
        "compose": (compose(*fields), compose_reference(*fields)),
        "integrate": (integrate(fields[0]), integrate_reference(fields[0])),
        "mind_ssc": (mind_ssc(volume, 1, 2), mind_ssc_reference(volume, 1, 2)),
        "local_contrast": (
            local_contrast(volume, (5, 9), 0.02),
            local_contrast_reference(volume, (5, 9), 0.02),
        ),
    }
    lines = []
    for name, (actual, expected) in found.items():
        error = (actual - expected).abs().max().item()
        lines.append(f"{shape} {name}: largest error {error:.2g}")
        assert error <= 1e-4 * max(1.0, expected.abs().max().item()), lines[-1]
    nearest = warp(labels, fields[0], interpolation="nearest")
    wrong = nearest != warp_reference(labels, fields[0], shape, "nearest")
    lines.append(f"{shape} nearest: {wrong.double().mean().item():.3%} of voxels differ")
    assert wrong.double().mean() <= 1e-3, lines[-1]
    return lines
