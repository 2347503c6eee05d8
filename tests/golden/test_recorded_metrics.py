"""Measures against the recorded outputs of published code."""

import math

import numpy as np
import pytest
import torch
from golden.vectors import Vectors

from triton_reg import Displacement
from triton_reg.displacement import jacobian_determinant
from triton_reg.metrics.deformation import deformation_measures
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.label_surfaces import label_surfaces
from triton_reg.metrics.landmarks import moved_points, target_registration_error_mm
from triton_reg.metrics.overlap import label_counts, overlap_measures
from triton_reg.metrics.surface import SurfaceMeasures, surface_measures
from triton_reg.metrics.surface_areas import surface_areas

TOLERANCE = 1e-6  # mm; the kernels hold squares in float32


def measured(vectors: Vectors, fixed: str, warped: str, count: int) -> SurfaceMeasures:
    first, second, third = vectors.take("spacing").tolist()
    structures = torch.arange(1, count)
    one, other = (
        label_surfaces(torch.from_numpy(vectors.take(name)), structures) for name in (fixed, warped)
    )
    return surface_measures(one, other, (first, second, third), 1.0)


@pytest.fixture
def vectors() -> Vectors:
    return Vectors("metrics.npz")


def test_surface_distances_are_those_recorded(vectors: Vectors) -> None:
    count = int(vectors.take("num_classes"))
    found = measured(vectors, "labels_fixed", "labels_warped", count)
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


def test_unit_spacing_is_that_recorded(vectors: Vectors) -> None:
    count = int(vectors.take("num_classes"))
    found = measured(vectors, "labels_fixed", "labels_warped", count).hd95_vox
    recorded = vectors.take("hd95_label_unit_spacing")[1:]
    np.testing.assert_allclose(found, recorded, rtol=0, atol=TOLERANCE)


def test_the_tiny_case_by_its_corners(vectors: Vectors) -> None:
    first, second, third = vectors.take("spacing").tolist()
    one, other = (
        label_surfaces(torch.from_numpy(vectors.take(name)), torch.tensor([1]))
        for name in ("tiny_a", "tiny_b")
    )
    areas = surface_areas((first, second, third))
    for surfaces, key in ((one, "tiny_area_a"), (other, "tiny_area_b")):
        found = areas[surfaces.codes.long()].sort().values
        np.testing.assert_allclose(found, np.sort(vectors.take(key)), rtol=1e-12)
    found = measured(vectors, "tiny_a", "tiny_b", 2)
    assert found.hd95_mm.item() == pytest.approx(float(vectors.take("tiny_hd95")))
    for key, area, mean in (
        ("tiny_d_ab", "tiny_area_a", found.to_warped_mm),
        ("tiny_d_ba", "tiny_area_b", found.to_fixed_mm),
    ):
        expected = np.average(vectors.take(key), weights=vectors.take(area))
        assert mean.item() == pytest.approx(expected, abs=TOLERANCE)


def test_overlap_is_that_recorded(vectors: Vectors) -> None:
    count = int(vectors.take("num_classes"))
    fixed, warped = (
        torch.from_numpy(vectors.take(name)).int() for name in ("labels_fixed", "labels_warped")
    )
    counts = label_counts(fixed, warped, count)[:, 1:count]
    recorded = vectors.take("dice_mean")
    # the recorded ones have 1e-5 in their denominator, and score 0 where a structure is absent
    scores = overlap_measures(counts, absent="zero").dice
    np.testing.assert_allclose(scores, recorded[1:], rtol=0, atol=1e-6)
    assert scores.mean().item() == pytest.approx(float(recorded[0]), abs=1e-6)


def test_the_jacobian_measures_are_those_recorded(vectors: Vectors) -> None:
    flow = torch.from_numpy(vectors.take("flow"))[None]
    for field, prefix in ((flow, ""), (2.5 * flow, "fold_")):
        inside = jacobian_determinant(field)[0, 1:-1, 1:-1, 1:-1].double()
        # VoxelOpt's code clips at 1e-8 where Learn2Reg, and we, clip at 1e-9
        theirs, ours = ((inside + 3).clamp(low, 1 / low).log() for low in (1e-8, 1e-9))
        recorded = float(vectors.take(f"{prefix}sdlogj"))
        assert theirs.std(correction=0).item() == pytest.approx(recorded, rel=1e-5)
        found = deformation_measures(field, (1.0, 1.0, 1.0)).sdlogj_l2r.item()
        assert found == pytest.approx(ours.std(correction=0).item(), rel=1e-5)
    folding = jacobian_measures(flow).folding.item()
    assert folding == pytest.approx(float(vectors.take("neg_fraction_crop_denominator")), abs=1e-9)
    # VoxelOpt's code divides by the voxels of the volume before it was cropped by 2
    inner, whole = math.prod(size - 4 for size in flow.shape[2:]), math.prod(flow.shape[2:])
    folded = jacobian_measures(2.5 * flow).folding.item() * inner / whole
    assert folded == pytest.approx(float(vectors.take("fold_neg_fraction_voxelopt")), abs=1e-9)
    determinant = jacobian_determinant(flow)[0, 1:-1, 1:-1, 1:-1][::2, ::2, ::2]
    np.testing.assert_allclose(determinant, vectors.take("jacdet_crop2_sub2"), rtol=0, atol=1e-5)


def test_keypoint_errors_are_those_recorded(vectors: Vectors) -> None:
    flow = torch.from_numpy(vectors.take("flow"))[None]
    shape = (flow.shape[2], flow.shape[3], flow.shape[4])
    displacement = Displacement(flow, shape, shape)
    fixed, moving, moved = (
        torch.from_numpy(vectors.take(f"points_{name}")) for name in ("fixed", "moving", "moved")
    )
    np.testing.assert_allclose(moved_points(fixed, displacement), moved, rtol=0, atol=1e-4)
    step_mm = torch.diag(torch.from_numpy(vectors.take("spacing")).float())
    errors = target_registration_error_mm(fixed, moving, displacement, step_mm)
    np.testing.assert_allclose(errors, vectors.take("tre"), rtol=0, atol=1e-4)
