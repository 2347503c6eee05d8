"""Our methods beside the registration tools that people use: one run, one machine, one core.

    make peers                                                           (Linux)
    python benchmarks/peers.py cohort.zarr --pairs 6
    python benchmarks/peers.py ../shared/data/ixi6_affine_2mm/ixi6_affine_2mm.npz --slow

Pairs are neighbours in the order of subjects, the last with the first. Each tool registers all of
them in a process of its own, on one thread of one core; the peers come from ``.venv-peers``. They
are separate programs, run for comparison, never dependencies of this project. ``peers_tools.py`` in
``cohort/studies/bench`` says how each is called, ``peers.txt`` under which licence it is given.
`cohort bench --peers` measures them beside all methods, by the protocol of that study.

All displacements are measured by the same code: labels move with the nearest neighbour; Dice is the
mean over the structures that both subjects have, and has to agree with that of the labels as the
tool itself warps them. Seconds are the median of the registration call alone, on the wall and of
the processor, without imports and conversions (ANTs writes its transforms within the call); for
ours features of both scans, which a cohort makes once a subject, stand apart. Memory is the most
that the process held, libraries and all scans included. Beside each peer stand the settings of
VoxelOpt and of DIO with the sd of ln det J nearest to its own. SyN with cross-correlation takes
minutes a pair and runs with ``--slow`` only. FireANTs is not among the peers: its package asks for
another version of SimpleITK than this environment holds.

Rows are written to ``benchmarks/results/peers_<name>.csv``, and a picture of them beside it.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.peers_ours import AS_SMOOTH, OURS
from benchmarks.peers_plot import draw
from cohort.data.store import CohortStore
from cohort.studies.bench.machine import cpu_name
from cohort.studies.bench.peers import ENVIRONMENT, SCRIPT, SLOW, TOLERANCE
from cohort.studies.bench.peers_tools import TOOLS
from triton_reg import Displacement
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.overlap import dice
from triton_reg.ops.resize import grid_shape

HERE = Path(__file__).parent
PEERS_PYTHON = HERE.parent / ".venv-peers" / "bin" / "python"
MEASURES = ("dice_before", "dice_mean", "sdlogj", "folding")
COSTS = ("register_s", "register_cpu_s", "features_s")
COLUMNS: list[str] = [
    "tool", "settings", "version", "pairs", *MEASURES, *COSTS, "peak_mib",
    *AS_SMOOTH, "cpu", "date",
]  # fmt: skip
Row = dict[str, str]


class Case(NamedTuple):
    """Scans ``[N, D, H, W]`` on one grid, their labels, mm a voxel, and (fixed, moving) rows."""

    volumes: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]
    pairs: list[tuple[int, int]]


def ring(subjects: int, pairs: int) -> list[tuple[int, int]]:
    """The first pairs of neighbours in a ring of subjects."""
    if not 1 <= pairs <= subjects or subjects < 2:
        raise SystemExit(f"--pairs: got {pairs}, {subjects} subjects have 1 to {subjects} pairs")
    return [(index, (index + 1) % subjects) for index in range(pairs)]


def read_case(data: Path, pairs: int) -> Case:
    """The scans of a store, or of an archive with ``vols``, ``labs`` and ``affine``."""
    if data.suffix == ".npz":
        with np.load(data) as archive:
            volumes, labels, affine = archive["vols"], archive["labs"], archive["affine"]
        first, second, third = np.linalg.norm(affine[:3, :3], axis=0).tolist()
        chosen = ring(len(volumes), pairs)
        return Case(volumes, labels.astype(np.int32), (first, second, third), chosen)
    store = CohortStore.open(data)
    chosen = ring(len(store.subject_ids), pairs)
    needed = sorted({row for pair in chosen for row in pair})
    subjects = [store.read(store.subject_ids[row]) for row in needed]
    bare = [one.subject_id for one in subjects if one.labels is None]
    if bare:
        raise SystemExit(f"{data}: Dice needs labels, and {', '.join(bare)} has none")
    labels = np.stack([one.labels for one in subjects if one.labels is not None]).astype(np.int32)
    rows = [(needed.index(fixed), needed.index(moving)) for fixed, moving in chosen]
    return Case(np.stack([one.volume for one in subjects]), labels, store.grid.spacing_mm, rows)


def run_tool(name: str, case: Case, folder: Path) -> list[dict[str, np.ndarray]]:
    """What a tool makes of each pair, in a process of its own.

    Raises:
        RuntimeError: if its process fails; the message ends with what it said last.
    """
    ours = name in OURS
    script = HERE / "peers_ours.py" if ours else SCRIPT
    np.savez(folder / "pairs.npz", **case._asdict())
    done = subprocess.run(
        [sys.executable if ours else PEERS_PYTHON, script, name, folder / "pairs.npz", folder],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stdout[-2000:]}")
    outcomes = []
    for index in range(len(case.pairs)):
        with np.load(folder / f"{index}.npz") as arrays:
            outcomes.append(dict(arrays))
    return outcomes


def measured(name: str, case: Case, outcomes: list[dict[str, np.ndarray]]) -> Row:
    """A row of the results: means over the pairs, medians of the seconds.

    Raises:
        RuntimeError: if a displacement warps labels otherwise than its tool does.
    """
    labels = torch.from_numpy(case.labels)
    structures = labels.unique()[1:].long()
    rows = []
    for (fixed, moving), outcome in zip(case.pairs, outcomes, strict=True):
        vectors = torch.from_numpy(outcome["displacement"])[None]
        displacement = Displacement(vectors, grid_shape(vectors), grid_shape(vectors))
        source = labels[moving][None, None].float()
        moved = displacement.warp(source, interpolation="nearest")[0, 0].int()
        maps = labels[moving], moved, torch.from_numpy(outcome["labels"])
        before, after, own = (dice(labels[fixed], one, structures).nanmean().item() for one in maps)
        if abs(after - own) > TOLERANCE:
            raise RuntimeError(
                f"{name}: pair {fixed}, {moving} has Dice {after:.3f} by its displacement and "
                f"{own:.3f} by the tool's own warp; the displacement means something else"
            )
        smooth = jacobian_measures(vectors)
        rows.append((before, after, smooth.sdlogj.item(), smooth.folding.item()))
    row = {key: f"{mean:.4f}" for key, mean in zip(MEASURES, np.mean(rows, axis=0), strict=True)}
    for key in COSTS:
        spent = [outcome[key].item() for outcome in outcomes if key in outcome]
        row[key] = f"{statistics.median(spent):.2f}" if spent else ""
    return {
        "tool": name,
        "settings": "" if name in OURS else TOOLS[name].settings,
        "version": str(outcomes[0]["version"]),
        "pairs": str(len(case.pairs)),
        **row,
        "peak_mib": f"{max(outcome['peak_mib'].item() for outcome in outcomes):.0f}",
    }


def as_smooth(row: Row, ours: list[Row]) -> Row:
    """What of each family of ours is nearest to a row in smoothness, by name."""

    def apart(one: Row) -> float:
        return abs(float(one["sdlogj"]) - float(row["sdlogj"]))

    families = {
        column: [one for one in ours if one["tool"].split(",")[0] == family]
        for column, family in AS_SMOOTH.items()
    }
    return {column: min(own, key=apart)["tool"] for column, own in families.items() if own}


def run_all(case: Case, names: list[str], results: Path) -> list[str]:
    """Run the tools in turn, ours first, write after each; returns the peers that failed."""
    about = {"cpu": cpu_name(), "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    rows: list[Row] = []
    failed = []
    for name in names:
        try:
            with tempfile.TemporaryDirectory() as folder:
                row = measured(name, case, run_tool(name, case, Path(folder)))
        except RuntimeError as error:
            if name in OURS:
                raise
            print(f"left out: {error}", file=sys.stderr)
            failed.append(name)
            continue
        ours = [one for one in rows if one["tool"] in OURS]
        beside = {} if name in OURS else as_smooth(row, ours)
        rows.append({**row, **beside, **about})
        print(*({**row, **beside}.values()), sep="  ", flush=True)
        with results.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("data", type=Path, help="a cohort's store, or ixi6_affine_2mm.npz")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--slow", action="store_true", help=f"also {', '.join(sorted(SLOW))}")
    parser.add_argument("--name", help="of the results; the data's up to its first underscore")
    arguments = parser.parse_args()
    if not PEERS_PYTHON.exists():
        raise SystemExit(f"there is no {PEERS_PYTHON}: `make peers` makes it")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    case = read_case(arguments.data, arguments.pairs)
    name = arguments.name or arguments.data.stem.partition("_")[0]
    names = [*OURS, *(tool for tool in TOOLS if arguments.slow or tool not in SLOW)]
    results = HERE / "results" / f"peers_{name}.csv"
    failed = run_all(case, names, results)
    draw(results, results.with_suffix(".png"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
