"""Overlap of structures that are interpolated linearly, each by itself."""

from itertools import product

import torch
from torch import Tensor

from triton_reg.displacement import Displacement
from triton_reg.ops.operators import array, has_kernel

_UNITS = 2**26  # a part's, where parts are counted in an order that is not ours to choose


def soft_label_counts(
    fixed_labels: Tensor,
    moving_labels: Tensor,
    displacement: Displacement,
    mask: Tensor | None = None,
    at_least: int = 0,
) -> Tensor:
    """Voxels of each label value in the fixed map, in the warped map, and in both, with parts.

    As if each structure were an image of 0 and 1 that is warped linearly, zero outside of the grid:
    a warped voxel belongs to up to eight labels in parts, and shares with the fixed map the part
    that has the fixed label. :func:`triton_reg.metrics.overlap.overlap_measures` of these counts
    are the soft overlap of Crum et al., "Generalized overlap measures for evaluation and validation
    in medical image analysis", IEEE TMI 2006, for one hard map. One sweep, however many structures;
    compiled for float32 on CPUs, plain torch otherwise.

    Args:
        fixed_labels: integers ``[1, 1, *fixed_shape]``.
        moving_labels: integers ``[1, 1, *moving_shape]``.
        displacement: of one pair.
        mask: ``[1, 1, *fixed_shape]``; voxels above 0 count. All of them if omitted.
        at_least: for how many label values to count at least.

    Returns:
        ``[3, L]`` float64 for the values below ``L``, which is above every label. A voxel that goes
        outside of the grid, or nowhere (NaN), is no label's in the warped map.

    Raises:
        ValueError: if the shapes do not fit the displacement, it is of several pairs, or a label is
            negative.
    """
    mask = torch.ones_like(fixed_labels, dtype=torch.bool) if mask is None else mask > 0
    _check(fixed_labels, moving_labels, displacement, mask)
    bins = max(int(fixed_labels.max()) + 1, int(moving_labels.max()) + 1, at_least)
    vectors = displacement.full()[0]
    maps = fixed_labels[0, 0], moving_labels[0, 0]
    if not vectors.is_cpu or not has_kernel(vectors):
        units = None if vectors.is_cpu else _UNITS
        return soft_label_counts_reference(*maps, vectors, mask[0, 0], bins, units)
    from triton_reg.ops._cpu import soft_overlap as cpu

    fixed, moving = map(array, maps)
    counts = torch.zeros(3, bins, dtype=torch.float64)
    cpu.soft_label_counts(fixed, moving, array(vectors), array(mask[0, 0]), counts.numpy())
    return counts


def soft_label_counts_reference(
    fixed: Tensor,
    moving: Tensor,
    vectors: Tensor,
    mask: Tensor,
    bins: int,
    units: int | None = None,
) -> Tensor:
    """Plain torch definition of :func:`soft_label_counts`.

    Args:
        fixed, moving: label maps ``[D, H, W]``.
        vectors: ``[3, D, H, W]``.
        mask: of the fixed map's shape.
        bins: one above the largest label value.
        units: of a voxel, to which parts are rounded: whole numbers add up to the same in any
            order. Not rounded if None.
    """
    counted = fixed[mask].long()
    counts = vectors.new_zeros(3, bins, dtype=torch.float64)
    counts[0] = torch.bincount(counted, minlength=bins)
    places = [_position(vectors, axis, size)[mask] for axis, size in enumerate(moving.shape)]
    for corner in product((0, 1), repeat=3):
        weight = torch.ones_like(places[0])
        indices = []
        for place, upper, size in zip(places, corner, moving.shape, strict=True):
            index = place.floor() + upper
            inside = (index >= 0) & (index < size)
            weight = torch.where(inside, weight * (1 - (place - index).abs()), 0)
            indices.append(torch.where(inside, index, 0).long())
        label = moving[indices[0], indices[1], indices[2]].long()
        part = weight.double() if units is None else (weight.double() * units).round()
        counts[1] += torch.bincount(label, part, minlength=bins)
        counts[2] += torch.bincount(label, part * (label == counted), minlength=bins)
    if units is not None:
        counts[1:] /= units
    return counts


def _position(vectors: Tensor, axis: int, size: int) -> Tensor:
    """Where each fixed voxel lies along one axis of the moving grid, ``[D, H, W]``."""
    fixed_size = vectors.shape[1 + axis]
    voxel = torch.arange(fixed_size, dtype=vectors.dtype, device=vectors.device)
    voxel = voxel * ((size - 1) / max(fixed_size - 1, 1))
    position = vectors[axis] + voxel.view([-1 if other == axis else 1 for other in range(3)])
    # along an axis of one voxel there is nowhere to go
    return position if size > 1 else position * 0


def _check(
    fixed_labels: Tensor, moving_labels: Tensor, displacement: Displacement, mask: Tensor
) -> None:
    needed = {
        "fixed_labels": (fixed_labels, displacement.fixed_shape),
        "moving_labels": (moving_labels, displacement.moving_shape),
        "mask": (mask, displacement.fixed_shape),
    }
    if len(displacement.vectors) != 1:
        raise ValueError(
            f"soft_label_counts: needs the displacement of one pair, got "
            f"{len(displacement.vectors)}"
        )
    for name, (values, shape) in needed.items():
        if tuple(values.shape) != (1, 1, *shape):
            raise ValueError(
                f"soft_label_counts: {name} must be {[1, 1, *shape]}, got {list(values.shape)}"
            )
    lowest = min(int(fixed_labels.min()), int(moving_labels.min()))
    if lowest < 0:
        raise ValueError(f"soft_label_counts: labels must not be negative, got {lowest}")
