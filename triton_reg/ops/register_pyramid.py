"""All pyramid levels of VoxelOpt in one operator, for GPUs: features in, displacement out."""

from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor

from triton_reg.ops.level_settings import LevelSettings
from triton_reg.ops.operators import operator
from triton_reg.ops.pyramid_settings import PyramidSettings
from triton_reg.ops.resize import Shape, grid_shape, resize_reference
from triton_reg.ops.solve_level import register_level_reference


def is_on_gpu(features: Tensor) -> bool:
    """Whether features are kept and registered as whole pyramids: where launches are dear."""
    return features.is_cuda


def stored_pyramid(
    pyramid: list[Tensor], shape: Shape, settings: PyramidSettings
) -> tuple[Tensor, ...]:
    """A feature pyramid in the layout that :func:`register_pyramid` reads in place.

    Args:
        pyramid: ``[N, C, d, h, w]``, finest first, each level half of the one before on each axis.
        shape: ``(D, H, W)`` of the volume without what it was padded by at the finest level.
        settings: those of the registration.

    Returns:
        An empty ``[N, 0, C, D, H, W]``, whose shape says what those of the others do not, then
        ``[N, d, h, w, CP]`` a level in fp16 or float32, channels padded to a power of two.

    Raises:
        ValueError: if fp16 is asked for and a feature is not finite or beyond ±30,000.
    """
    from triton_reg.ops._triton import register_pyramid as gpu

    count, channels = pyramid[0].shape[:2]
    outline = pyramid[0].new_empty(count, 0, channels, *shape)
    with torch.cuda.device_of(outline):
        return outline, *gpu.stored_levels(pyramid, settings)


def is_stored(features: tuple[Tensor, ...]) -> bool:
    """Whether features are those of :func:`stored_pyramid`."""
    return features[0].dim() == 6


def register_pyramid(
    fixed: tuple[Tensor, ...],
    moving: tuple[Tensor, ...],
    pairs: Tensor,
    settings: PyramidSettings,
) -> tuple[Tensor, Tensor]:
    """Register pairs of subjects coarse to fine, each level from what the coarser ones found.

    Args:
        fixed, moving: what :func:`stored_pyramid` returned, of any number of subjects.
        pairs: ``[B, 2]`` row numbers into fixed and moving; not checked before the GPU does.
        settings: see :class:`PyramidSettings`.

    Returns:
        The displacement ``[B, 3, D, H, W]`` in voxels, float32, and the entropy ``[B, D, H, W]`` of
        the finest level in nats.

    Raises:
        ValueError: if fixed and moving differ in shape or dtype, or a level is too large.
    """
    kinds = [[(one.dtype, *one.shape[1:]) for one in features[1:]] for features in (fixed, moving)]
    if kinds[0] != kinds[1] or fixed[0].shape[1:] != moving[0].shape[1:]:
        raise ValueError(
            f"register_pyramid: fixed and moving features must share shapes and dtypes, got "
            f"{kinds[0]} and {kinds[1]}"
        )
    if pairs.dim() != 2 or pairs.shape[1] != 2:
        raise ValueError(f"register_pyramid: pairs must be [B, 2], got {list(pairs.shape)}")
    own = settings.solves, settings.squarings, settings.precision
    return _register_pyramid(fixed, moving, pairs, *own, *astuple(settings.level))


def register_pyramid_reference(
    fixed: tuple[Tensor, ...],
    moving: tuple[Tensor, ...],
    pairs: Tensor,
    settings: PyramidSettings,
) -> tuple[Tensor, Tensor]:
    """Plain torch definition of :func:`register_pyramid`, in the features' own dtype.

    ``fixed`` and ``moving`` are plain pyramids ``[N, C, d, h, w]``, finest first; ``precision`` is
    not looked at.
    """
    displacement = entropy = None
    for level in reversed(range(len(fixed))):
        target, source = (
            features[level].index_select(0, rows)
            for features, rows in zip((fixed, moving), pairs.unbind(1), strict=True)
        )
        if displacement is not None:
            displacement = 2 * resize_reference(displacement, grid_shape(target))
        for _ in range(settings.solves[min(level, len(settings.solves) - 1)]):
            displacement, entropy = register_level_reference(
                target, source, displacement, settings.level, settings.squarings
            )
    assert displacement is not None
    assert entropy is not None
    return displacement, entropy


@operator(
    "triton_reg::register_pyramid",
    schema="(Tensor[] fixed, Tensor[] moving, Tensor pairs, int[] solves, int squarings,"
    " str precision, int radius, str smoothing, float[] sigma_range, float alpha, int tap_radius,"
    " int passes, bool filter_cost, int? entropy_radius, float[] couplings, bool masked)"
    " -> (Tensor, Tensor)",
)
def _register_pyramid(
    fixed: list[Tensor], moving: list[Tensor], pairs: Tensor, *values: Any
) -> tuple[Tensor, Tensor]:
    del moving, pairs, values
    raise NotImplementedError(
        f"register_pyramid: there are no kernels for tensors on {fixed[0].device}, only on cuda; "
        "VoxelOpt.prepare keeps features for the device that it runs on"
    )


@_register_pyramid.register_kernel("cuda")
def _register_pyramid_cuda(
    fixed: list[Tensor], moving: list[Tensor], pairs: Tensor, *values: Any
) -> tuple[Tensor, Tensor]:
    from triton_reg.ops._triton import register_pyramid as gpu

    depth, height, width = fixed[0].shape[3:]
    levels, channels = (list(fixed[1:]), list(moving[1:])), fixed[0].shape[2]
    with torch.cuda.device_of(fixed[0]):
        vectors, entropy = gpu.register_pyramid(*levels, pairs, channels, _settings(values))
    own = (..., slice(depth), slice(height), slice(width))
    return vectors[own].contiguous(), entropy[own].contiguous()


@_register_pyramid.register_fake
def _(fixed: list[Tensor], moving: list[Tensor], pairs: Tensor, *values: Any, **named: Any):
    del moving, values, named
    batch, shape = pairs.shape[0], fixed[0].shape[3:]
    empty = fixed[0].new_empty
    return (
        empty(batch, 3, *shape, dtype=torch.float32),
        empty(batch, *shape, dtype=torch.float32),
    )


def _settings(values: tuple[Any, ...]) -> PyramidSettings:
    """Settings from the operator's arguments: three of the pyramid, then those of a level."""
    solves, squarings, precision, *level = values
    return PyramidSettings(
        level=LevelSettings.from_values(level),
        solves=tuple(solves),
        squarings=squarings,
        precision=precision,
    )
