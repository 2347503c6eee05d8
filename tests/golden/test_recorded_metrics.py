"""Measures against the recorded outputs of published code.

Each on every path: compiled, and the plain definition in float32 and in float64.
"""

import math

import numpy as np
import pytest
import torch
from golden.vectors import Vectors

from triton_reg import Displacement
from triton_reg.displacement import jacobian_determinant
from triton_reg.metrics.deformation import deformation_measures, deformation_measures_reference
from triton_reg.metrics.jacobian import jacobian_measures, jacobian_measures_reference
from triton_reg.metrics.label_surfaces import label_surfaces, label_surfaces_reference
from triton_reg.metrics.landmarks import moved_points, target_registration_error_mm
from triton_reg.metrics.overlap import label_counts, label_counts_reference, overlap_measures
from triton_reg.metrics.surface import (
    SurfaceMeasures,
    surface_measures,
    surface_measures_reference,
)
from triton_reg.metrics.surface_areas import surface_areas

TOLERANCE = 1e-6  # mm; the kernels hold squares in float32
# surfaces are made of integers, and their definition measures in float64
SURFACE_PATHS = {
    "compiled": (label_surfaces, surface_measures),
    "definition": (label_surfaces_reference, surface_measures_reference),
}
on_each_surface_path = pytest.mark.parametrize("path", SURFACE_PATHS)
# float32 runs the kernels
FIELD_PATHS = {
    "compiled": (deformation_measures, jacobian_measures, torch.float32),
    "definition, float32": (
        deformation_measures_reference, jacobian_measures_reference, torch.float32
    ),
    "definition, float64": (
        deformation_measures_reference, jacobian_measures_reference, torch.float64
    ),
}  # fmt: skip


def measured(
    vectors: Vectors, fixed: str, warped: str, count: int, path: str = "compiled"
) -> SurfaceMeasures:
    first, second, third = vectors.take("spacing").tolist()
    surfaces, measures = SURFACE_PATHS[path]
    structures = torch.arange(1, count)
    one, other = (
        surfaces(torch.from_numpy(vectors.take(name)), structures) for name in (fixed, warped)
    )
    return measures(one, other, (first, second, third), 1.0)


@pytest.fixture
def vectors() -> Vectors:
    return Vectors("metrics.npz")


@on_each_surface_path
def test_surface_distances_are_those_recorded(vectors: Vectors, path: str) -> None:
    count = int(vectors.take("num_classes"))
    found = measured(vectors, "labels_fixed", "labels_warped", count, path)
    for key, values in {
        "hd95_label": found.hd95_mm,
        "hd100_label": found.hd_mm,
        "asd_fixed_to_warped": found.to_warped_mm,
        "asd_warped_to_fixed": found.to_fixed_mm,
    }.items():
        expected = vectors.take(key)[1:]
        np.testing.assert_allclose(values, expected, rtol=0, atol=TOLERANCE, err_msg=key)
    mean = found.hd95_mm.nanmean().item()
    assert mean == pytest.approx(float(vectors.take("hd95_voxelopt_mean")), abs=TOLERANCE)


@on_each_surface_path
def test_unit_spacing_is_that_recorded(vectors: Vectors, path: str) -> None:
    count = int(vectors.take("num_classes"))
    found = measured(vectors, "labels_fixed", "labels_warped", count, path).hd95_vox
    recorded = vectors.take("hd95_label_unit_spacing")[1:]
    np.testing.assert_allclose(found, recorded, rtol=0, atol=TOLERANCE)


@on_each_surface_path
def test_the_tiny_case_by_its_corners(vectors: Vectors, path: str) -> None:
    first, second, third = vectors.take("spacing").tolist()
    one, other = (
        SURFACE_PATHS[path][0](torch.from_numpy(vectors.take(name)), torch.tensor([1]))
        for name in ("tiny_a", "tiny_b")
    )
    areas = surface_areas((first, second, third))
    for surfaces, key in ((one, "tiny_area_a"), (other, "tiny_area_b")):
        found = areas[surfaces.codes.long()].sort().values
        np.testing.assert_allclose(found, np.sort(vectors.take(key)), rtol=1e-12)
    found = measured(vectors, "tiny_a", "tiny_b", 2, path)
    assert found.hd95_mm.item() == pytest.approx(float(vectors.take("tiny_hd95")))
    for key, area, mean in (
        ("tiny_d_ab", "tiny_area_a", found.to_warped_mm),
        ("tiny_d_ba", "tiny_area_b", found.to_fixed_mm),
    ):
        expected = np.average(vectors.take(key), weights=vectors.take(area))
        assert mean.item() == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("counted", [label_counts, label_counts_reference])
