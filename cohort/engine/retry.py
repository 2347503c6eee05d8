"""``--retry-failed``: tiles with pairs that may succeed if they are tried again are done again.

A part with such rows is set aside in ``RUN/replaced``: from then on its tile is one that is left to
do. The copy there goes when the new part is committed. Nobody reads it; it is for people, should
the run never go on.
"""

from pathlib import Path

import pyarrow.compute as pc

from cohort.data.storage import storage_error, sync_folder, write_atomic
from cohort.engine.breadcrumbs import sweep_crumbs
from cohort.engine.inspection import by_tile
from cohort.engine.manifest import FOLDER as MERGED
from cohort.engine.manifest import Manifest, load_manifest
from cohort.engine.parts import row_groups
from cohort.engine.results import SCHEMA, part_path, read_table
from cohort.engine.seal import sealed_parquet
from cohort.engine.sums import TOTAL
from cohort.errors import UsageError

FOLDER = "replaced"


def set_aside_failed(run_dir: Path) -> int:
    """Set aside the rows of every tile in which a pair failed; returns how many tiles.

    Only the run's one driver may.

    Raises:
        UsageError: ``E_RUN`` if its pairs were added up: those who failed can only be added.
        StorageError: if the rows cannot be read, or the run's folder not written.
    """
    if (run_dir / TOTAL).exists():
        raise UsageError(
            "E_RUN",
            f"{run_dir} is a pass of a template that is done; `cohort atlas --add SUBJECT` tries"
            " those who failed again",
        )
    failed = read_table(run_dir, ["tile", "status"]).filter(pc.field("status") != "ok")
    tiles = set(failed["tile"].to_pylist())
    manifest = load_manifest(run_dir)
    compacted = tiles & manifest.tiles
    folder = run_dir / FOLDER
    try:
        if tiles:
            folder.mkdir(exist_ok=True)
        sweep_crumbs(run_dir, tiles)
        for tile in sorted(tiles - compacted):
            part_path(run_dir, tile).replace(folder / f"{tile}.parquet")
        if tiles - compacted:
            sync_folder(folder)
            sync_folder(run_dir / "parts")
    except OSError as error:
        raise storage_error(folder, error) from error
    if compacted:
        _set_aside_compacted(run_dir, manifest, compacted)
    return len(tiles)


def _set_aside_compacted(run_dir: Path, manifest: Manifest, tiles: set[str]) -> None:
    """Copy the rows first: a tile that the manifest still names counts as committed."""
    for file in manifest.files:
        own = sorted(tiles.intersection(file.tiles))
        if not own:
            continue
        for group in row_groups(run_dir / MERGED / file.name, SCHEMA):
            for tile, rows in by_tile(group.filter(pc.field("tile").isin(own))):
                write_atomic(run_dir / FOLDER / f"{tile}.parquet", sealed_parquet(rows))
    manifest.without(tiles).write(run_dir)
