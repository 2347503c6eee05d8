"""Distances between corresponding points."""

from typing import NamedTuple

import torch
from torch import Tensor

from triton_reg.displacement import Displacement, moved_points


class LandmarkMeasures(NamedTuple):
    """Distances in mm over the points of a pair, each a scalar: mean, standard deviation, 30th
    percentile (as Learn2Reg reports it) and maximum."""

    mean: Tensor
    sd: Tensor
    p30: Tensor
    largest: Tensor


def target_registration_error_mm(
    fixed_points: Tensor, moving_points: Tensor, displacement: Displacement, voxel_to_mm: Tensor
) -> Tensor:
    """Distances between where a displacement sends fixed points and the moving points they are.

    Args:
        fixed_points: ``[K, 3]`` in fixed voxels.
        moving_points: ``[K, 3]`` in moving voxels, the same points in the same order.
        displacement: of one pair.
        voxel_to_mm: ``[3, 3]``, a step in moving voxels -> the step in mm to measure.

    Returns:
        ``[K]`` in mm.

    Raises:
        ValueError: if the points differ in number, or as :func:`moved_points` does.
    """
    if fixed_points.shape != moving_points.shape:
        raise ValueError(
            f"target_registration_error_mm: both need the same points, got "
            f"{list(fixed_points.shape)} fixed and {list(moving_points.shape)} moving"
        )
    away = moved_points(fixed_points, displacement) - moving_points
    return torch.linalg.vector_norm(away @ voxel_to_mm.T, dim=1)


def landmark_measures(distances_mm: Tensor) -> LandmarkMeasures:
    """Measures of the distances ``[K]``, of at least one point."""
    if not distances_mm.numel():
        raise ValueError("landmark_measures: needs at least one point, got none")
    return LandmarkMeasures(
        mean=distances_mm.mean(),
        sd=distances_mm.std(correction=0),
        p30=distances_mm.quantile(0.3),
        largest=distances_mm.max(),
    )
