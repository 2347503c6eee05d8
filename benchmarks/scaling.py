"""Efficiency of whole runs on 1 to 512 workers, in simulated time, and a picture of it.

    python benchmarks/scaling.py              with the constants that the design assumed
    python benchmarks/scaling.py RUN          and with those of a run's own events

What is simulated is the time alone: tiles, their order, their way to the workers, the taking over
of work and the caches are those of a real run (:mod:`cohort.engine.simulate`). Efficiency is time
in pairs over time of all workers, from the moment they are ready. A run's constants are the means
of its ``events.jsonl``. Written to ``benchmarks/results/scaling.csv`` and ``scaling.png``.
"""

# ruff: noqa: T201

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt

from cohort.engine.events import read_events
from cohort.engine.pairs import select_pairs
from cohort.engine.simulate import Costs, simulate
from cohort.engine.tiles import Tiles, panel_width, tile_side

RESULTS = Path(__file__).parent / "results"
COHORTS = (414, 10_000, 100_000)
WORKERS = (1, 8, 64, 512)
COLUMNS = [
    "constants", "pair_s", "subjects", "workers", "tile_side", "tiles", "efficiency", "hours",
    "read_tb", "at_hand", "waiting_share",
]  # fmt: skip
# a pair of a quarter of a second on a GPU, 7.6 MB a subject, machines of eight GPUs that read
# 2 GB/s and 40 GB/s together
ASSUMED = Costs(
    pair_s=0.25,
    prepare_s=0.03,
    read_s=0.041,
    subject_bytes=7.6e6,
    tile_s=0.025,
    machine_bytes_s=2e9,
    total_bytes_s=40e9,
)
FIT = 900  # subjects of 42 MB on a card


@dataclass(frozen=True)
class Case:
    """Constants with a name."""

    name: str
    costs: Costs


def costs_of(run_dir: Path, subject_bytes: float) -> Costs:
    """The constants of a run, from its events."""
    tiles = [event for event in read_events(run_dir) if event["event"] == "tile_done"]
    pairs, prepared = (sum(tile[name] for tile in tiles) for name in ("pairs", "prepared"))
    spent = {
        kind: sum(tile["seconds"].get(f"{kind}_s", 0.0) for tile in tiles)
        for kind in ("read", "prepare", "commit")
    }
    in_pairs = sum(tile["elapsed_s"] for tile in tiles) - sum(spent.values())
    return Costs(
        pair_s=in_pairs / pairs,
        prepare_s=spent["prepare"] / prepared,
        read_s=spent["read"] / prepared,
        subject_bytes=subject_bytes,
        tile_s=spent["commit"] / len(tiles) + 0.002,  # and the scheduler's way there and back
        machine_bytes_s=ASSUMED.machine_bytes_s,
        total_bytes_s=ASSUMED.total_bytes_s,
    )


def played(case: Case, subjects: int, workers: int) -> dict[str, str | int]:
    """One row: all ordered pairs of a cohort."""
    names = tuple(f"s{number:06d}" for number in range(subjects))
    pairs = select_pairs("all", names, 0)
    side = tile_side(pairs, subjects, case.costs.pair_s, workers, FIT)
    tiles = Tiles.of(pairs, names, side, panel_width(subjects, workers, FIT))
    found = simulate(tiles, workers, case.costs, FIT)
    return {
        "constants": case.name,
        "pair_s": f"{case.costs.pair_s:.4f}",
        "subjects": subjects,
        "workers": workers,
        "tile_side": side,
        "tiles": found.tiles,
        "efficiency": f"{found.efficiency:.4f}",
        "hours": f"{found.elapsed_s / 3600:.3f}",
        "read_tb": f"{found.bytes_read / 1e12:.3f}",
        "at_hand": f"{found.found_share:.3f}",
        "waiting_share": f"{found.waiting_s / (workers * found.elapsed_s):.4f}",
    }


def draw(rows: list[dict[str, str | int]], path: Path) -> None:
    """Efficiency by workers, a panel for each set of constants."""
    kinds = list(dict.fromkeys(str(row["constants"]) for row in rows))
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.5 * len(kinds), 3.4), sharey=True,
                                squeeze=False, layout="constrained")  # fmt: skip
    for axis, kind in zip(axes[0], kinds, strict=True):
        for subjects in COHORTS:
            own = [row for row in rows if (row["constants"], row["subjects"]) == (kind, subjects)]
            axis.plot(WORKERS, [float(row["efficiency"]) for row in own], marker="o",
                      label=f"{subjects:,} subjects")  # fmt: skip
        pair_s = next(row["pair_s"] for row in rows if row["constants"] == kind)
        axis.set(xscale="log", xlabel="workers", title=f"{kind}, {float(pair_s):.3g} s a pair")
        axis.set_xticks(WORKERS, [str(workers) for workers in WORKERS])
        axis.minorticks_off()
        axis.axhline(0.97, color="grey", linewidth=0.8, linestyle=":")
        axis.grid(alpha=0.3)
    axes[0][0].set(ylabel="time in pairs / time of all workers")
    axes[0][0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, nargs="?", help="a run with its events")
    parser.add_argument("--name", default="measured", help="what to call its constants")
    asked = parser.parse_args()
    if asked.run and not (asked.run / "events.jsonl").is_file():
        parser.error(f"{asked.run} is no run with events")
    cases = [Case("assumed GPU", ASSUMED)]
    if asked.run:
        cases.append(Case(asked.name, costs_of(asked.run, ASSUMED.subject_bytes)))
    rows = []
    for case in cases:
        for subjects in COHORTS:
            for workers in WORKERS:
                rows.append(played(case, subjects, workers))
                print(rows[-1], flush=True)
    with (RESULTS / "scaling.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, RESULTS / "scaling.png")


if __name__ == "__main__":
    main()
