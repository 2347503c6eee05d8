"""What drivers and workers that died left in a run's folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from cohort.data.storage import REPLACED, TEMPORARY, remove, storage_error
from cohort.engine import breadcrumbs, displacements, manifest, retry
from cohort.engine.displacements import sweep_kept
from cohort.engine.manifest import Manifest, load_manifest
from cohort.engine.parts import row_groups
from cohort.engine.results import SCHEMA, committed_tiles, loose_tiles, part_path
from cohort.engine.sums import sweep_sums

_FOLDERS = ("", "parts", "uncertainty", displacements.FOLDER, manifest.FOLDER, retry.FOLDER)


def sweep_run(run_dir: Path) -> int:
    """Remove what counts no more; only the run's one driver may. Returns how many files.

    That is: files that were never finished, crumbs and set-aside parts of tiles that are committed,
    parts whose rows a compacted file holds, compacted files of which no row counts.

    Raises:
        StorageError: if something cannot be listed or removed.
    """
    listed = load_manifest(run_dir)
    compacted, done = listed.tiles, committed_tiles(run_dir)
    gone = [
        path
        for folder in _FOLDERS
        for start in (TEMPORARY, REPLACED)
        for path in _entries(run_dir / folder, start, "")
    ]
    gone += [part_path(run_dir, tile) for tile in loose_tiles(run_dir) if tile in compacted]
    for folder, suffix in ((breadcrumbs.FOLDER, ".jsonl"), (retry.FOLDER, ".parquet")):
        paths = _entries(run_dir / folder, "", suffix)
        gone += [path for path in paths if path.name.removesuffix(suffix) in done]
    gone += [path for path, tiles in unlisted(run_dir, listed) if tiles <= done]
    counting = Manifest(tuple(file for file in listed.files if file.tiles))
    idle = {file.name for file in listed.files} - {file.name for file in counting.files}
    gone += [run_dir / manifest.FOLDER / name for name in idle]
    for path in set(gone):
        try:
            remove(path)
        except OSError as error:
            raise storage_error(path, error) from error
    if idle:
        counting.write(run_dir)
    sweep_kept(run_dir)
    sweep_sums(run_dir)
    return len(set(gone))


def unlisted(run_dir: Path, listed: Manifest) -> Iterator[tuple[Path, set[str]]]:
    """Compacted files that the manifest does not name, with the tiles in them.

    A compaction that was ended leaves one, whose tiles have their parts still; others are there
    only if the manifest was lost.
    """
    named = {file.name for file in listed.files}
    schema = SCHEMA.empty_table().select(["tile"]).schema
    for path in _entries(run_dir / manifest.FOLDER, "", ".parquet"):
        if path.name in named:
            continue
        groups = row_groups(path, schema, past_damage=True)
        yield path, {tile for group in groups for tile in group["tile"].unique().to_pylist()}


def _entries(folder: Path, start: str, end: str) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(folder, error) from error
    return [folder / name for name in names if name.startswith(start) and name.endswith(end)]
