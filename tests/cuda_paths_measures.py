"""Measures and affine registration on the GPU that is not there. Run by ``test_cuda_paths.py``."""

import pytest
import torch
from helpers import smooth_volume
from pretend_cuda import gpu
from torch import Tensor

from triton_reg import AffineSettings, Displacement, PlacedVolume, register_affine
from triton_reg.metrics.consistency import inverse_consistency_error_mm
from triton_reg.metrics.deformation import (
    bending_energy,
    deformation_measures,
    inverted_volume,
)
from triton_reg.metrics.discrimination import shift_entropy
from triton_reg.metrics.endpoint import endpoint_error_mm, mean_length_mm
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.label_surfaces import label_surfaces
from triton_reg.metrics.landmarks import landmark_measures, target_registration_error_mm
from triton_reg.metrics.overlap import (
    dice,
    label_counts,
    overlap_measures,
    warped_label_counts,
)
from triton_reg.metrics.similarity import lncc, mutual_information, ncc, ncc_and_mse
from triton_reg.metrics.soft_overlap import soft_label_counts
from triton_reg.metrics.surface import surface_measures
from triton_reg.metrics.transitivity import triangle_errors_mm

pytestmark = pytest.mark.usefixtures("gpu")
__all__ = ["gpu"]  # a fixture for all tests here

SHAPE = (10, 9, 8)
SPACING_MM = (1.0, 2.0, 1.0)


def volume(seed: int) -> Tensor:
    return 100 * smooth_volume(SHAPE, seed).to("cuda")


def labels(seed: int) -> Tensor:
    return (4 * smooth_volume(SHAPE, seed)).int().clamp(0, 3).to("cuda")


def vectors(seed: int, pairs: int = 1) -> Tensor:
    return torch.cat([smooth_volume(SHAPE, seed + row, 3) for row in range(pairs)]).to("cuda") - 0.5


def displacement(seed: int) -> Displacement:
    return Displacement(vectors(seed), SHAPE, SHAPE)


def assert_on_the_gpu(*found: Tensor) -> None:
    assert found
    assert all(one.is_cuda for one in found)


def test_similarity() -> None:
    given = volume(1), volume(2), torch.ones_like(volume(1))
    assert_on_the_gpu(ncc(*given), *ncc_and_mse(*given), lncc(*given), mutual_information(*given))
    assert_on_the_gpu(shift_entropy(vectors(3)))


def test_overlap() -> None:
    fixed, moving, structures = labels(1), labels(2), torch.tensor([1, 2], device="cuda")
    counts = label_counts(fixed, moving)
    assert_on_the_gpu(counts, dice(fixed, moving, structures), *overlap_measures(counts))
    assert_on_the_gpu(warped_label_counts(fixed, moving, displacement(3), 4))
    assert_on_the_gpu(soft_label_counts(fixed, moving, displacement(3)))


def test_surfaces() -> None:
    structures = torch.tensor([1, 2, 3], device="cuda")
    fixed, moving = (label_surfaces(labels(seed)[0, 0], structures) for seed in (1, 2))
    assert_on_the_gpu(*surface_measures(fixed, moving, SPACING_MM, tolerance_mm=2.0))


def test_deformation() -> None:
    both = vectors(1, pairs=2)
    assert_on_the_gpu(*jacobian_measures(both), *deformation_measures(both, SPACING_MM))
    assert_on_the_gpu(inverted_volume(both), bending_energy(both, SPACING_MM))


def test_displacements_compared() -> None:
    first, second, mask = displacement(1), displacement(2), torch.ones_like(volume(1))
    assert_on_the_gpu(
        inverse_consistency_error_mm(first, second, SPACING_MM, mask),
        *triangle_errors_mm(first, second, first.then(second), SPACING_MM, mask),
        endpoint_error_mm(first.vectors, second.vectors, SPACING_MM, mask),
        mean_length_mm(first.vectors, SPACING_MM, mask),
        first.inverse().displacement.vectors,
    )


def test_landmarks() -> None:
    points = torch.tensor([[3.0, 4, 5], [7, 8, 6]], dtype=torch.float64, device="cuda")
    to_mm = torch.eye(3, dtype=torch.float64, device="cuda")
    distances_mm = target_registration_error_mm(points, points + 1, displacement(1), to_mm)
    assert_on_the_gpu(distances_mm, *landmark_measures(distances_mm))


def placed(seed: int) -> PlacedVolume:
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    return PlacedVolume(100 * smooth_volume((16, 18, 20), seed)[0, 0].to("cuda"), affine)


@pytest.mark.parametrize(
    ("cost", "transform", "search_degrees"),
    [
        ("ncc", "affine", 0.0),
        ("lncc", "affine", 0.0),
        ("mse", "scaling", 0.0),
        ("mi", "similarity", 0.0),
        ("ncc", "rigid", 30.0),
    ],
)
def test_affine_registration(cost: str, transform: str, search_degrees: float) -> None:
    settings = AffineSettings(
        cost=cost, transform=transform, search_degrees=search_degrees, iterations=2
    )  # type: ignore[arg-type]
    found = register_affine([placed(1), placed(2)], [placed(3), placed(4)], settings)
    assert_on_the_gpu(found.matrices, found.accepted)
