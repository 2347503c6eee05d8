"""Small runs for tests: a method that takes milliseconds, and what a run left on disk."""

from pathlib import Path

import polars as pl

from cohort.config.method import MethodConfig
from cohort.config.voxelopt import VoxelOptSettings
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.results import INCIDENTAL, read_rows

QUICK = MethodConfig(
    settings=VoxelOptSettings(
        features="intensity", levels=2, solves=(1,), squarings=3, couplings=(0.1, 1.0)
    )
)


def planned(run_dir: Path, store: CohortStore, pairs: str = "all", tile_size: int = 2) -> Path:
    """A run that waits for its first pair."""
    open_run(run_dir, store, PlanSettings(QUICK, pairs, tile_size=tile_size))
    return run_dir


def decided(run_dir: Path) -> pl.DataFrame:
    """The rows without what differs from one run to the next."""
    return read_rows(run_dir).drop(*INCIDENTAL)


def part_names(run_dir: Path) -> list[str]:
    """Everything in the folder of parts, whole or not."""
    return sorted(path.name for path in (run_dir / "parts").iterdir())


def damage(store: CohortStore, subject_id: str) -> None:
    """Change one byte in the middle of a subject's volume."""
    shard = store.path / "subjects" / subject_id / "image" / "c" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
