"""Overlap of labels."""

import torch
from torch import Tensor

from triton_reg.ops.operators import array


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
    """Dice ``[M]`` of the structures whose :func:`label_counts` are ``[3, M]``."""
    fixed_sizes, moving_sizes, both = counts.double()
    scores = 2 * both / (fixed_sizes + moving_sizes)
    return scores.masked_fill((fixed_sizes == 0) | (moving_sizes == 0), torch.nan)


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
