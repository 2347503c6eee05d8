"""The measures of a pair on one GPU: parity first, then each kernel beside its floor, then pairs.

    PYTHONPATH=. python benchmarks/metrics_gpu.py        (2 minutes at most on a large card)

It needs torch, triton and numpy alone. Two maps of 35 wavy structures, two volumes and a smooth
displacement; the fixed subject's surfaces are made before. Whatever was measured is written to
``benchmarks/results/metrics_gpu_<card>.csv``, also if a later section fails. Exit codes: 0 all
good, 1 a section failed (nothing is timed if the kernels and the plain-torch definitions disagree
on the card), 2 there is no GPU.

Floors are the bytes that must be read and written over the measured rate of a copy; arrays smaller
than the L2 cache are read from there, so the ratio may be below 1. The nearest corners are bound by
arithmetic: their row has no floor. ``pair`` rows end with values on the host, as a run has them.
"""

# ruff: noqa: T201

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_sections import DEVICE, bandwidth, run_benchmark
from benchmarks.gpu_timing import Report, median_launch_us, median_us
from benchmarks.voxelopt_gpu import FULL, HALF
from benchmarks.voxelopt_parity import Shape, noise
from triton_reg import Displacement
from triton_reg.metrics import deformation, jacobian, overlap, similarity, surface
from triton_reg.metrics.label_surfaces import (
    Surfaces,
    label_surfaces,
    label_surfaces_reference,
)
from triton_reg.ops._triton import deformation as deformation_kernels
from triton_reg.ops._triton import jacobian as jacobian_kernels
from triton_reg.ops._triton import overlap as overlap_kernels
from triton_reg.ops._triton import similarity as similarity_kernels
from triton_reg.ops._triton import surface_distances as distance_kernels
from triton_reg.ops.distance_transform import Spacing
from triton_reg.ops.warp import warp

STRUCTURES = 35
SPACING, TOLERANCE = (2.0, 2.0, 2.0), 2.0
PARITY_SHAPES, SHAPES = ((48, 40, 64), (50, 43, 61)), (HALF, FULL)


@dataclass(frozen=True)
class Case:
    """A registered pair on the card; labels ``[1, 1, D, H, W]`` int32."""

    fixed: Tensor
    moving: Tensor
    volumes: tuple[Tensor, Tensor, Tensor]
    displacement: Displacement
    structures: Tensor
    surfaces: Surfaces

    @property
    def vectors(self) -> Tensor:
        return self.displacement.vectors

    @property
    def warped(self) -> Tensor:
        labels = warp(self.moving.float(), self.vectors, interpolation="nearest")
        return labels.to(self.moving.dtype)


@lru_cache(maxsize=1)
def make_case(shape: Shape) -> Case:
    fields = noise(shape, 1, STRUCTURES + 1, 12).to(DEVICE)
    fixed = fields.argmax(1, keepdim=True).int()
    vectors = 2 * noise(shape, 2, 3, 16).to(DEVICE)
    moving = warp(fixed.float(), 0.7 * vectors, interpolation="nearest").int()
    volume = noise(shape, 3, 1, 4).to(DEVICE)
    volumes = volume, warp(volume, vectors), (fields[:, :1] > -1).float()
    structures = torch.arange(1, STRUCTURES + 1, device=DEVICE)
    surfaces = label_surfaces(fixed[0, 0], structures)
    return Case(fixed, moving, volumes, Displacement(vectors, shape, shape), structures, surfaces)


def parity(report: Report) -> None:
    """Stops everything where kernels and definitions disagree."""
    del report
    for shape in PARITY_SHAPES:
        case = make_case(shape)
        # near ties between voxels fall as they do in the warp, so that is what is counted
        counts = overlap.warped_label_counts(
            case.fixed, case.moving, case.displacement, STRUCTURES + 1
        )
        expected = overlap.label_counts_reference(case.fixed, case.warped, STRUCTURES + 1)
        assert torch.equal(counts, expected), f"{shape}: overlap differs"
        labels = case.warped[0, 0], case.structures
        warped = label_surfaces(*labels)
        for ours, theirs in zip(warped, label_surfaces_reference(*labels), strict=True):
            assert torch.equal(ours, theirs), f"{shape}: surfaces differ"
        folding = jacobian.jacobian_measures(case.vectors).folding
        expected = jacobian.jacobian_measures_reference(case.vectors).folding
        assert torch.equal(folding, expected), f"{shape}: folding differs"
        for spacing in (SPACING, (1.0, 1.5, 3.0)):
            check_measures(case, warped, spacing)
        print(f"  {shape}: equal counts, corners and folding; distances and sums to rounding")


