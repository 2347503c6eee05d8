"""Whether what is compared was learned from voxels of another size than a cohort's."""

from math import log
from pathlib import Path

from cohort.config.features import FeatureSettings
from cohort.data.geometry import Grid
from triton_reg.methods.pdd_model import model_card_of
from triton_reg.ops.resize import Spacing

_ALIKE = log(1.1)  # a tenth; structures differ by more between people


def voxel_caution(settings: FeatureSettings, spacing_mm: Spacing) -> str | None:
    """A sentence for whoever compares features of other voxels than they were learned from.

    Args:
        settings: of a method.
        spacing_mm: sizes of a voxel of the working grid.

    Returns:
        None where the sizes are alike, nothing was learned, or nobody knows from what.

    Raises:
        UsageError: ``E_WEIGHTS`` if a file of weights is of no use.
    """
    learned, seen = _sizes(settings, spacing_mm)
    if learned is None:
        return None
    if all(abs(log(one / other)) < _ALIKE for one, other in zip(learned, seen, strict=True)):
        return None
    shown = "" if seen == spacing_mm else f", which they see as coarse as {_said(seen)}"
    return (
        f"W_VOXEL_SIZE: these features were learned from voxels of {_said(learned)} mm, and the"
        f" store has {_said(spacing_mm)} mm{shown}; they may tell less apart than features=local"
    )


def _sizes(settings: FeatureSettings, spacing_mm: Spacing) -> tuple[Spacing | None, Spacing]:
    """What was learned from, if that is known, and what the features see of the store."""
    if settings.is_learned:
        features = settings.learned_from()
        factors = features.for_spacing(settings.voxel_mm or spacing_mm).coarsening
        depth, height, width = (a * b for a, b in zip(spacing_mm, factors, strict=True))
        return features.spacing_mm, (depth, height, width)
    if settings.extractor == "obelisk" and settings.weights is not None:
        return _of_model(settings.weights), spacing_mm
    return None, spacing_mm


def _of_model(path: Path) -> Spacing | None:
    """Sizes of the voxels that a trained model has learned from; None of other files."""
    try:
        grid = model_card_of(path)["grid"]
        return Grid.from_json(grid).spacing_mm
    except (OSError, ValueError, KeyError):
        return None


def _said(sizes_mm: Spacing) -> str:
    return " x ".join(f"{one:.3g}" for one in sizes_mm)
