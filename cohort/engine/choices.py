"""What a user chooses about a run, and what a plan says of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.config.method import MethodConfig
from cohort.config.sums import SumSettings
from cohort.data.geometry import Grid
from cohort.engine.measured import Measured
from cohort.engine.spec import Device, shrunk


@dataclass(frozen=True)
class PlanSettings:
    """What the user chooses about a run; None is the plan's own choice, or the default.

    Attributes:
        method: the method and its settings; VoxelOpt as it comes.
        pairs: a design of :func:`cohort.engine.pairs.select_pairs`, ``all``; or ``atlas:`` or
            ``to:`` with a NIfTI file that is not in the store.
        atlas_labels: segmentation of that file.
        metrics: families of measures beyond the headline ones; none.
        keep_uncertainty: whether the run keeps how sure the method is of each displacement; no.
        keep_displacements: of which pairs the run keeps them: ``none``, ``sample:K`` or ``all``.
        seed: of random designs; 0.
        tile_size: side of a tile in subjects; from the number of pairs and what is said of time.
        trust_code: whether code that the method's settings name may be run; the plan forgets it.
        device: kind of device that registers; ``cpu``.
        workers: how many the tiles are cut for; a resume with others keeps them.
        measured: what its parts take, if that was tried.
        shrink: divides the working grid's sizes for this run; 1.
        sums: what the run adds up over its pairs, which then have one fixed subject; nothing.
    """

    method: MethodConfig | None = None
    pairs: str | None = None
    seed: int | None = None
    tile_size: int | None = None
    trust_code: bool = False
    atlas_labels: Path | None = None
    metrics: tuple[str, ...] | None = None
    keep_uncertainty: bool | None = None
    keep_displacements: str | None = None
    device: Device | None = None
    workers: int = 1
    measured: Measured | None = None
    shrink: int = 1
    sums: SumSettings | None = None


def chosen_facts(settings: PlanSettings, has_masks: bool, grid: Grid) -> dict[str, Any]:
    """What the user's choices say of a run, or the defaults in their place."""
    spacing_mm = shrunk(grid, settings.shrink).spacing_mm
    method = (settings.method or MethodConfig()).for_cohort(has_masks, spacing_mm)
    design = settings.pairs or "all"
    rare: dict[str, Any] = {"shrink": settings.shrink} if settings.shrink > 1 else {}
    if settings.sums:
        rare["sums"] = settings.sums.model_dump(mode="json")
    return rare | {
        "pairs": "csv" if design.endswith(".csv") else design,
        "device": settings.device or "cpu",
        "seed": settings.seed or 0,
        "metrics": list(settings.metrics or ()),
        "keep_uncertainty": bool(settings.keep_uncertainty),
        "method": method.model_dump(mode="json", exclude_none=True),
        "fingerprint": method.build(trust_code=settings.trust_code).fingerprint,
    }
