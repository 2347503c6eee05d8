"""Rows of pairs on disk: one Parquet part a tile, written once and for ever."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from cohort.data.storage import write_once
from cohort.engine.manifest import load_manifest
from cohort.engine.parts import loose_tiles, read_compacted, read_part
from cohort.engine.seal import sealed_parquet
from triton_reg.metrics.deformation import DeformationMeasures

_SCORES = pa.map_(pa.int32(), pa.float64())
_SIMILARITIES = ("mse", "lncc", "mi")
SCHEMA = pa.schema([
    ("pair_key", pa.string()),
    ("tile", pa.string()),
    ("fixed", pa.string()),
    ("moving", pa.string()),
    ("status", pa.string()),
    ("message", pa.string()),
    ("dice_mean", pa.float64()),
    ("dice_before", pa.float64()),
    ("dice", _SCORES),
    ("dice_structures_before", _SCORES),
    ("ncc", pa.float64()),
    ("ncc_before", pa.float64()),
    ("folding", pa.float64()),
    ("sdlogj", pa.float64()),
    ("displacement_mean_mm", pa.float64()),
    ("epe_mm", pa.float64()),
    ("epe_before_mm", pa.float64()),
    ("tre_mm", pa.float64()),
    ("tre_before_mm", pa.float64()),
    ("tre_sd_mm", pa.float64()),
    ("tre_p30_mm", pa.float64()),
    ("tre_max_mm", pa.float64()),
    ("jaccard", _SCORES),
    ("jaccard_mean", pa.float64()),
    ("volume_similarity", _SCORES),
    ("volume_similarity_mean", pa.float64()),
    ("soft_dice", _SCORES),
    ("soft_dice_mean", pa.float64()),
    ("soft_jaccard", _SCORES),
    ("soft_jaccard_mean", pa.float64()),
    ("soft_volume_similarity", _SCORES),
    ("soft_volume_similarity_mean", pa.float64()),
    ("hd95_mm", _SCORES),
    ("hd95_mm_mean", pa.float64()),
    ("hd_mm", _SCORES),
    ("hd_mm_mean", pa.float64()),
    ("assd_mm", _SCORES),
    ("assd_mm_mean", pa.float64()),
    ("surface_dice", _SCORES),
    ("surface_dice_mean", pa.float64()),
    ("hd95_vox", _SCORES),
    ("hd95_vox_mean", pa.float64()),
    *((name, pa.float64()) for name in DeformationMeasures._fields),
    *((f"{name}{when}", pa.float64()) for when in ("_before", "") for name in _SIMILARITIES),
    ("ice_mm", pa.float64()),
    # of methods that optimise, one value a level
    ("iterations", pa.list_(pa.int32())),
    ("stop_reasons", pa.list_(pa.string())),
    ("gradient_ratios", pa.list_(pa.float64())),
    ("level_losses", pa.list_(pa.float64())),
    ("step_cosines", pa.list_(pa.float64())),
    ("register_s", pa.float64()),
    ("metrics_s", pa.float64()),
    ("elapsed_s", pa.float64()),
    ("method", pa.string()),
    ("fingerprint", pa.string()),
    ("worker", pa.string()),
    ("attempt", pa.int32()),
    ("finished_at", pa.string()),
])  # fmt: skip
# columns that say how a row came about; all others are the same for any number of workers
INCIDENTAL = ("register_s", "metrics_s", "elapsed_s", "worker", "attempt", "finished_at", "tile")
MEASURES = (
    "dice_mean", "dice_before", "ncc", "ncc_before", "folding", "sdlogj",
    "displacement_mean_mm", "epe_mm", "epe_before_mm", "tre_mm", "tre_before_mm",
    "hd95_mm_mean", "surface_dice_mean", "ice_mm",
)  # fmt: skip
SUMMARISED = ("status", "message", "elapsed_s", *MEASURES)


@dataclass(frozen=True)
class Summary:
    """Means over the pairs that succeeded; None where nothing was measured."""

    pairs: int
    ok: int
    failed: int
    dice_mean: float | None
    dice_before: float | None
    ncc: float | None
    ncc_before: float | None
    folding: float | None
    sdlogj: float | None
    displacement_mean_mm: float | None
    epe_mm: float | None
    epe_before_mm: float | None
    tre_mm: float | None
    tre_before_mm: float | None
    hd95_mm_mean: float | None
    surface_dice_mean: float | None
    ice_mm: float | None
    busy_s: float
    reasons: dict[str, str]  # of each code of failed pairs, the commonest sentence


def pair_key(fingerprint: str, device: str, fixed_digest: str, moving_digest: str) -> str:
    """Content hash of a pair: the same inputs and settings give the same key in any run."""
    said = "|".join(("1", fingerprint, device, fixed_digest, moving_digest))
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def part_path(run_dir: Path, tile_id: str) -> Path:
    """Where a tile's part lies once it is committed."""
    return run_dir / "parts" / f"{tile_id}.parquet"


