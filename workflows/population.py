"""A cohort as a population: all pairs registered, then who is in the middle, and who stands apart.

    python workflows/population.py cohort.zarr out --config workflows/population.yaml --workers 2

Registers every pair into ``OUT/run`` and analyses it into ``OUT/population``: ``index.html``,
``subjects.csv``, ``pairs.parquet``, ``triangles.csv``, ``population.json``, and the ids of each
cluster, of which the printed commands build templates. The same command again goes on where it was.
``cohort register`` and ``cohort population`` do the same.
"""

# ruff: noqa: T201

import argparse
from pathlib import Path

from cohort.config.choices import read_choices
from cohort.config.method import method_config
from cohort.data.store import CohortStore
from cohort.endings import ended
from cohort.engine.families import families_of
from cohort.engine.opening import Opening
from cohort.engine.plan import PlanSettings, open_run
from cohort.engine.run import run
from cohort.engine.team import Team
from cohort.report.population import write_population_page
from cohort.studies.population import PopulationSettings, analyse
from cohort.studies.population_files import template_commands, write_population

DEFAULTS = Path(__file__).with_suffix(".yaml")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, default=DEFAULTS)
    parser.add_argument("--workers", type=int, default=0, help="0 is a plain loop")
    asked = parser.parse_args()
    chosen = read_choices(asked.config, DEFAULTS)
    run_dir, out = asked.out / "run", asked.out / "population"
    store = CohortStore.open(asked.store)
    asked.out.mkdir(parents=True, exist_ok=True)
    settings = PlanSettings(
        method_config(chosen["method"], None, chosen["set"]),
        chosen["pairs"],
        metrics=families_of(chosen["metrics"]),
    )
    open_run(run_dir, store, settings)
    run(run_dir, store, team=Team(asked.workers))
    found = analyse(
        Opening(run_dir=run_dir, store=store.address, workers=max(asked.workers, 1)),
        out,
        PopulationSettings(
            distance=chosen["distance"],
            clusters=None if chosen["clusters"] == "auto" else chosen["clusters"],
            triangles=chosen["triangles"],
            seed=chosen["seed"],
        ),
        asked.workers,
    )
    write_population(found, out)
    commands = template_commands(found.facts, out)
    page = write_population_page(out, commands)
    print(page, f"medoid {found.facts['medoid']}", *commands, sep="\n")
    for subject, reason in found.subjects.select("subject", "reason").iter_rows():
        if subject in found.facts["apart"]:
            print(f"{subject} stands apart: {reason}")


if __name__ == "__main__":
    ended(main)
