"""Rows of pairs on disk: one Parquet part a tile, written once and for ever."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from cohort.data.storage import write_once
from cohort.engine.manifest import FOLDER, load_manifest
from cohort.engine.parts import columns_with_values, loose_tiles, read_compacted, read_part
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
    """All committed rows of a run, or some of their columns.

    Raises:
        StorageError: as :func:`read_tables` does.
    """
    # first a table with every column: what no part holds is null
    empty = _schema_of(columns).empty_table()
    return pa.concat_tables([empty, *read_tables(run_dir, columns)], promote_options="default")


def read_tables(run_dir: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """All committed rows of a run, or some of their columns, a file of rows at a time.

    A table has those of the columns that hold a value in it. Rows that are compacted in the
    meantime are given once.

    Raises:
        StorageError: ``E_PART`` naming the part that is damaged, ``E_MANIFEST`` if it is the list
            of compacted ones; ``E_STORAGE`` if the file system cannot read it.
    """
    schema = _schema_of(columns)
    given: set[str] = set()
    while True:
        loose = loose_tiles(run_dir)  # first, see :func:`committed_tiles`
        for file in load_manifest(run_dir).files:
            tiles = tuple(tile for tile in file.tiles if tile not in given)
            if tiles:
                yield read_compacted(run_dir, replace(file, tiles=tiles), schema)
                given.update(file.tiles)
        try:
            for tile in loose:
                if tile not in given:
                    yield read_part(part_path(run_dir, tile), schema)
                    given.add(tile)
        except FileNotFoundError:  # compacted in the meantime
            continue
        return


def _schema_of(columns: list[str] | None) -> pa.Schema:
    return SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])


def filled_columns(run_dir: Path) -> set[str]:
    """Columns in which some committed row holds a value, as the files say of themselves.

    Raises:
        StorageError: as :func:`read_tables` does.
    """
    while True:
        loose = loose_tiles(run_dir)  # first, see :func:`committed_tiles`
        files = [file.name for file in load_manifest(run_dir).files if file.tiles]
        paths = [run_dir / FOLDER / name for name in files]
        paths += [part_path(run_dir, tile) for tile in loose]
        try:
            return set[str]().union(*map(columns_with_values, paths))
        except FileNotFoundError:  # compacted in the meantime
            continue
