"""Overlap of labels."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from triton_reg.displacement import Displacement
from triton_reg.ops.operators import array, check_device, has_kernel
from triton_reg.ops.warp import warp_reference

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
    if not len(structures):
        return torch.zeros(0, dtype=torch.float64, device=fixed_labels.device)
    places = structures.long()  # bytes would be taken for a mask
    counts = label_counts(fixed_labels, moving_labels, int(places.max()) + 1)
    return dice_of_counts(counts[:, places])


def dice_of_counts(counts: Tensor) -> Tensor:
    """Dice ``[M]`` of the structures whose :func:`label_counts` are ``[3, M]``; NaN if absent."""
    return overlap_measures(counts).dice


def label_counts(fixed_labels: Tensor, moving_labels: Tensor, at_least: int = 0) -> Tensor:
    """Voxels of each label value in the fixed map, in the moving map, and in both at once.

    A kernel on CPUs and on GPUs.

    Args:
        fixed_labels, moving_labels: integer label maps of one shape, on one grid.
        at_least: for how many label values to count at least.

    Returns:
        ``[3, L]`` int64 for the values below ``L``, which is above every label.

    Raises:
        ValueError: if the maps differ in shape, or a label is negative.
    """
    check_device("label_counts", fixed_labels)
    if fixed_labels.shape != moving_labels.shape:
        raise ValueError(
            f"label_counts: both label maps must share one shape, got {list(fixed_labels.shape)} "
            f"and {list(moving_labels.shape)}"
        )
    # a GPU is waited for each time that numbers are asked of it: once for each map
    extremes = [torch.stack(one.aminmax()).tolist() for one in (fixed_labels, moving_labels)]
    lowest = min(low for low, _ in extremes)
    if lowest < 0:
        raise ValueError(f"label_counts: labels must not be negative, got {lowest}")
    bins = max(at_least, *(high + 1 for _, high in extremes))
    if fixed_labels.is_cuda:
        return _label_counts_cuda(fixed_labels, moving_labels, bins)
    from triton_reg.ops._cpu import overlap as cpu

    counts = torch.zeros(3, bins, dtype=torch.int64)
    cpu.label_counts(array(fixed_labels).ravel(), array(moving_labels).ravel(), counts.numpy())
    return counts


def label_counts_reference(fixed_labels: Tensor, moving_labels: Tensor, bins: int) -> Tensor:
    """Plain torch definition of :func:`label_counts` for the label values below ``bins``."""
    fixed, moving = fixed_labels.flatten(), moving_labels.flatten()
    maps = fixed, moving, fixed[fixed == moving]
    return torch.stack([torch.bincount(values, minlength=bins) for values in maps])


def warped_label_counts(
    fixed_labels: Tensor, moving_labels: Tensor, displacement: Displacement, bins: int
) -> Tensor:
    """:func:`label_counts` of the fixed labels and the moving ones warped by nearest neighbour.

    On a GPU one sweep that stores no warped labels; on a CPU a warp and a sweep.

    Args:
        fixed_labels: integers ``[1, 1, *fixed_shape]``.
        moving_labels: integers ``[1, 1, *moving_shape]``.
        displacement: of one pair; what it leads out of the moving grid has label 0.
        bins: above every label.

    Returns:
        ``[3, bins]`` int64.

    Raises:
        ValueError: if the shapes do not fit the displacement, it is of several pairs, or a label is
            negative or not below ``bins``.
    """
    check_device("warped_label_counts", fixed_labels)
    _check_fit(fixed_labels, moving_labels, displacement)
    if fixed_labels.is_cuda and has_kernel(displacement.vectors):
        counts = _label_counts_cuda(fixed_labels, moving_labels, bins, displacement.full()[0])
    else:
        # float32 holds every label below 2**24 exactly
        warped = displacement.warp(moving_labels.float(), interpolation="nearest")
        counts = label_counts(fixed_labels, warped.to(moving_labels.dtype), bins)
    counted = counts[:2, :bins].sum(1).tolist()
    if counted != [fixed_labels.numel()] * 2:
        raise ValueError(
            f"warped_label_counts: labels must be at least 0 and below bins = {bins}, got others "
            f"at {max(fixed_labels.numel() - one for one in counted)} voxels"
        )
    return counts


def warped_label_counts_reference(
    fixed_labels: Tensor, moving_labels: Tensor, displacement: Displacement, bins: int
) -> Tensor:
    """Plain torch definition of :func:`warped_label_counts`."""
    shape, labels = displacement.fixed_shape, moving_labels.to(displacement.vectors.dtype)
    warped = warp_reference(labels, displacement.vectors, shape, interpolation="nearest")
    return label_counts_reference(fixed_labels, warped.to(fixed_labels.dtype), bins)


def _label_counts_cuda(
    fixed_labels: Tensor, moving_labels: Tensor, bins: int, vectors: Tensor | None = None
) -> Tensor:
    """The kernel of both counts; ``vectors [3, D, H, W]`` lead to the moving labels, if given."""
    from triton_reg.ops._triton import overlap as gpu

    if vectors is None:
        # neighbours do not matter: any three sizes will do
        fixed_labels, moving_labels = (
            one.reshape(1, 1, -1) for one in (fixed_labels, moving_labels)
        )
    else:
        fixed_labels, moving_labels = fixed_labels[0, 0], moving_labels[0, 0]
    with torch.cuda.device_of(fixed_labels):
        return gpu.label_counts(fixed_labels, moving_labels, bins, vectors)


def _check_fit(fixed_labels: Tensor, moving_labels: Tensor, displacement: Displacement) -> None:
    if len(displacement.vectors) != 1:
        raise ValueError(
            f"warped_label_counts: needs the displacement of one pair, got "
            f"{len(displacement.vectors)}"
        )
    for name, labels, shape in (
        ("fixed_labels", fixed_labels, displacement.fixed_shape),
        ("moving_labels", moving_labels, displacement.moving_shape),
    ):
        if tuple(labels.shape) != (1, 1, *shape):
            raise ValueError(
                f"warped_label_counts: {name} must be {[1, 1, *shape]}, got {list(labels.shape)}"
            )
