"""Whether damaged subjects are found without labels: mean area under the ROC curve over draws.

    cohort ingest ../shared/data/ixi_t1_2mm_more more4.zarr --grid 48x56x48@4mm --align affine \
        --reference ../shared/data/ixi_t1_2mm/images/IXI012-HH-1211.nii.gz
    PYTHONPATH=. python benchmarks/outliers.py more4.zarr work \
        --other ../shared/data/hippocampus_msd/images

Forty brains of the store are damaged in each of six ways (``benchmarks/damages.py``), at a random
strength each. In every draw two of the forty are the damaged ones and 38 are as they were, and
`cohort.studies.population_outliers.rank_outliers` scores all from the rows of their ordered pairs.
Each pair that some draw needs is registered once, with the default method and the headline
measures; the same command goes on where it was. Wrong anatomy is a hippocampus or a synthetic head.
``--half 0`` takes forty other brains: those, with other seeds, were looked at while the score was
chosen. Rows are appended to ``benchmarks/results/outliers.csv``; ``found_first`` is the share of
draws in which both damaged subjects rank above all others. ``--strength 0.3 --draws 10`` shows
what milder damages do.
"""

# ruff: noqa: T201

import argparse
import csv
import datetime
import random
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.damages import DAMAGES, Scene
from cohort.data.geometry import Grid
from cohort.data.nifti import read_nifti
from cohort.data.store import CohortStore, Subject
from cohort.data.synth import SynthSettings, synthesise_subject
from cohort.engine.plan import PlanSettings, open_run
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.engine.team import Team
from cohort.studies.population_outliers import rank_outliers

RESULTS = Path(__file__).parent / "results" / "outliers.csv"
SUBJECTS, DAMAGED, OTHERS = 40, 2, 20
COLUMNS = [
    "half", "seed", "strength", "damage", "draws", "pairs", "auc_mean", "auc_sd", "auc_least",
    "found_first", "measures", "date",
]  # fmt: skip


def damaged_name(subject: str, kind: str) -> str:
    return f"{subject}.{kind}"


def draws_of(names: Sequence[str], count: int, seed: int) -> dict[str, list[tuple[str, ...]]]:
    """Different pairs of subjects to be damaged, by kind of damage."""
    found = {}
    for number, kind in enumerate(DAMAGES):
        generator = np.random.default_rng([seed, 1, number])
        drawn: dict[tuple[str, ...], None] = {}
        while len(drawn) < count:
            chosen = generator.choice(len(names), DAMAGED, replace=False)
            drawn[tuple(str(names[one]) for one in sorted(chosen.tolist()))] = None
        found[kind] = list(drawn)
    return found


def needed_pairs(
    names: Sequence[str], draws: dict[str, list[tuple[str, ...]]]
) -> dict[tuple[str, str], None]:
    """Every ordered pair that some draw looks at."""
    pairs = dict.fromkeys(permutations(names, 2))
    for kind, drawn in draws.items():
        for chosen in drawn:
            own = [damaged_name(one, kind) for one in chosen]
            pairs |= dict.fromkeys(permutations(own, 2))
            for bad in own:
                for good in set(names) - set(chosen):
                    pairs |= {(bad, good): None, (good, bad): None}
    return dict.fromkeys(sorted(pairs))


def damage_all(
    source: CohortStore, names: Sequence[str], scene: Scene, seed: int, path: Path
) -> CohortStore:
    """A store of the subjects and each damaged version of them, without labels."""
    if (path / "zarr.json").exists():
        return CohortStore.open(path)
    making = path.with_name(f"{path.name}.new")
    store = CohortStore.create(making, source.grid, settings={})
    for place, name in enumerate(names):
        volume = source.read(name).volume
        store.commit(Subject(name, volume), {"source": None})
        for number, (kind, damage) in enumerate(DAMAGES.items()):
            generator = np.random.default_rng([seed, 2, place, number])
            spoiled = damage(volume, generator, scene)
            store.commit(Subject(damaged_name(name, kind), spoiled), {"source": None})
    making.rename(path)
    return CohortStore.open(path)


def other_anatomies(folder: Path, grid: Grid, seed: int) -> list[np.ndarray]:
    """Volumes of a folder, and as many synthetic heads."""
    paths = sorted(folder.glob("*.nii.gz"))[:OTHERS]
    settings = SynthSettings(shape=grid.shape, spacing_mm=grid.spacing_mm[0], seed=seed)
    heads = [synthesise_subject(settings, index).volume for index in range(len(paths))]
    return [read_nifti(path).data for path in paths] + heads


def scored(rows: pl.DataFrame, names: Sequence[str], kind: str, chosen: Sequence[str]):
    """Scores of a draw: those of the damaged, those of the others, and what was judged."""
    present = tuple(damaged_name(one, kind) if one in chosen else one for one in names)
    own = rows.filter(pl.col("fixed").is_in(present) & pl.col("moving").is_in(present))
    assert len(own) == len(names) * (len(names) - 1), (kind, chosen, len(own))
    found = rank_outliers(own, present)
    bad = np.array([one in chosen for one in names])
    return found.scores[bad], found.scores[~bad], found.measures


def area_under_curve(bad: np.ndarray, good: np.ndarray) -> float:
    """Share of (bad, good) couples in which the bad one scores higher; a tie counts half."""
    apart = bad[:, None] - good
    return float(((apart > 0) + 0.5 * (apart == 0)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--other", type=Path, required=True, help="NIfTI files of other anatomy")
    parser.add_argument("--half", type=int, default=1)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--strength", type=float, default=1.0, help="of most damages")
    parser.add_argument("--draws", type=int, default=50)
    asked = parser.parse_args()
    source = CohortStore.open(asked.store)
    shuffled = sorted(source.subject_ids)
    random.Random(0).shuffle(shuffled)
    names = sorted(shuffled[asked.half * SUBJECTS :][:SUBJECTS])
    asked.work.mkdir(parents=True, exist_ok=True)
    others = other_anatomies(asked.other, source.grid, asked.seed)
    scene = Scene(source.grid.spacing_mm[0], others, asked.strength)
    store = damage_all(source, names, scene, asked.seed, asked.work / "damaged.zarr")
    draws = draws_of(names, asked.draws, asked.seed)
    pairs = needed_pairs(names, draws)
    table, run_dir = asked.work / "pairs.csv", asked.work / "run"
    table.write_text("\n".join(["fixed,moving", *(",".join(pair) for pair in pairs), ""]))
    open_run(run_dir, store, PlanSettings(pairs=str(table)))
    took = run(run_dir, store, team=Team(0))
    print(f"{took.pairs} pairs in {took.elapsed_s:.0f} s")
    rows = read_rows(run_dir).filter(status="ok")
    for kind, drawn in draws.items():
        found = [scored(rows, names, kind, chosen) for chosen in drawn]
        areas = np.array([area_under_curve(bad, good) for bad, good, _ in found])
        first = np.mean([bad.min() > good.max() for bad, good, _ in found])
        measures = "; ".join(found[0][2])
        record = [
            *(asked.half, asked.seed, asked.strength, kind, len(areas)),
            len(names) * (len(names) - 1),
            *(f"{value:.4f}" for value in (areas.mean(), areas.std(ddof=1), areas.min())),
            *(f"{first:.2f}", measures, datetime.date.today().isoformat()),
        ]
        append(record)
        print(*record)


def append(record: Sequence[object]) -> None:
    is_new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS, record] if is_new else [record])


if __name__ == "__main__":
    main()