def test_overlap_is_that_recorded(vectors: Vectors, counted) -> None:
    count = int(vectors.take("num_classes"))
    fixed, warped = (
        torch.from_numpy(vectors.take(name)).int() for name in ("labels_fixed", "labels_warped")
    )
    counts = counted(fixed, warped, count)[:, 1:count]
    recorded = vectors.take("dice_mean")
    # the recorded ones have 1e-5 in their denominator, and score 0 where a structure is absent
    scores = overlap_measures(counts, absent="zero").dice
    np.testing.assert_allclose(scores, recorded[1:], rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores, vectors.take("dice_binary"), rtol=0, atol=1e-6)
    assert scores.mean().item() == pytest.approx(float(recorded[0]), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_warped_labels_are_those_recorded(vectors: Vectors, dtype: torch.dtype) -> None:
    flow, labels = vectors.tensor("flow", dtype), vectors.tensor("labels_moving", dtype)[None]
    shape = (flow.shape[2], flow.shape[3], flow.shape[4])
    warped = Displacement(flow, shape, shape).warp(labels, interpolation="nearest")
    np.testing.assert_array_equal(warped[0, 0], vectors.take("labels_warped"))


@pytest.mark.parametrize("path", FIELD_PATHS)
def test_the_jacobian_measures_are_those_recorded(vectors: Vectors, path: str) -> None:
    deformation, jacobian, dtype = FIELD_PATHS[path]
    flow = vectors.tensor("flow", dtype)
    for field, prefix in ((flow, ""), (2.5 * flow, "fold_")):
        inside = jacobian_determinant(field)[0, 1:-1, 1:-1, 1:-1].double()
        # VoxelOpt's code clips at 1e-8 where Learn2Reg, and we, clip at 1e-9
        theirs, ours = ((inside + 3).clamp(low, 1 / low).log() for low in (1e-8, 1e-9))
        recorded = float(vectors.take(f"{prefix}sdlogj"))
        assert theirs.std(correction=0).item() == pytest.approx(recorded, rel=1e-5)
        found = deformation(field, (1.0, 1.0, 1.0)).sdlogj_l2r.item()
        assert found == pytest.approx(ours.std(correction=0).item(), rel=1e-5)
    # of the folded field, the last of the two
    extremes = [inside.min().item(), inside.max().item()]
    assert extremes == pytest.approx(vectors.take("fold_jac_minmax").tolist(), rel=1e-5)
    inner, whole = math.prod(size - 4 for size in flow.shape[2:]), math.prod(flow.shape[2:])
    folding = jacobian(flow).folding.item()
    recorded = float(vectors.take("neg_fraction_crop_denominator"))
    assert folding == pytest.approx(recorded, abs=1e-9)
    # VoxelOpt's code divides by the voxels of the volume before it was cropped by 2
    for share, key in ((folding, ""), (jacobian(2.5 * flow).folding.item(), "fold_")):
        recorded = float(vectors.take(f"{key}neg_fraction_voxelopt"))
        assert share * inner / whole == pytest.approx(recorded, abs=1e-9)
    determinant = jacobian_determinant(flow)[0, 1:-1, 1:-1, 1:-1][::2, ::2, ::2]
    np.testing.assert_allclose(determinant, vectors.take("jacdet_crop2_sub2"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_keypoint_errors_are_those_recorded(vectors: Vectors, dtype: torch.dtype) -> None:
    flow = vectors.tensor("flow", dtype)
    shape = (flow.shape[2], flow.shape[3], flow.shape[4])
    displacement = Displacement(flow, shape, shape)
    fixed, moving, moved = (
        torch.from_numpy(vectors.take(f"points_{name}")).to(dtype)
        for name in ("fixed", "moving", "moved")
    )
    np.testing.assert_allclose(moved_points(fixed, displacement), moved, rtol=0, atol=1e-4)
    step_mm = torch.diag(torch.from_numpy(vectors.take("spacing")).to(dtype))
    errors = target_registration_error_mm(fixed, moving, displacement, step_mm)
    np.testing.assert_allclose(errors, vectors.take("tre"), rtol=0, atol=1e-4)
