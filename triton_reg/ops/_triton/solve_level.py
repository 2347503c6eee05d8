"""One pyramid level of VoxelOpt on a GPU, on plain tensors; see ``level_chain.py``."""

import torch
from torch import Tensor

from triton_reg.ops._triton.layout import Lines, addresses, channels_last, padded_channels
from triton_reg.ops._triton.level_chain import LevelChain, chain_bytes
from triton_reg.ops._triton.workspace import Arena, LevelPlan, storage_dtype
from triton_reg.ops.level_settings import LevelSettings


def solve_level(
    fixed: Tensor, moving: Tensor, level: LevelSettings, *, precision: str = "fast"
) -> tuple[Tensor, Tensor]:
    """Displacement that aligns ``moving``, already warped, to ``fixed``.

    Args:
        fixed, moving: ``[B, C, D, H, W]``.
        precision: ``"fast"`` (fp16 storage) or ``"exact"`` (float32).

    Returns:
        The displacement ``[B, 3, D, H, W]`` in voxels and the entropy ``[B, D, H, W]`` in nats.
    """
    lines = [channels_last(one, storage_dtype(level, precision)) for one in (fixed, moving)]
    chain = _chain_for(fixed, None, level, 0, precision)
    shape, channels = chain.plan.shape, chain.plan.channels
    velocity, _ = chain.solve(*(Lines.of(one, shape, channels) for one in lines))
    velocity, entropy = velocity.clone(), chain.entropy.clone()
    return velocity.view(len(fixed), 3, *shape), entropy.view(len(fixed), *shape)


def register_level(
    fixed: Tensor,
    moving: Tensor,
    displacement: Tensor | None,
    level: LevelSettings,
    squarings: int,
    *,
    precision: str = "fast",
) -> tuple[Tensor, Tensor]:
    """Warp, solve, integrate and compose: all that a pyramid level does to a displacement.

    Args:
        fixed, moving: ``[B, C, D, H, W]``.
        displacement: what is known so far, ``[B, 3, D, H, W]`` in voxels of this level; or None.
        squarings: steps of scaling and squaring.
        precision: ``"fast"`` (fp16 storage) or ``"exact"`` (float32).

    Returns:
        The new displacement ``[B, 3, D, H, W]`` and the entropy ``[B, D, H, W]`` in nats.
    """
    lines = [channels_last(one, storage_dtype(level, precision)) for one in (fixed, moving)]
    chain = _chain_for(fixed, displacement, level, squarings, precision)
    for where, features in zip((chain.fixed, chain.moving), lines, strict=True):
        where.copy_(addresses(features))
    if displacement is not None and chain.coarse is not None:
        chain.coarse.copy_(displacement)
    found, entropy = chain.launch()
    shape = chain.plan.shape
    return found.view(len(fixed), 3, *shape).clone(), entropy.view(len(fixed), *shape).clone()


def _chain_for(
    fixed: Tensor,
    displacement: Tensor | None,
    level: LevelSettings,
    squarings: int,
    precision: str,
) -> LevelChain:
    """A chain of one solve, from a displacement on the features' own grid, on memory of its own."""
    pairs, channels, depth, height, width = fixed.shape
    shape = (depth, height, width)
    plan = LevelPlan(
        shape=shape,
        coarse_shape=None if displacement is None else shape,
        factor=1.0,
        channels=channels,
        padded=padded_channels(channels),
        dtype=storage_dtype(level, precision),
        precision=precision,
        level=level,
        solves=1,
        squarings=squarings,
    )
    size_bytes = chain_bytes(plan, pairs)
    memory = torch.empty(size_bytes, dtype=torch.uint8, device=fixed.device)
    return LevelChain(plan, pairs, Arena(memory))
