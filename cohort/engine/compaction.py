"""Many small parts as a few large files; at no moment does a row count twice or not at all.

The large file is made durable, then the manifest that names it, and only then the parts go. Whoever
reads lists the parts first and the manifest second, and leaves out parts of tiles that it names.
"""

import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cohort.data.storage import TEMPORARY, storage_error, sync_folder
from cohort.engine.manifest import FOLDER, Compacted, Manifest, load_manifest
from cohort.engine.parts import loose_tiles, read_part
from cohort.engine.results import SCHEMA, part_path
from cohort.errors import StorageError

MOST_PARTS = 1000  # beyond which a driver compacts them, before and after its work
_FILE_BYTES = 256 * 2**20
_GROUP_ROWS = 64 * 1024


def compact(run_dir: Path, most_parts: int = MOST_PARTS, file_bytes: int = _FILE_BYTES) -> int:
    """Merge the parts of a run if there are more than so many; only its one driver may.

    Args:
        run_dir: the run.
        most_parts: that may stay as they are.
        file_bytes: about the size of a merged file.

    Returns:
        How many parts were merged.

    Raises:
        StorageError: ``E_PART`` if a part is damaged, ``E_STORAGE`` if the file system fails. What
            was merged before stays merged.
    """
    manifest = load_manifest(run_dir)
    listed = manifest.tiles
    loose = [tile for tile in loose_tiles(run_dir) if tile not in listed]
    if len(loose) <= most_parts:
        return 0
    folder = run_dir / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        sync_folder(run_dir)
        for tiles in _groups(run_dir, loose, file_bytes):
            merged = _merged(run_dir, tiles, _next_name(manifest, folder))
            manifest = Manifest((*manifest.files, merged))
            manifest.write(run_dir)
            for tile in tiles:
                part_path(run_dir, tile).unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    return len(loose)


def _groups(run_dir: Path, tiles: list[str], file_bytes: int) -> Iterator[list[str]]:
    """Consecutive tiles whose parts come to about ``file_bytes``."""
    group: list[str] = []
    size = 0
    for tile in tiles:
        group.append(tile)
        size += part_path(run_dir, tile).stat().st_size
        if size >= file_bytes:
            yield group
            group, size = [], 0
    if group:
        yield group


def _next_name(manifest: Manifest, folder: Path) -> str:
    """A name that no file has had, so that one of an older manifest is never overwritten."""
    taken = {file.name for file in manifest.files} | {path.name for path in folder.iterdir()}
    numbers = (int(name[:6]) for name in taken if name[:6].isdecimal())
    return f"{max(numbers, default=0) + 1:06d}.parquet"


def _merged(run_dir: Path, tiles: list[str], name: str) -> Compacted:
    """One durable file of the rows of several tiles; no tile is in two row groups."""
    path = run_dir / FOLDER / name
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    rows = 0
    try:
        with pq.ParquetWriter(
            temporary, SCHEMA, compression="zstd", write_page_checksum=True
        ) as writer:
            for table in _row_groups(run_dir, tiles):
                writer.write_table(table, row_group_size=len(table))
                rows += len(table)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        temporary.rename(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return Compacted(name, sha256, rows, tuple(tiles))


def _row_groups(run_dir: Path, tiles: list[str]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    rows = 0
    for tile in tiles:
        part = read_part(part_path(run_dir, tile), SCHEMA)
        names = set(part["tile"].to_pylist()) if "tile" in part.schema.names else set()
        if names != {tile}:  # they would be lost: the manifest counts them by their tile
            message = f"{part_path(run_dir, tile)} holds rows of other tiles"
            raise StorageError("E_PART", f"{message}; `cohort repair {run_dir}` moves it away")
        waiting.append(part)
        rows += len(part)
        if rows >= _GROUP_ROWS:
            yield _whole(waiting)
            waiting, rows = [], 0
    if waiting:
        yield _whole(waiting)


def _whole(parts: list[pa.Table]) -> pa.Table:
    """With every column, also those in which no part holds a value."""
    return pa.concat_tables([SCHEMA.empty_table(), *parts], promote_options="default")
