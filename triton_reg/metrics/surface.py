"""Distances between the surfaces of labelled structures."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from triton_reg.metrics.label_surfaces import Surfaces
from triton_reg.metrics.surface_areas import surface_areas
from triton_reg.ops.checks import check_spacing
from triton_reg.ops.distance_transform import distance_transform_reference
from triton_reg.ops.operators import array, check_device
from triton_reg.ops.resize import Spacing

_SHARE = 0.95
# areas that add up to the share, and distances that are the tolerance, count whatever the rounding:
# areas are summed in float64, squared distances held in float32
_AREA_SLACK, _DISTANCE_SLACK = 1e-9, 1e-6
_AREA, _WEIGHTED, _WITHIN, _PERCENTILE, _GREATEST = range(5)  # columns of what a direction sums up
Sums = Callable[[Surfaces, Surfaces, Spacing, float], Tensor]


class SurfaceMeasures(NamedTuple):
    """Distances between two surfaces of each structure, ``[M]`` float64, NaN where either map has
    no voxel of it.

    Every corner counts with the area of surface around it. ``hd95_mm`` and ``hd_mm`` are the larger
    of both directions' 95th percentile and maximum; ``hd95_vox`` is in voxels, as Learn2Reg counts;
    ``to_warped_mm`` and ``to_fixed_mm`` are mean distances from the other surface to that one;
    ``surface_dice`` is the share of both surfaces that lies within the tolerance of the other.
    """

    hd95_mm: Tensor
    hd_mm: Tensor
    hd95_vox: Tensor
    to_warped_mm: Tensor
    to_fixed_mm: Tensor
    surface_dice: Tensor


def surface_measures(
    fixed: Surfaces, warped: Surfaces, spacing_mm: Spacing, tolerance_mm: float
) -> SurfaceMeasures:
    """Distances between the fixed and the warped surface of every structure.

    As DeepMind's ``surface-distance`` defines them (Nikolov et al., "Clinically applicable
    segmentation of head and neck anatomy", J Med Internet Res 23, 2021). Kernels on CPUs and on
    GPUs.

    Args:
        fixed, warped: of label maps on one grid, with the same structures.
        spacing_mm: of the grid.
        tolerance_mm: for ``surface_dice``; a distance equal to it counts as within.

    Raises:
        ValueError: if the structures differ, or a spacing or the tolerance is not above 0.
    """
    if not torch.equal(fixed.structures, warped.structures):
        raise ValueError(
            f"surface_measures: fixed and warped must have the same structures in the same order, "
            f"got {fixed.structures.tolist()} and {warped.structures.tolist()}"
        )
    check_spacing("surface_measures", spacing_mm)
    if not tolerance_mm >= 0:
        raise ValueError(f"surface_measures: tolerance_mm must not be negative, got {tolerance_mm}")
    check_device("surface_measures", fixed.corners)
    sums = _sums_cuda if fixed.corners.is_cuda else _sums
    return _measures(fixed, warped, spacing_mm, tolerance_mm, sums)


def surface_measures_reference(
    fixed: Surfaces, warped: Surfaces, spacing_mm: Spacing, tolerance_mm: float
) -> SurfaceMeasures:
    """Plain torch definition of :func:`surface_measures`."""
    return _measures(fixed, warped, spacing_mm, tolerance_mm, _sums_reference)


def _measures(
    fixed: Surfaces, warped: Surfaces, spacing_mm: Spacing, tolerance_mm: float, sums: Sums
) -> SurfaceMeasures:
    to_warped = sums(fixed, warped, spacing_mm, tolerance_mm)
    to_fixed = sums(warped, fixed, spacing_mm, tolerance_mm)
    larger, both = torch.maximum(to_warped, to_fixed), to_warped + to_fixed
    if len(set(spacing_mm)) == 1:
        hd95_vox = larger[:, _PERCENTILE] / spacing_mm[0]
    else:
        voxels = (1.0, 1.0, 1.0)
        directions = sums(fixed, warped, voxels, 0.0), sums(warped, fixed, voxels, 0.0)
        hd95_vox = torch.maximum(*directions)[:, _PERCENTILE]
    return SurfaceMeasures(
        hd95_mm=larger[:, _PERCENTILE],
        hd_mm=larger[:, _GREATEST],
        hd95_vox=hd95_vox,
        to_warped_mm=to_warped[:, _WEIGHTED] / to_warped[:, _AREA],
        to_fixed_mm=to_fixed[:, _WEIGHTED] / to_fixed[:, _AREA],
        surface_dice=both[:, _WITHIN] / both[:, _AREA],
    )


def _sums(one: Surfaces, other: Surfaces, spacing: Spacing, tolerance: float) -> Tensor:
    """Compiled version of :func:`_sums_reference`."""
    from triton_reg.ops._cpu.surface_distances import surface_sums

    unit, squares, limits = _in_units(spacing, tolerance)
    sums = np.full((len(one.structures), 5), np.nan)
    areas = array(surface_areas(spacing)[one.codes.long()])
    surface_sums(
        array(one.starts), array(one.corners), areas, array(other.starts), array(other.corners),
        np.array(squares), limits, sums,
    )  # fmt: skip
    sums[:, [_WEIGHTED, _PERCENTILE, _GREATEST]] *= unit
    return torch.from_numpy(sums)


def _sums_cuda(one: Surfaces, other: Surfaces, spacing: Spacing, tolerance: float) -> Tensor:
    """The GPU's version of :func:`_sums_reference`."""
    from triton_reg.ops._triton.surface_distances import surface_sums

    unit, squares, limits = _in_units(spacing, tolerance)
    areas = surface_areas(spacing).to(one.codes.device)[one.codes.long()]
    with torch.cuda.device_of(areas):
        surfaces = (one.starts, one.corners), (other.starts, other.corners)
        sums = surface_sums(*surfaces, areas, squares, limits)
    sums[:, [_WEIGHTED, _PERCENTILE, _GREATEST]] *= unit
    return sums


