"""What is measured of one registered pair."""

import math
from collections.abc import Iterable
from typing import Any

import torch

from cohort.engine.families import MEASURES
from cohort.engine.registered_pair import RegisteredPair, still, true_displacement
from triton_reg.metrics.endpoint import endpoint_error_mm, mean_length_mm
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.landmarks import landmark_measures, target_registration_error_mm
from triton_reg.metrics.overlap import dice_of_counts
from triton_reg.metrics.similarity import ncc


def measure_pair(pair: RegisteredPair, families: Iterable[str] = ()) -> dict[str, Any]:
    """The measures of one pair, by column name; NaN never appears, what is unknown is absent.

    What compares the two subjects, similarity and overlap, looks only inside both masks.

    Args:
        pair: judged on its own fixed grid.
        families: measures beyond the headline ones, see :mod:`cohort.engine.families`.

    Raises:
        ValueError: if a displacement is not finite: it would pass for one that lacks measures.
    """
    backward = () if pair.backward is None else (pair.backward.vectors,)
    if not all(bool(vectors.isfinite().all()) for vectors in (pair.vectors, *backward)):
        raise ValueError("the method's displacement holds NaN or infinity; need finite vectors")
    fixed, moving = pair.fixed, pair.moving
    jacobian = jacobian_measures(pair.vectors)
    before, after = pair.compared
    everywhere = torch.ones_like(fixed.mask)
    measures: dict[str, Any] = {
        "ncc_before": ncc(fixed.volume, moving.volume, before).item(),
        "ncc": ncc(fixed.volume, pair.warped_volume, after).item(),
        "folding": jacobian.folding.item(),
        "sdlogj": jacobian.sdlogj.item(),
        "displacement_mean_mm": mean_length_mm(pair.vectors, pair.spacing_mm, everywhere).item(),
    }
    measures |= _dice(pair) | _keypoint_errors(pair) | _endpoint_errors(pair)
    for family in families:
        measures |= MEASURES[family](pair)
    return {name: value for name, value in measures.items() if not _is_nan(value)}


def _dice(pair: RegisteredPair) -> dict[str, Any]:
    """Dice of the structures that both subjects have, before and after, where compared."""
    if not pair.has_labels or not len(pair.structures):
        return {}
    # a structure that warping has moved out of the grid overlaps by nothing
    scores = dice_of_counts(pair.counts_after[:, pair.structures]).nan_to_num(0.0)
    scores_before = dice_of_counts(pair.counts_before[:, pair.structures])
    names = pair.structures.tolist()
    return {
        "dice_mean": scores.mean().item(),
        "dice_before": scores_before.mean().item(),
        "dice": list(zip(names, scores.tolist(), strict=True)),
        "dice_structures_before": list(zip(names, scores_before.tolist(), strict=True)),
    }


def _keypoint_errors(pair: RegisteredPair) -> dict[str, float]:
    """Distances between corresponding keypoints in mm of the moving subject's own world; nothing
    unless both subjects have as many."""
    ours, theirs = pair.fixed.keypoints_mm, pair.moving.keypoints_mm
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return {}
    own = pair.grid.resampled(pair.displacement.fixed_shape)
    device = pair.displacement.vectors.device
    here, there = (
        torch.from_numpy(own.world_to_voxel(one.numpy(force=True))).to(device)
        for one in (ours, theirs)
    )
    step_mm = torch.tensor(own.affine[:3, :3], device=device)
    if pair.moving.to_native_mm is not None:
        step_mm = pair.moving.to_native_mm[:3, :3].to(device) @ step_mm
    after, before = (
        landmark_measures(target_registration_error_mm(here, there, one, step_mm))
        for one in (pair.displacement, still(pair.displacement))
    )
    return {
        "tre_mm": after.mean.item(),
        "tre_before_mm": before.mean.item(),
        "tre_sd_mm": after.sd.item(),
        "tre_p30_mm": after.p30.item(),
        "tre_max_mm": after.largest.item(),
    }


def _endpoint_errors(pair: RegisteredPair) -> dict[str, float]:
    """Distances to the true displacement, where it is known."""
    truth = true_displacement(pair.fixed, pair.moving)
    if truth is None:
        return {}
    inside = pair.fixed.mask if pair.fixed.labels is None else pair.fixed.labels
    return {
        "epe_before_mm": mean_length_mm(truth, pair.spacing_mm, inside).item(),
        "epe_mm": endpoint_error_mm(pair.vectors, truth, pair.spacing_mm, inside).item(),
    }


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
