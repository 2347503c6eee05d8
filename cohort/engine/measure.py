"""What is measured of one registered pair."""

import math
from typing import Any

import torch
from torch import Tensor

from cohort.data.geometry import Grid
from cohort.engine.scan import Scan
from triton_reg import Displacement
from triton_reg.metrics.endpoint import endpoint_error_mm, mean_length_mm
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.landmarks import landmark_measures, target_registration_error_mm
from triton_reg.metrics.overlap import dice_of_counts, label_counts
from triton_reg.metrics.similarity import ncc
from triton_reg.ops.resize import Shape


def measure_pair(
    fixed: Scan, moving: Scan, displacement: Displacement, grid: Grid
) -> dict[str, Any]:
    """The measures of one pair, by column name; NaN never appears, what is unknown is absent.

    What compares the two subjects, similarity and overlap, looks only inside both masks.

    Args:
        fixed, moving: on the working grid.
        displacement: of this pair alone; it is judged on its own fixed grid.
        grid: the working grid.
    """
    fixed, moving = (scan.on_grid(displacement.fixed_shape) for scan in (fixed, moving))
    spacing_mm = spacing_on(grid, displacement.fixed_shape)
    vectors = displacement.full()
    jacobian = jacobian_measures(vectors)
    before, after = _compared(fixed, moving, displacement)
    measures: dict[str, Any] = {
        "ncc_before": ncc(fixed.volume, moving.volume, before).item(),
        "ncc": ncc(fixed.volume, displacement.warp(moving.volume), after).item(),
        "folding": jacobian.folding.item(),
        "sdlogj": jacobian.sdlogj.item(),
    }
    everywhere = torch.ones_like(fixed.mask)
    measures["displacement_mean_mm"] = mean_length_mm(vectors, spacing_mm, everywhere).item()
    measures |= _overlap(fixed, moving, displacement, (before, after))
    measures |= _keypoint_errors(fixed, moving, displacement, grid)
    truth = true_displacement(fixed, moving)
    if truth is not None:
        inside = fixed.mask if fixed.labels is None else fixed.labels
        measures["epe_before_mm"] = mean_length_mm(truth, spacing_mm, inside).item()
        measures["epe_mm"] = endpoint_error_mm(vectors, truth, spacing_mm, inside).item()
    return {name: value for name, value in measures.items() if not _is_nan(value)}


def true_displacement(fixed: Scan, moving: Scan) -> Tensor | None:
    """The known displacement of a pair in voxels: fixed -> template -> moving; None if unknown."""
    if fixed.to_template is None or moving.from_template is None:
        return None
    shape = (fixed.volume.shape[2], fixed.volume.shape[3], fixed.volume.shape[4])
    onwards = Displacement(fixed.to_template, shape, shape)
    return fixed.to_template + onwards.warp(moving.from_template, padding="border")


def spacing_on(grid: Grid, shape: Shape) -> tuple[float, float, float]:
    """Spacing in mm of a grid of ``shape`` with the working grid's corner voxels."""
    first, second, third = (
        mm * (full - 1) / (size - 1)
        for mm, full, size in zip(grid.spacing_mm, grid.shape, shape, strict=True)
    )
    return first, second, third


def warped_labels(labels: Tensor, displacement: Displacement) -> Tensor:
    """Labels ``[1, 1, D, H, W]`` on the fixed grid, each voxel the nearest one's value."""
    # float32 holds every uint16 label exactly
    return displacement.warp(labels.float(), interpolation="nearest").to(labels.dtype)


def _compared(fixed: Scan, moving: Scan, displacement: Displacement) -> tuple[Tensor, Tensor]:
    """Where the two subjects are compared, before and after: inside both masks."""
    if not moving.is_masked:
        return fixed.mask, fixed.mask
    warped = displacement.warp(moving.mask, interpolation="nearest")
    return fixed.mask * moving.mask, fixed.mask * warped


def _keypoint_errors(
    fixed: Scan, moving: Scan, displacement: Displacement, grid: Grid
) -> dict[str, float]:
    """Distances between corresponding keypoints in mm of the moving subject's own world; nothing
    unless both subjects have as many."""
    ours, theirs = fixed.keypoints_mm, moving.keypoints_mm
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return {}
    own = grid.resampled(displacement.fixed_shape)
    here, there = (torch.from_numpy(own.world_to_voxel(one.numpy())) for one in (ours, theirs))
    step_mm = torch.tensor(own.affine[:3, :3])
    if moving.to_native_mm is not None:
        step_mm = moving.to_native_mm[:3, :3] @ step_mm
    still = Displacement(
        torch.zeros_like(displacement.vectors), displacement.fixed_shape, displacement.moving_shape
    )
    after = landmark_measures(target_registration_error_mm(here, there, displacement, step_mm))
    before = landmark_measures(target_registration_error_mm(here, there, still, step_mm))
    return {
        "tre_mm": after.mean.item(),
        "tre_before_mm": before.mean.item(),
        "tre_sd_mm": after.sd.item(),
        "tre_p30_mm": after.p30.item(),
        "tre_max_mm": after.largest.item(),
    }


def _overlap(
    fixed: Scan, moving: Scan, displacement: Displacement, compared: tuple[Tensor, Tensor]
) -> dict[str, Any]:
    """Dice of the structures that both subjects have, before and after, where compared."""
    if fixed.labels is None or moving.labels is None:
        return {}
    fixed_labels = [_inside(fixed.labels, region) for region in compared]
    before = label_counts(fixed_labels[0], _inside(moving.labels, compared[0]))
    # the label values above 0 that both have
    structures = (before[0, 1:].bool() & before[1, 1:].bool()).nonzero()[:, 0] + 1
    if not len(structures):
        return {}
    warped = _inside(warped_labels(moving.labels, displacement), compared[1])
    after = label_counts(fixed_labels[1], warped, before.shape[1])
    # a structure that warping has moved out of the grid overlaps by nothing
    scores = dice_of_counts(after[:, structures]).nan_to_num(0.0)
    scores_before = dice_of_counts(before[:, structures])
    names = structures.tolist()
    return {
        "dice_mean": scores.mean().item(),
        "dice_before": scores_before.mean().item(),
        "dice": list(zip(names, scores.tolist(), strict=True)),
        "dice_structures_before": list(zip(names, scores_before.tolist(), strict=True)),
    }


def _inside(labels: Tensor, region: Tensor) -> Tensor:
    return labels * (region > 0)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
