"""What a planned run will take: time, memory, bytes and money, for any number of workers."""

import math
from dataclasses import dataclass

from cohort.engine.measured import Measured
from cohort.engine.simulate import simulate
from cohort.engine.tiles import Tiles, panel_width

_PLAYED = 30_000  # tiles of a run that is played through; of a larger one the sum is as good


@dataclass(frozen=True)
class Estimate:
    """A run with some number of workers like the one that was measured.

    Attributes:
        workers: how many.
        elapsed_s: from the start of the workers to the last commit.
        worker_s: that all workers together are paid for.
        efficiency: share of that in pairs.
        read_bytes: of subjects, before compression.
        written_bytes: of rows.
        host_bytes: memory that a worker takes at most, subjects at hand and all.
        device_bytes: the same on its card; 0 on a CPU.
    """

    workers: int
    elapsed_s: float
    worker_s: float
    efficiency: float
    read_bytes: float
    written_bytes: float
    host_bytes: float
    device_bytes: float


def estimate(tiles: Tiles, workers: int, measured: Measured, fit: int) -> Estimate:
    """What a run takes; from a simulation of it, or for a very large one from sums.

    Args:
        tiles: of the run.
        workers: like the measured one.
        measured: on this machine.
        fit: subjects that each worker has memory for.
    """
    subjects = len(tiles.subject_ids)
    at_hand = panel_width(subjects, workers, fit)
    if len(tiles) <= _PLAYED:
        ordered = Tiles.of(tiles.pairs, tiles.subject_ids, tiles.side, at_hand)
        played = simulate(ordered, workers, measured.costs, fit)
        elapsed_s, read = played.elapsed_s, played.subjects_read
    else:
        read = min(subjects**2 / (2 * at_hand) + workers * at_hand, 2.0 * tiles.n_pairs)
        elapsed_s = _summed(tiles, workers, measured, read)
    kept = min(fit, math.ceil(read / workers)) * measured.subject_bytes
    on_card = measured.device_bytes > 0
    return Estimate(
        workers,
        elapsed_s,
        elapsed_s * workers,
        tiles.n_pairs * measured.pair_s / (workers * elapsed_s),
        read * measured.stored_bytes,
        tiles.n_pairs * measured.row_bytes,
        measured.worker_bytes + (0 if on_card else kept),
        measured.device_bytes + kept if on_card else 0,
    )


def _summed(tiles: Tiles, workers: int, measured: Measured, read: float) -> float:
    """Everyone's work shared evenly, and half a tile more, for which the last one is waited."""
    work = tiles.n_pairs * measured.pair_s + len(tiles) * measured.tile_s
    work += read * measured.prepare_s  # reading goes on beside it
    return measured.start_s + work / workers + tiles.n_pairs / len(tiles) * measured.pair_s / 2
