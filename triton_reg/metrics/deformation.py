"""What a displacement does to space: volume change, folding between voxels, bending, length."""

from collections.abc import Callable
from math import ceil, floor, prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from triton_reg.displacement import jacobian_determinant
from triton_reg.ops.checks import check_displacement
from triton_reg.ops.operators import array, check_device, has_kernel

_CROP = 2  # voxels left out on each side, as in triton_reg.metrics.jacobian
_LOWEST = 1e-3
_LEARN2REG_OFFSET, _LEARN2REG_RANGE = 3.0, (1e-9, 1e9)
# corners of a unit cube: of each splitting into five tetrahedra the four that are cut off
_CORNERS = (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)),
    ((0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)),
)


class DeformationMeasures(NamedTuple):
    """Each ``[B]`` float64.

    Attributes:
        sdlogj_l2r: standard deviation of ``ln clip(det J + 3, 1e-9, 1e9)``, Learn2Reg's convention.
        logj_mean, logj_p05, logj_p50, logj_p95: mean and percentiles of ``ln max(det J, 1e-3)``.
        ndv: non-diffeomorphic volume: the volume that is turned inside out by the piecewise linear
            map between voxels, as a share of the volume.
        bending_energy: mean of the squared second derivatives of the displacement, in 1/mm².
        displacement_p50_mm, displacement_p95_mm, displacement_max_mm, displacement_rms_mm: of its
            lengths; the last is their root mean square.
    """

    sdlogj_l2r: Tensor
    logj_mean: Tensor
    logj_p05: Tensor
    logj_p50: Tensor
    logj_p95: Tensor
    ndv: Tensor
    bending_energy: Tensor
    displacement_p50_mm: Tensor
    displacement_p95_mm: Tensor
    displacement_max_mm: Tensor
    displacement_rms_mm: Tensor


def deformation_measures(
    vectors: Tensor, spacing_mm: tuple[float, float, float]
) -> DeformationMeasures:
    """Measures of displacements; what needs ``det J`` over the volume cropped by 2 voxels.

    The non-diffeomorphic volume is that of Liu et al., "On finite difference Jacobian computation
    in deformable image registration", IJCV 2024: central differences miss folds between voxels, so
    each cube of eight voxels is split into tetrahedra, in both of the ways to make five of it, and
    what is turned inside out is added up. The bending energy is that of Rueckert et al., IEEE TMI
    1999, with ``∂²u/∂x∂y`` counted twice.

    Args:
        vectors: ``[B, 3, D, H, W]`` in voxels, each size at least 5.
        spacing_mm: of a voxel along each axis.

    Raises:
        ValueError: if a size is below 5.
    """
    check_displacement("deformation_measures", vectors)
    if min(vectors.shape[2:]) <= 2 * _CROP:
        raise ValueError(
            f"deformation_measures: each size must be at least {2 * _CROP + 1}, got "
            f"{list(vectors.shape[2:])}"
        )
    check_device("deformation_measures", vectors)
    if not has_kernel(vectors):
        return deformation_measures_reference(vectors, spacing_mm)
    if vectors.is_cuda:
        return _deformation_measures_cuda(vectors, spacing_mm)
    from triton_reg.ops._cpu.deformation import sweep

    rows = []
    for one in array(vectors):
        determinants, lengths, inverted, bent = sweep(one, np.array(spacing_mm, np.float32), _CROP)
        rows.append([
            *_of_determinants(torch.from_numpy(determinants)),
            inverted,
            bent,
            *_of_lengths(torch.from_numpy(lengths)),
        ])  # fmt: skip
    columns = torch.tensor(rows, dtype=torch.float64).unbind(1)
    return DeformationMeasures(*columns)


def deformation_measures_reference(
    vectors: Tensor, spacing_mm: tuple[float, float, float]
) -> DeformationMeasures:
    """Plain torch definition of :func:`deformation_measures`."""
    inner = (..., *[slice(_CROP - 1, -(_CROP - 1))] * 3)  # determinants lack one voxel already
    determinants = jacobian_determinant(vectors)[inner].flatten(1)
    step_mm = vectors.new_tensor(spacing_mm).view(1, 3, 1, 1, 1)
    lengths = torch.linalg.vector_norm(vectors * step_mm, dim=1).flatten(1)
    rows = [
        [*_of_determinants(one), *_of_lengths(length)]
        for one, length in zip(determinants, lengths, strict=True)
    ]
    found = torch.tensor(rows, dtype=torch.float64, device=vectors.device).unbind(1)
    inverted, bent = inverted_volume(vectors), bending_energy(vectors, spacing_mm)
    return DeformationMeasures._make([*found[:5], inverted, bent, *found[5:]])


