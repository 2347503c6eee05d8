"""Overlap of labels."""

import torch
from torch import Tensor


def dice(fixed_labels: Tensor, moving_labels: Tensor, structures: Tensor) -> Tensor:
    """Dice overlap of each structure: twice the intersection over the sum of both sizes.

    Args:
        fixed_labels, moving_labels: integer label maps of one shape, on one grid.
        structures: ``[M]`` label values to score, without repetition.

    Returns:
        ``[M]`` float64; NaN where a structure is absent from either map.

    Raises:
        ValueError: if the maps differ in shape.
    """
    if fixed_labels.shape != moving_labels.shape:
        raise ValueError(
            f"dice: both label maps must share one shape, got {list(fixed_labels.shape)} "
            f"and {list(moving_labels.shape)}"
        )
    fixed, moving = fixed_labels.flatten(), moving_labels.flatten()
    bins = int(structures.max()) + 1
    fixed_sizes = torch.bincount(fixed, minlength=bins)[structures].double()
    moving_sizes = torch.bincount(moving, minlength=bins)[structures].double()
    both = torch.bincount(fixed[fixed == moving], minlength=bins)[structures].double()
    scores = 2 * both / (fixed_sizes + moving_sizes)
    return scores.masked_fill((fixed_sizes == 0) | (moving_sizes == 0), torch.nan)