def _in_units(
    spacing: Spacing, tolerance: float
) -> tuple[float, tuple[float, float, float], tuple[float, float]]:
    """The least spacing; in its unit, so that the float32 squares of an isotropic grid are exact,
    the squared spacings; the share of the area, and the largest squared distance within."""
    unit = min(spacing)
    first, second, third = ((step / unit) ** 2 for step in spacing)
    limits = _SHARE * (1 - _AREA_SLACK), (tolerance / unit * (1 + _DISTANCE_SLACK)) ** 2
    return unit, (first, second, third), limits


def _sums_reference(one: Surfaces, other: Surfaces, spacing: Spacing, tolerance: float) -> Tensor:
    """What is reported of the distances from one map's surface of each structure to the other's.

    Returns:
        ``[M, 5]`` float64: area, area times distance, area within the tolerance, 95th percentile
        and maximum; NaN where a surface is empty.
    """
    device = one.codes.device
    areas = surface_areas(spacing).to(device)[one.codes.long()]
    sums = torch.full((len(one.structures), 5), torch.nan, dtype=torch.float64, device=device)
    for structure in range(len(sums)):
        mine, others = (_of(surfaces, structure) for surfaces in (one, other))
        area = areas[mine]
        if not len(area) or not len(other.codes[others]):
            continue
        distance = _nearest(one.corners[mine], other.corners[others], spacing)
        distance, order = distance.sort()
        area = area[order]
        cumulative = area.cumsum(0)
        reached = cumulative >= _SHARE * (1 - _AREA_SLACK) * cumulative[-1]
        sums[structure] = torch.stack([
            area.sum(),
            (area * distance).sum(),
            area[distance <= tolerance * (1 + _DISTANCE_SLACK)].sum(),
            distance[reached][0],
            distance[-1],
        ])  # fmt: skip
    return sums


def _of(surfaces: Surfaces, structure: int) -> slice:
    begin, end = surfaces.starts[structure : structure + 2].tolist()
    return slice(begin, end)


def _nearest(corners: Tensor, others: Tensor, spacing: Spacing) -> Tensor:
    """Distance ``[P]`` of each corner ``[P, 3]`` to the nearest of the others ``[Q, 3]``."""
    both = torch.cat([corners, others]).long()
    low = both.amin(0)
    shape = (both.amax(0) - low + 1).tolist()
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool, device=corners.device)
    mask[0, 0, *(others - low).long().unbind(1)] = True
    squares = distance_transform_reference(mask, spacing, torch.float64)
    return squares[0, 0, *(corners - low).long().unbind(1)].sqrt()
