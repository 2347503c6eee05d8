"""Families of measures that a run may take beyond its headline ones (``--metrics``)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cohort.engine.registered_pair import RegisteredPair
from cohort.errors import UsageError
from triton_reg.metrics.consistency import inverse_consistency_error_mm
from triton_reg.metrics.deformation import deformation_measures
from triton_reg.metrics.label_surfaces import label_surfaces
from triton_reg.metrics.overlap import overlap_measures
from triton_reg.metrics.similarity import lncc, mutual_information, ncc_and_mse
from triton_reg.metrics.soft_overlap import soft_label_counts
from triton_reg.metrics.surface import surface_measures

SURFACE_TOLERANCE_MM = 2.0  # of the surface Dice


def families_of(text: str) -> tuple[str, ...]:
    """Families from ``overlap,surface``, ``all`` or ``none``, in the order of their columns.

    Raises:
        UsageError: ``E_METRICS`` for a name that is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names in (["all"], ["none"]):
        return tuple(MEASURES) if names == ["all"] else ()
    unknown = [name for name in names if name not in MEASURES]
    if unknown or not names:
        raise UsageError(
            "E_METRICS",
            f"no measures are called {', '.join(unknown) or repr(text)}; there are"
            f" {', '.join(MEASURES)}, and all or none of them",
        )
    return tuple(name for name in MEASURES if name in names)


def _overlap(pair: RegisteredPair) -> dict[str, Any]:
    """Jaccard and volume similarity of the structures that both subjects have."""
    if not pair.has_labels or not len(pair.structures):
        return {}
    found = overlap_measures(pair.counts_after[:, pair.structures])
    columns: dict[str, Any] = {}
    for name in ("jaccard", "volume_similarity"):
        columns |= _by_structure(name, pair, getattr(found, name).nan_to_num(0.0))
    return columns


def _soft_overlap(pair: RegisteredPair) -> dict[str, Any]:
    """Dice, Jaccard and volume similarity with each structure interpolated linearly.

    A voxel whose position lies between structures belongs to each in part.
    """
    if not pair.has_labels or not len(pair.structures):
        return {}
    assert pair.fixed.labels is not None
    assert pair.moving.labels is not None
    labels, at_least = (pair.fixed.labels, pair.moving.labels), pair.counts_before.shape[1]
    mask = pair.compared[1] if pair.is_masked else None
    counts = soft_label_counts(*labels, pair.displacement, mask, at_least)
    columns: dict[str, Any] = {}
    for name, values in overlap_measures(counts[:, pair.structures])._asdict().items():
        columns |= _by_structure(f"soft_{name}", pair, values.nan_to_num(0.0))
    return columns


def _surface(pair: RegisteredPair) -> dict[str, Any]:
    """Distances between the surfaces of the structures that both subjects have.

    A structure that warping has moved out of the grid has no surface, and no distance.
    """
    if not pair.has_labels or not len(pair.structures):
        return {}
    fixed_labels, warped_labels = pair.labels_after
    if pair.is_masked:
        ours = label_surfaces(fixed_labels[0, 0], pair.structures)
    else:
        ours = pair.fixed.surfaces
    theirs = label_surfaces(warped_labels[0, 0], ours.structures)
    found = surface_measures(ours, theirs, pair.spacing_mm, SURFACE_TOLERANCE_MM)
    shared = torch.isin(ours.structures, pair.structures)
    average = (found.to_warped_mm + found.to_fixed_mm) / 2
    columns: dict[str, Any] = {}
    for name, values in {
        "hd95_mm": found.hd95_mm,
        "hd_mm": found.hd_mm,
        "assd_mm": average,
        "surface_dice": found.surface_dice,
        "hd95_vox": found.hd95_vox,
    }.items():
        columns |= _by_structure(name, pair, values[shared])
    return columns


def _deformation(pair: RegisteredPair) -> dict[str, Any]:
    """Volume change, folds between voxels, bending and lengths."""
    found = deformation_measures(pair.vectors, pair.spacing_mm)
    return {name: value.item() for name, value in found._asdict().items()}


def _similarity(pair: RegisteredPair) -> dict[str, Any]:
    """Squared differences, local correlation and mutual information, before and after.

    Masks that have no voxel in common leave them unknown: no difference would pass for the best.
    """
    columns: dict[str, Any] = {}
    moving = {"_before": pair.moving.volume, "": pair.warped_volume}
    for (ending, volume), region in zip(moving.items(), pair.compared, strict=True):
        if not bool((region > 0).any()):
            continue
        volumes = pair.fixed.volume, volume, region
        columns[f"mse{ending}"] = ncc_and_mse(*volumes)[1].item()
        columns[f"lncc{ending}"] = lncc(*volumes).item()
        columns[f"mi{ending}"] = mutual_information(*volumes).item()
    return columns


def _consistency(pair: RegisteredPair) -> dict[str, Any]:
    """How far fixed voxels are from where they arrive there and back."""
    assert pair.backward is not None, "consistency needs the pair registered both ways"
    spacing_mm, mask = pair.spacing_mm, pair.fixed.mask
    error = inverse_consistency_error_mm(pair.displacement, pair.backward, spacing_mm, mask)
    return {"ice_mm": error.item()}


def _by_structure(name: str, pair: RegisteredPair, values: Tensor) -> dict[str, Any]:
    """A column by structure and the one of its mean; structures that are NaN are left out."""
    known = ~values.isnan()
    if not known.any():
        return {}
    structures, values = pair.structures[known].tolist(), values[known]
    return {
        name: list(zip(structures, values.tolist(), strict=True)),
        f"{name}_mean": values.mean(dtype=torch.float64).item(),
    }


# in the order of their columns
MEASURES: dict[str, Callable[[RegisteredPair], dict[str, Any]]] = {
    "overlap": _overlap,
    "soft_overlap": _soft_overlap,
    "surface": _surface,
    "deformation": _deformation,
    "similarity": _similarity,
    "consistency": _consistency,
}
