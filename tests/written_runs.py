"""Runs whose rows a test writes by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cohort.config.method import MethodConfig
from cohort.config.voxelopt import VoxelOptSettings
from cohort.data.geometry import Grid
from cohort.engine.results import commit_part
from cohort.engine.spec import RunSpec

SUBJECTS = ("a", "b", "c", "d")
PAIRS = [(f, m) for f in SUBJECTS for m in SUBJECTS if f != m]


def spec_of(features: str = "mind", **values: Any) -> RunSpec:
    method = MethodConfig(settings=VoxelOptSettings.model_validate({"features": features}))
    facts = {
        "plan_digest": "0" * 64,
        "created_at": "2026-08-01T10:00:00+00:00",
        "store": "/nowhere/cohort.zarr",
        "store_digest": "1" * 64,
        "grid": Grid.axis_aligned((12, 14, 10), [2, 2, 3], np.zeros(3)).to_json(),
        "subject_ids": SUBJECTS,
        "subject_digests": tuple(name * 64 for name in SUBJECTS),
        "has_labels": True,
        "has_truth": False,
        "pairs": "all",
        "pairs_digest": "3" * 64,
        "seed": 0,
        "n_pairs": len(PAIRS),
        "n_tiles": 1,
        "tile_size": 8,
        "method": method,
        "fingerprint": "",
        "versions": {},
    }
    return RunSpec.model_validate(facts | values)


def row_of(fixed: str, moving: str, score: float, **values: Any) -> dict[str, Any]:
    """A registered pair with two structures, the second of which pairs with `d` have not."""
    scores = [(1, score - 0.1)] + ([] if "d" in (fixed, moving) else [(7, score + 0.1)])
    row = {
        "fixed": fixed,
        "moving": moving,
        "status": "ok",
        "dice_mean": score,
        "dice_before": 0.5,
        "dice": scores,
        "hd95_mm": [(label, 10 * (1 - one)) for label, one in scores],
        "dice_structures_before": [(1, 0.4)],
        "sdlogj": 1 - score,
        "elapsed_s": 2.0,
    }
    return row | values


def write_run(
    folder: Path,
    score: Callable[[int], float],
    pairs: list[tuple[str, str]] = PAIRS,
    **spec: Any,
) -> Path:
    """A run of `pairs` in two parts; `score` gives the Dice of the pair with an index."""
    (folder / "parts").mkdir(parents=True)
    (folder / "run.json").write_text(spec_of(**spec).model_dump_json())
    rows = [row_of(*pair, score(index)) for index, pair in enumerate(pairs)]
    commit_part(folder, "1", rows[5:])
    commit_part(folder, "2", rows[:5])
    return folder
