"""Another registration tool on the pairs of a cell, in the interpreter that it is installed in.

The tools are separate programs. ``peers_tools.py`` says how each is called; it is run by its path,
on one thread, and knows nothing of this package: pairs go in and displacements come out as files.
What displacements are worth is measured here, as it is for the package's own methods.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from cohort.data.store import CohortStore
from cohort.engine.measure import measure_pair
from cohort.engine.registered_pair import RegisteredPair
from cohort.engine.scan import Scan
from cohort.engine.spec import Device
from cohort.errors import CohortError
from cohort.studies.bench.cell import Pair, mean_measures
from cohort.studies.bench.ended import end_of
from cohort.studies.bench.peers_tools import TOOLS
from cohort.studies.bench.timing import spread
from triton_reg import Displacement
from triton_reg.metrics.overlap import dice_of_counts, label_counts
from triton_reg.ops.resize import grid_shape

SCRIPT = Path(__file__).with_name("peers_tools.py")
SLOW = frozenset({"SyN CC"})  # minutes a pair
PEERS = tuple(name for name in TOOLS if name not in SLOW)
TOLERANCE = 0.005  # of Dice, between our warp of the labels and the tool's own
ENVIRONMENT = {
    **dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS",
         "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1"),
    # else the script's neighbours would stand before the tools' own modules of the same names
    "PYTHONSAFEPATH": "1",
}  # fmt: skip
Outcome = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class PeerTask:
    """What is measured.

    Attributes:
        store: address of the cohort.
        pairs: (fixed, moving), which turns take one after the other.
        tool: one of ``TOOLS``.
        python: the interpreter that has it.
        repeats: turns after the first, or as many more as it takes to see every pair.
    """

    device: ClassVar[Device] = "cpu"
    store: str
    pairs: tuple[Pair, ...]
    tool: str
    python: str
    repeats: int


def measure_peer(task: PeerTask) -> dict[str, Any]:
    """What a tool's row says of its times, memory and accuracy.

    ``register_s`` is the call alone, without imports and conversions; the first turn is apart, as
    in a cell. ``peak_mib`` is all that the tool's process held, its libraries and the scans too.
    Masks are not given to tools.

    Raises:
        CohortError: ``E_PROCESS`` with its last words if the tool's process fails, ``E_METHOD`` if
            its displacement moves labels otherwise than the tool itself does.
    """
    store = CohortStore.open(task.store)
    turns = max(task.repeats, len(task.pairs)) + 1
    pairs = list(islice(cycle(task.pairs), turns))
    scans = {name: Scan.of(store.read(name)) for name in {name for pair in pairs for name in pair}}
    measured: dict[Pair, dict[str, Any]] = {}
    costs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="cohort-bench-") as folder:
        _write_pairs(Path(folder), scans, pairs, store.grid.spacing_mm)
        _run(task, Path(folder))
        for pair, outcome in zip(pairs, _outcomes(Path(folder), turns), strict=True):
            names = ("register_s", "register_cpu_s", "peak_mib")
            costs.append({name: outcome[name].item() for name in names})
            if pair not in measured:
                measured[pair] = _accuracy(task.tool, pair, scans, outcome, store)
            version = str(outcome["version"])
    row = _times(costs) | mean_measures(list(measured.values()))
    return row | {"version": version, "repeats": turns - 1, "pairs": len(measured)}


def _write_pairs(
    folder: Path, scans: Mapping[str, Scan], pairs: Sequence[Pair], spacing_mm: Sequence[float]
) -> None:
    """The file that the script reads; labels are zeros where a subject has none."""
    names = list(scans)
    volumes = np.stack([one.volume[0, 0].numpy() for one in scans.values()])
    labels = [
        np.zeros(volumes.shape[1:], np.int32) if one.labels is None else one.labels[0, 0].numpy()
        for one in scans.values()
    ]
    rows = [(names.index(fixed), names.index(moving)) for fixed, moving in pairs]
    np.savez(
        folder / "pairs.npz", volumes=volumes, labels=np.stack(labels), spacing_mm=spacing_mm,
        pairs=rows,
    )  # fmt: skip


def _run(task: PeerTask, folder: Path) -> None:
    done = subprocess.run(
        [task.python, SCRIPT, task.tool, folder / "pairs.npz", folder],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise CohortError("E_PROCESS", end_of(done))


def _outcomes(folder: Path, turns: int) -> Iterator[Outcome]:
    """One at a time: a displacement may be large."""
    for turn in range(turns):
        with np.load(folder / f"{turn}.npz") as arrays:
            yield dict(arrays)


def _accuracy(
    tool: str, pair: Pair, scans: Mapping[str, Scan], outcome: Outcome, store: CohortStore
) -> dict[str, Any]:
    vectors = torch.from_numpy(outcome["displacement"])[None]
    shape = grid_shape(vectors)
    fixed, moving = (scans[name] for name in pair)
    registered = RegisteredPair.of(fixed, moving, Displacement(vectors, shape, shape), store.grid)
    found = measure_pair(registered)
    own = _own_dice(registered, outcome["labels"])
    if own is not None and abs(found["dice_mean"] - own) > TOLERANCE:
        raise CohortError(
            "E_METHOD",
            f"{tool}: pair {', '.join(pair)} has Dice {found['dice_mean']:.3f} by its displacement"
            f" and {own:.3f} by the tool's own warp; the displacement means something else",
        )
    return found


def _own_dice(pair: RegisteredPair, labels: np.ndarray) -> float | None:
    """Dice of the labels as the tool itself warps them; None where there are none to compare."""
    if not pair.has_labels or not len(pair.structures):
        return None
    inside = (pair.compared[1] > 0).int()
    moved = torch.from_numpy(labels)[None, None] * inside
    counts = label_counts(pair.labels_after[0], moved, pair.counts_before.shape[1])
    return dice_of_counts(counts[:, pair.structures]).nan_to_num(0.0).mean().item()


def _times(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    registered = spread([cost["register_s"] for cost in costs[1:]])
    return {
        "register_s": registered.median,
        "register_q1_s": registered.q1,
        "register_q3_s": registered.q3,
        "register_cpu_s": spread([cost["register_cpu_s"] for cost in costs[1:]]).median,
        "first_extra_s": max(0.0, costs[0]["register_s"] - registered.median),
        "pairs_per_hour": 3600 / registered.median,
        "peak_mib": max(cost["peak_mib"] for cost in costs),
    }