def check_measures(case: Case, warped: Surfaces, spacing: Spacing) -> None:
    """Raises ``AssertionError`` where a measure is off, or changes from run to run."""
    truth, volumes = case.vectors.double(), [one.double() for one in case.volumes]
    agree(
        lambda: surface.surface_measures(case.surfaces, warped, spacing, TOLERANCE),
        surface.surface_measures_reference(case.surfaces, warped, spacing, TOLERANCE),
    )
    agree(
        lambda: deformation.deformation_measures(case.vectors, spacing),
        deformation.deformation_measures_reference(truth, spacing),
    )
    agree(
        lambda: jacobian.jacobian_measures(case.vectors),
        jacobian.jacobian_measures_reference(truth),
    )
    agree(
        lambda: similarity.ncc_and_mse(*case.volumes),
        similarity.ncc_and_mse_reference(volumes[0], volumes[1], volumes[2]),
    )


def agree(measure: Callable[[], Iterable[Tensor]], expected: Iterable[Tensor]) -> None:
    for ours, again, theirs in zip(measure(), measure(), expected, strict=True):
        assert torch.equal(ours.nan_to_num(), again.nan_to_num()), "other bits in a second run"
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, equal_nan=True)


def kernels(report: Report) -> None:
    """Each kernel with the sums that follow it, without what Python and waiting take."""
    for shape in SHAPES:
        case = make_case(shape)
        for name, (size_bytes, launch) in kernel_launches(case).items():
            time_us, size = median_launch_us(launch), case.fixed.numel() * size_bytes
            report.add("kernel", name, time_us=time_us, shape=shape, batch=1, bytes=size)
        warped = label_surfaces(case.warped[0, 0], case.structures)
        name = f"nearest of {len(warped.corners)} for {len(case.surfaces.corners)} corners"
        time_us = median_launch_us(partial(nearest, case.surfaces, warped))
        report.add("kernel", name, time_us=time_us, shape=shape, batch=1)


def kernel_launches(case: Case) -> dict[str, tuple[int, Callable[[], object]]]:
    """Bytes a voxel that are read or written, and the launch."""
    maps, (first, second, mask) = (case.fixed[0, 0], case.moving[0, 0]), case.volumes
    flat = first.flatten(1), second.flatten(1), mask.flatten(1)
    vectors = case.vectors
    return {
        "overlap": (
            20,
            lambda: overlap_kernels.label_counts(*maps, STRUCTURES + 1, vectors[0]),
        ),
        "jacobian": (12, lambda: jacobian_kernels.jacobian_sums(vectors, 2)),
        "deformation": (16, lambda: deformation_kernels.deformation_sweep(vectors, SPACING)),
        "correlation": (12, lambda: similarity_kernels.correlation_sums(*flat)),
    }


def nearest(one: Surfaces, other: Surfaces) -> Tensor:
    sides = (one.starts, one.corners), (other.starts, other.corners)
    return distance_kernels.nearest_corners(*sides, (1.0, 1.0, 1.0))


def pairs(report: Report) -> None:
    """The measures of a pair, by the kernels and by their definitions, ready on the host."""
    for shape in SHAPES:
        for name, way in pair_ways(make_case(shape)).items():
            time_us = median_us(partial(on_host, way), 5)
            report.add("pair", name, time_us=time_us, shape=shape, batch=1)


def on_host(way: Callable[[], Tensor]) -> object:
    return way().tolist()


def pair_ways(case: Case) -> dict[str, Callable[[], Tensor]]:
    """Each family of measures by the kernels, then by plain torch on the same card."""
    counted = case.fixed, case.moving, case.displacement, STRUCTURES + 1
    vectors, volumes = case.vectors, case.volumes

    def distances(corners: Callable[..., Surfaces], measures: Callable[..., Any]) -> Tensor:
        warped = corners(case.warped[0, 0], case.structures)
        return measures(case.surfaces, warped, SPACING, TOLERANCE).hd95_mm

    plain_jacobian = jacobian.jacobian_measures_reference
    plain_deformation = deformation.deformation_measures_reference
    plain_distances = label_surfaces_reference, surface.surface_measures_reference
    return {
        "overlap": lambda: overlap.warped_label_counts(*counted),
        "overlap, plain torch": lambda: overlap.warped_label_counts_reference(*counted),
        "jacobian": lambda: jacobian.jacobian_measures(vectors).sdlogj,
        "jacobian, plain torch": lambda: plain_jacobian(vectors).sdlogj,
        "deformation": lambda: deformation.deformation_measures(vectors, SPACING).ndv,
        "deformation, plain torch": lambda: plain_deformation(vectors, SPACING).ndv,
        "surface": lambda: distances(label_surfaces, surface.surface_measures),
        "surface, plain torch": lambda: distances(*plain_distances),
        "correlation": lambda: similarity.ncc(*volumes),
        "correlation, plain torch": lambda: similarity.ncc_and_mse_reference(*volumes)[0],
    }


def main() -> int:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    return run_benchmark("metrics_gpu", parity, (bandwidth, kernels, pairs))


if __name__ == "__main__":
    sys.exit(main())
