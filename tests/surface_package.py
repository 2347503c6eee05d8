"""DeepMind's surface-distance as the oracle of surface measures."""

import importlib
import warnings
from types import ModuleType

import numpy as np
import pytest

MEASURES = ("hd95_mm", "hd_mm", "to_warped_mm", "to_fixed_mm", "surface_dice")


def package(module: str) -> ModuleType:
    """A module of the package, or a skip."""
    pytest.importorskip("surface_distance", reason="needs surface-distance-based-measures")
    return importlib.import_module(f"surface_distance.{module}")


def measured_by_package(
    fixed: np.ndarray, warped: np.ndarray, spacing: tuple[float, float, float], tolerance: float
) -> list[float]:
    """``MEASURES`` of two bool masks, neither empty."""
    metrics = package("metrics")
    with warnings.catch_warnings():  # names that scipy has moved
        warnings.simplefilter("ignore", DeprecationWarning)
        found = metrics.compute_surface_distances(fixed, warped, spacing)
    return [
        metrics.compute_robust_hausdorff(found, 95),
        metrics.compute_robust_hausdorff(found, 100),
        *metrics.compute_average_surface_distance(found),
        metrics.compute_surface_dice_at_tolerance(found, tolerance),
    ]
