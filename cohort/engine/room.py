"""Whether what a run is to keep will fit where it goes: displacements, sums of a template."""

import math
import shutil
import tempfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch

from cohort.data.geometry import Grid
from cohort.data.one_thread import one_thread
from cohort.data.store import CohortStore
from cohort.engine.beside import parse_keep
from cohort.engine.designs import PairSet
from cohort.engine.displacements import keep, packed
from cohort.engine.pair_faults import pair_fault
from cohort.engine.registered_pair import spacing_on
from cohort.engine.spec import RunSpec
from cohort.engine.sums import DETAIL, FAN_IN, FIELDS
from cohort.engine.tiles import Tiles
from cohort.engine.workbench import Workbench
from cohort.errors import UsageError

_SHARE = 0.9  # of the free space
_TRIED = 5
# of sums, compressed: those of 2 to 24 brains take 3 bytes a value and 1 to 5 a voxel's histogram
_VALUE_BYTES, _HISTOGRAM_BYTES = 4, 8
# of a subject's warped label, compressed: 148 structures of 2 and 4 mm take 0.14 and 0.21
_LABEL_BYTES = 0.5


def with_room(
    run_dir: Path,
    store: CohortStore,
    plan: tuple[RunSpec, PairSet],
    trust_code: bool,
    atlas: CohortStore | None = None,
) -> tuple[RunSpec, PairSet]:
    """A plan with what the displacements that it keeps will take, measured on one pair.

    Raises:
        UsageError: ``E_SPACE`` if they, or what is added up, would fill the disk, with all numbers.
    """
    spec, pairs = plan
    tiles = Tiles.of(pairs, spec.subject_ids, spec.tile_size)
    summed = _bytes_of_sums(spec, store.grid, len(tiles))
    if spec.keep_below is None:
        check_room(run_dir, 0, summed)
        return plan
    method = spec.method.build(trust_code=trust_code)
    first = (pair for tile in tiles for pair in tile.pairs)
    count = parse_keep(spec.keep_displacements)
    kept = spec.n_pairs if count is None else min(count, spec.n_pairs)
    # cards may be elsewhere, or are the workers'
    here = spec.model_copy(update={"device": "cpu"})
    needed = kept * _bytes_of_one(Workbench(run_dir, here, store, atlas, method), first)
    check_room(run_dir, needed, summed)
    return spec.model_copy(update={"kept_bytes": needed}), pairs


def _bytes_of_one(workbench: Workbench, pairs: Iterable[tuple[str, str]]) -> int:
    """What one kept displacement takes on disk: of the first of five pairs that succeeds.

    Raises:
        StorageError: if the store fails.
    """
    grid = workbench.store.grid
    for fixed, moving in islice(pairs, _TRIED):
        try:
            with one_thread(), torch.inference_mode():
                moved = workbench.register(fixed, moving).displacement
        except Exception as error:
            pair_fault(workbench, [(fixed, moving)], error)  # its row will say what
            continue
        found = packed(moved, spacing_on(grid, moved.moving_shape))
        if found is None:
            continue
        with tempfile.TemporaryDirectory(prefix="cohort-") as folder:
            keep(Path(folder), "one", {(fixed, moving): found})
            files = [path for path in Path(folder).rglob("*") if path.is_file()]
            return sum(path.stat().st_size for path in files)
    return _most_bytes(grid)


def _most_bytes(grid: Grid) -> int:
    """Of a displacement of every voxel, without compression."""
    depth, height, width = grid.shape
    return 3 * depth * height * width * 2


def _bytes_of_sums(spec: RunSpec, grid: Grid, tiles: int) -> int:
    """What a template's pass takes: its tiles, the sums of up to eight of them, and so on."""
    if spec.sums is None:
        return 0
    values = len(FIELDS) + len(DETAIL) * spec.sums.detail
    a_voxel = _VALUE_BYTES * values + (_HISTOGRAM_BYTES if spec.sums.bins else 0)
    files, left = tiles + 1, tiles  # the total is one more
    while left > 1:
        left = math.ceil(left / FAN_IN)
        files += left
    labels = math.ceil(spec.n_pairs * _LABEL_BYTES) if spec.sums.detail else 0
    return (files * a_voxel + labels) * math.prod(spec.coarser(grid).shape)


def check_room(run_dir: Path, displacements: int, sums: int = 0) -> None:
    """Refuse a run that would fill its disk.

    Args:
        run_dir: where it goes.
        displacements: bytes of those that are kept.
        sums: bytes of what is added up.

    Raises:
        UsageError: ``E_SPACE`` with all numbers.
    """
    folder = next(one for one in (run_dir, *run_dir.absolute().parents) if one.exists())
    free = shutil.disk_usage(folder).free
    if displacements + sums <= _SHARE * free:
        return
    what = f"the displacements to keep would take about {size_text(displacements)}"
    advice = (
        "Keep fewer, with --keep-displacements sample:K, or none: `cohort export` registers any"
        " pair once more"
    )
    if sums:
        what = f"the template's sums would take about {size_text(sums)}"
        if displacements:
            what += f" and its subjects' displacements {size_text(displacements)}"
        advice = "Choose another disk, or a store of larger voxels"
    raise UsageError(
        "E_SPACE",
        f"{what}, and {size_text(free)} are free at {folder}, of which a run may plan to fill"
        f" {_SHARE:.0%}. {advice}",
    )


def size_text(size_bytes: int) -> str:
    """A size for people."""
    if size_bytes < 1e9:
        return f"{size_bytes / 1e6:,.1f} MB"
    return f"{size_bytes / 1e9:,.1f} GB"
