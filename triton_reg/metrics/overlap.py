"""Overlap of labels."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from triton_reg.ops.operators import array

# what a structure scores that is absent: from either map NaN, which means and medians leave out, as
# Learn2Reg has it; from either map 0; from both maps 1 and from one 0
Absent = Literal["nan", "zero", "one"]


class OverlapMeasures(NamedTuple):
    """Each ``[M]`` float64, by structure, for sizes ``a`` and ``b`` that share ``c`` voxels: Dice
    ``2c / (a + b)``, Jaccard ``c / (a + b - c)``, volume similarity ``1 - |a - b| / (a + b)``."""

    dice: Tensor
    jaccard: Tensor
    volume_similarity: Tensor


def overlap_measures(counts: Tensor, absent: Absent = "nan") -> OverlapMeasures:
    """Measures of the structures whose :func:`label_counts` are ``[3, M]``.

    Taha and Hanbury, "Metrics for evaluating 3D medical image segmentation", BMC Medical Imaging
    2015.

    Raises:
        ValueError: if ``absent`` is unknown.
    """
    if absent not in ("nan", "zero", "one"):
        raise ValueError(f"overlap_measures: absent must be nan, zero or one, got {absent!r}")
    fixed_sizes, moving_sizes, both = counts.double()
    total = fixed_sizes + moving_sizes
    either, neither = (fixed_sizes == 0) | (moving_sizes == 0), total == 0
    found = (
        2 * both / total,
        both / (total - both),
        1 - (fixed_sizes - moving_sizes).abs() / total,
    )
    if absent == "nan":
        return OverlapMeasures(*(one.masked_fill(either, torch.nan) for one in found))
    of_both = 1.0 if absent == "one" else 0.0
    return OverlapMeasures(
        *(one.masked_fill(either, 0.0).masked_fill(neither, of_both) for one in found)
    )


def dice(fixed_labels: Tensor, moving_labels: Tensor, structures: Tensor) -> Tensor:
    """Dice overlap of each structure: twice the intersection over the sum of both sizes.

    Args:
        fixed_labels, moving_labels: integer label maps of one shape, on one grid.
        structures: ``[M]`` label values to score, without repetition.

    Returns:
        ``[M]`` float64; NaN where a structure is absent from either map.

    Raises:
        ValueError: if the maps differ in shape, or a label is negative.
    """
    counts = label_counts(fixed_labels, moving_labels, int(structures.max()) + 1)
    return dice_of_counts(counts[:, structures])


def dice_of_counts(counts: Tensor) -> Tensor:
    """Dice ``[M]`` of the structures whose :func:`label_counts` are ``[3, M]``; NaN if absent."""
    return overlap_measures(counts).dice


def label_counts(fixed_labels: Tensor, moving_labels: Tensor, at_least: int = 0) -> Tensor:
    """Voxels of each label value in the fixed map, in the moving map, and in both at once.

    Compiled on CPUs, plain torch elsewhere.

    Args:
        fixed_labels, moving_labels: integer label maps of one shape, on one grid.
        at_least: for how many label values to count at least.

    Returns:
        ``[3, L]`` int64 for the values below ``L``, which is above every label.

    Raises:
        ValueError: if the maps differ in shape, or a label is negative.
    """
    if fixed_labels.shape != moving_labels.shape:
        raise ValueError(
            f"label_counts: both label maps must share one shape, got {list(fixed_labels.shape)} "
            f"and {list(moving_labels.shape)}"
        )
    lowest = min(int(fixed_labels.min()), int(moving_labels.min()))
    if lowest < 0:
        raise ValueError(f"label_counts: labels must not be negative, got {lowest}")
    bins = max(int(fixed_labels.max()) + 1, int(moving_labels.max()) + 1, at_least)
    if not fixed_labels.is_cpu:
        return label_counts_reference(fixed_labels, moving_labels, bins)
    from triton_reg.ops._cpu import overlap as cpu

    counts = torch.zeros(3, bins, dtype=torch.int64)
    cpu.label_counts(array(fixed_labels).ravel(), array(moving_labels).ravel(), counts.numpy())
    return counts


def label_counts_reference(fixed_labels: Tensor, moving_labels: Tensor, bins: int) -> Tensor:
    """Plain torch definition of :func:`label_counts` for the label values below ``bins``."""
    fixed, moving = fixed_labels.flatten(), moving_labels.flatten()
    maps = fixed, moving, fixed[fixed == moving]
    return torch.stack([torch.bincount(values, minlength=bins) for values in maps])
