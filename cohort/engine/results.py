"""Rows of pairs on disk: one Parquet part a tile, written once and for ever."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from cohort.data.storage import is_storage_fault, storage_error, write_once
from cohort.errors import StorageError
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
    ("hd95_mm", _SCORES),
    ("hd95_mm_mean", pa.float64()),
    ("hd95_mm_before_mean", pa.float64()),
    ("hd_mm", _SCORES),
    ("hd_mm_mean", pa.float64()),
    ("assd_mm", _SCORES),
    ("assd_mm_mean", pa.float64()),
    ("surface_dice", _SCORES),
    ("surface_dice_mean", pa.float64()),
    ("hd95_vox_mean", pa.float64()),
    *((name, pa.float64()) for name in DeformationMeasures._fields),
    *((f"{name}{when}", pa.float64()) for when in ("_before", "") for name in _SIMILARITIES),
    ("ice_mm", pa.float64()),
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
    "hd95_mm_mean", "hd95_mm_before_mean", "ice_mm",
)  # fmt: skip


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
    hd95_mm_before_mean: float | None
    ice_mm: float | None
    busy_s: float


def pair_key(fingerprint: str, device: str, fixed_digest: str, moving_digest: str) -> str:
    """Content hash of a pair: the same inputs and settings give the same key in any run."""
    said = "|".join(("1", fingerprint, device, fixed_digest, moving_digest))
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def part_path(run_dir: Path, tile_id: str) -> Path:
    """Where a tile's part lies once it is committed."""
    return run_dir / "parts" / f"{tile_id}.parquet"


def committed_tiles(run_dir: Path) -> set[str]:
    """Ids of the tiles that need no more work."""
    return {path.stem for path in (run_dir / "parts").glob("*.parquet")}


def commit_part(run_dir: Path, tile_id: str, rows: list[dict[str, Any]]) -> bool:
    """Write a tile's rows, all or nothing; the first complete writer wins.

    Returns:
        Whether these rows are the ones on disk; False if the part existed already.

    Raises:
        StorageError: ``E_STORAGE`` if the file system refuses; nothing half-written stays.
    """
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    content = pa.BufferOutputStream()
    pq.write_table(table, content, compression="zstd", write_page_checksum=True)
    return write_once(part_path(run_dir, tile_id), content.getvalue().to_pybytes())


def read_rows(run_dir: Path) -> pl.DataFrame:
    """All committed rows of a run, sorted by fixed and moving.

    Raises:
        StorageError: ``E_PART`` naming the part that is damaged; ``E_STORAGE`` if the file system
            cannot read it.
    """
    tables = [SCHEMA.empty_table()]
    for path in sorted((run_dir / "parts").glob("*.parquet")):
        try:
            tables.append(pq.read_table(path, schema=SCHEMA, page_checksum_verification=True))
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and is_storage_fault(error):
                raise storage_error(path, error) from error
            message = f"{path} is damaged ({error}); delete it and run the same command again"
            raise StorageError("E_PART", message) from error
    frame = pl.from_arrow(pa.concat_tables(tables))
    assert isinstance(frame, pl.DataFrame)
    return frame.sort("fixed", "moving")


def summarise(rows: pl.DataFrame) -> Summary:
    """Counts and means of a table of rows."""
    good = rows.filter(pl.col("status") == "ok")
    means = good.select(pl.col(MEASURES).mean()).row(0, named=True)
    return Summary(
        pairs=len(rows),
        ok=len(good),
        failed=len(rows) - len(good),
        busy_s=float(rows["elapsed_s"].sum()),
        **means,
    )
