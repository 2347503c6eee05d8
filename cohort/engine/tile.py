"""What a worker does with one tile: register its pairs, measure them, commit their rows."""

import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cohort.data.one_thread import one_thread
from cohort.engine import uncertainty
from cohort.engine.convergence import convergence
from cohort.engine.measure import measure_pair
from cohort.engine.plan import Tile
from cohort.engine.registered_pair import RegisteredPair
from cohort.engine.results import commit_part, pair_key, part_path
from cohort.engine.workbench import Workbench
from cohort.errors import StorageError, SubjectError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TileReport:
    """What the driver learns of a tile; the rows themselves are on disk.

    Attributes:
        tile_id: which tile.
        pairs, failed: how many pairs it has, and how many of them failed.
        elapsed_s: from start to commit.
        worker: host and process.
        seconds: the time by kind: reading, preparing, registering, measuring, committing.
    """

    tile_id: str
    pairs: int
    failed: int
    elapsed_s: float
    worker: str
    seconds: dict[str, float]


def run_tile(workbench: Workbench, tile: Tile, attempt: int = 1) -> TileReport:
    """Register and measure a tile's pairs and commit their rows; a committed tile is left alone.

    Raises:
        StorageError: if the store or the run's folder cannot be read or written.
    """
    start, before = time.perf_counter(), dict(workbench.seconds)
    worker = f"{socket.gethostname()}-{os.getpid()}"
    failed = 0
    if not part_path(workbench.run_dir, tile.tile_id).exists():
        with one_thread(), torch.inference_mode():
            kept: dict[tuple[str, str], dict[str, np.ndarray]] = {}
            rows = [_row(workbench, *pair, kept) for pair in tile.pairs]
        common = {"tile": tile.tile_id, "worker": worker, "attempt": attempt}
        failed = sum(row["status"] != "ok" for row in rows)
        with workbench.timed("commit_s"):
            # first, as the part vouches for all that belongs to its rows
            uncertainty.keep(workbench.run_dir, tile.tile_id, kept)
            commit_part(workbench.run_dir, tile.tile_id, [row | common for row in rows])
    spent = {kind: s - before.get(kind, 0.0) for kind, s in workbench.seconds.items()}
    elapsed_s = time.perf_counter() - start
    return TileReport(tile.tile_id, len(tile.pairs), failed, elapsed_s, worker, spent)


def _row(
    workbench: Workbench,
    fixed: str,
    moving: str,
    kept: dict[tuple[str, str], dict[str, np.ndarray]],
) -> dict[str, Any]:
    """One pair's row, whatever happens to the pair; adds to what is kept beside the rows."""
    spec = workbench.spec
    digests = workbench.digests[fixed], workbench.digests[moving]
    row: dict[str, Any] = {
        "pair_key": pair_key(spec.fingerprint, spec.device, *digests),
        "fixed": fixed,
        "moving": moving,
        "status": "ok",
        "method": spec.method.name,
        "fingerprint": spec.fingerprint,
    }
    try:
        measures, extras = _register_and_measure(workbench, fixed, moving)
        row |= measures | convergence(extras)
        if spec.keep_uncertainty:
            kept[fixed, moving] = uncertainty.said(extras)
    except SubjectError as error:
        row |= {"status": error.code, "message": error.message}
    except StorageError:
        raise
    except MemoryError:
        row |= {"status": "E_OOM", "message": "not enough memory for this pair"}
    except Exception as error:
        # whatever a method does to one pair, the others go on; the row says what it was
        _LOG.exception("pair %s, %s failed", fixed, moving)
        row |= {"status": "E_METHOD", "message": f"{type(error).__name__}: {error}"}
    return row | {"finished_at": datetime.now(UTC).isoformat(timespec="milliseconds")}


def _register_and_measure(
    workbench: Workbench, fixed: str, moving: str
) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    scans = workbench.subject(fixed).scan, workbench.subject(moving).scan
    start = time.perf_counter()
    result = workbench.register(fixed, moving)
    families = workbench.spec.metrics
    backward = workbench.register(moving, fixed).displacement if "consistency" in families else None
    registered = time.perf_counter()
    with workbench.timed("metrics_s"):
        pair = RegisteredPair.of(*scans, result.displacement, workbench.store.grid, backward)
        measures = measure_pair(pair, families)
    measured = time.perf_counter()
    times = {
        "register_s": registered - start,
        "metrics_s": measured - registered,
        "elapsed_s": measured - start,
    }
    return measures | times, result.extras