def _deformation_measures_cuda(
    vectors: Tensor, spacing_mm: tuple[float, float, float]
) -> DeformationMeasures:
    """All on the device; percentiles from sorted values, interpolated as numpy does."""
    from triton_reg.ops._triton import deformation, jacobian

    inside = prod(size - 2 * _CROP for size in vectors.shape[2:])
    determinants = vectors.new_empty(len(vectors), inside)
    with torch.cuda.device_of(vectors):
        sums, _ = jacobian.jacobian_sums(vectors, _CROP, determinants)
        lengths, inverted, bent = deformation.deformation_sweep(vectors, spacing_mm)
    _, mean, _, learn2reg, square = (sums / inside).unbind(1)
    sdlogj_l2r = (square - learn2reg**2).clamp_min(0).sqrt()
    determinants = determinants.clamp_min(_LOWEST).sort(1)[0]
    lengths = lengths.sort(1)[0]
    logarithms = _of_sorted(determinants, (0.05, 0.5, 0.95), torch.log)
    of_lengths = _of_sorted(lengths, (0.5, 0.95, 1.0))
    root_mean_square = lengths.double().square().mean(1).sqrt()
    found = [sdlogj_l2r, mean, *logarithms, inverted, bent, *of_lengths, root_mean_square]
    return DeformationMeasures._make(found)


def _of_sorted(
    values: Tensor, shares: tuple[float, ...], of: Callable[[Tensor], Tensor] = torch.Tensor.double
) -> list[Tensor]:
    """Percentiles ``[B]`` float64 of a rising function of values ``[B, N]`` sorted by row."""
    # NaN come last, and make every percentile NaN
    hidden, found = torch.where(values[:, -1].isnan(), torch.nan, 0.0), []
    for share in shares:
        place = share * (values.shape[1] - 1)
        below, above = (of(values[:, index].double()) for index in (floor(place), ceil(place)))
        found.append(below + (above - below) * (place - floor(place)) + hidden)
    return found


def inverted_volume(vectors: Tensor) -> Tensor:
    """Share ``[B]`` of the volume that is turned inside out between voxels; plain torch."""
    axes = [
        torch.arange(size, dtype=vectors.dtype, device=vectors.device) for size in vectors.shape[2:]
    ]
    positions = vectors + torch.stack(torch.meshgrid(*axes, indexing="ij"))

    def at(corner: tuple[int, ...]) -> Tensor:
        ends = zip(corner, vectors.shape[2:], strict=True)
        return positions[(..., *(slice(c, size - 1 + c) for c, size in ends))]

    total = torch.zeros(len(vectors), dtype=torch.float64, device=vectors.device)
    for corners in _CORNERS:
        for corner in corners:
            neighbours = [
                at((*corner[:axis], 1 - corner[axis], *corner[axis + 1 :])) - at(corner)
                for axis in range(3)
            ]
            sign = (-1) ** sum(corner)
            total += _negative(sign * _determinant(neighbours))
    # what is left in the middle, between the corners that the other way cuts off
    total += _negative(
        -_determinant([at(c) - at((0, 0, 0)) for c in ((1, 1, 0), (1, 0, 1), (0, 1, 1))])
    )
    total += _negative(
        _determinant([at(c) - at((1, 1, 1)) for c in ((0, 0, 1), (0, 1, 0), (1, 0, 0))])
    )
    cubes = at((0, 0, 0))[0, 0].numel()
    return total / (2 * 6 * cubes)


def bending_energy(vectors: Tensor, spacing_mm: tuple[float, float, float]) -> Tensor:
    """Mean ``[B]`` of all squared second derivatives inside, in 1/mm²; plain torch."""
    inner = (..., *[slice(1, -1)] * 3)
    step_mm = vectors.new_tensor(spacing_mm)
    scaled = vectors * step_mm.view(1, 3, 1, 1, 1)
    total = torch.zeros_like(scaled[inner][:, 0], dtype=torch.float64)
    for one in range(2, 5):
        for other in range(one, 5):
            if one == other:
                second = scaled.roll(1, one) - 2 * scaled + scaled.roll(-1, one)
            else:
                difference = scaled.roll(-1, one) - scaled.roll(1, one)
                second = (difference.roll(-1, other) - difference.roll(1, other)) / 4
            second = second[inner] / (step_mm[one - 2] * step_mm[other - 2])
            total += (1 if one == other else 2) * second.double().square().sum(1)
    return total.flatten(1).mean(1)


def _of_determinants(values: Tensor) -> list[float]:
    """``sdlogj_l2r``, then mean and percentiles of the logarithm, of one pair's determinants."""
    learn2reg = (values.double() + _LEARN2REG_OFFSET).clamp(*_LEARN2REG_RANGE).log()
    logarithm = values.clamp_min(_LOWEST).double().log()
    percentiles = _percentiles(logarithm, (5, 50, 95))
    return [learn2reg.std(correction=0).item(), logarithm.mean().item(), *percentiles]


def _of_lengths(lengths: Tensor) -> list[float]:
    root_mean_square = lengths.double().square().mean().sqrt()
    return [*_percentiles(lengths, (50, 95)), lengths.max().item(), root_mean_square.item()]


def _percentiles(values: Tensor, percents: tuple[int, ...]) -> list[float]:
    return np.percentile(values.cpu().numpy(), percents).tolist()


def _determinant(columns: list[Tensor]) -> Tensor:
    """Determinant ``[B, d, h, w]`` of three vector fields ``[B, 3, d, h, w]``."""
    first, second, third = columns
    return (first * torch.linalg.cross(second, third, dim=1)).sum(1)


def _negative(determinants: Tensor) -> Tensor:
    return -determinants.clamp_max(0).flatten(1).sum(1, dtype=torch.float64)