def committed_tiles(run_dir: Path) -> set[str]:
    """Ids of the tiles that need no more work.

    Raises:
        StorageError: if the run's folder or its manifest cannot be read.
    """
    loose = loose_tiles(run_dir)  # first: a part is removed only when the manifest names its tile
    return load_manifest(run_dir).tiles | set(loose)


def commit_part(run_dir: Path, tile_id: str, rows: list[dict[str, Any]]) -> bool:
    """Write a tile's rows, all or nothing; the first complete writer wins.

    Returns:
        Whether these rows are the ones on disk; False if the part existed already.

    Raises:
        StorageError: ``E_STORAGE`` if the file system refuses; nothing half-written stays.
    """
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    return commit_table(run_dir, tile_id, table)


def commit_table(run_dir: Path, tile_id: str, table: pa.Table) -> bool:
    """Like :func:`commit_part`, for rows that are a table already."""
    return write_once(part_path(run_dir, tile_id), sealed_parquet(table))


def read_rows(run_dir: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """All committed rows of a run, sorted by fixed and moving.

    Args:
        run_dir: the run.
        columns: that are read beside these two; None for all. The scores of structures of a million
            pairs are gigabytes.

    Raises:
        StorageError: as :func:`read_table` does.
    """
    wanted = None if columns is None else list(dict.fromkeys(("fixed", "moving", *columns)))
    frame = pl.from_arrow(read_table(run_dir, wanted))
    assert isinstance(frame, pl.DataFrame)
    return frame.sort("fixed", "moving")


def read_table(run_dir: Path, columns: list[str] | None = None) -> pa.Table:
    """All committed rows of a run, or some of their columns, part by part.

    Raises:
        StorageError: ``E_PART`` naming the part that is damaged, ``E_MANIFEST`` if it is the list
            of compacted ones; ``E_STORAGE`` if the file system cannot read it.
    """
    schema = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
    while True:
        loose = loose_tiles(run_dir)  # first, see :func:`committed_tiles`
        manifest = load_manifest(run_dir)
        compacted = manifest.tiles
        paths = [part_path(run_dir, tile) for tile in loose if tile not in compacted]
        try:
            parts = [read_compacted(run_dir, file, schema) for file in manifest.files if file.tiles]
            parts += [read_part(path, schema) for path in paths]
        except FileNotFoundError:  # compacted in the meantime
            continue
        # first a table with every column: what no part holds is null
        return pa.concat_tables([schema.empty_table(), *parts], promote_options="default")


def read_summary(run_dir: Path) -> Summary:
    """Counts and means of a run's rows.

    Raises:
        StorageError: as :func:`read_table` does.
    """
    return summarise(read_rows(run_dir, SUMMARISED))


def summarise(rows: pl.DataFrame) -> Summary:
    """Counts and means of a table of rows that has the columns `SUMMARISED`."""
    good = rows.filter(pl.col("status") == "ok")
    means = good.select(pl.col(MEASURES).mean()).row(0, named=True)
    return Summary(
        pairs=len(rows),
        ok=len(good),
        failed=len(rows) - len(good),
        busy_s=float(rows["elapsed_s"].sum()),
        reasons=_reasons(rows.filter(pl.col("status") != "ok")),
        **means,
    )


def _reasons(failed: pl.DataFrame) -> dict[str, str]:
    counted = failed.group_by("status", "message").len().sort("len", "message", descending=True)
    commonest = counted.unique("status", keep="first").sort("status")
    return dict(commonest.select("status", pl.col("message").fill_null("")).iter_rows())
