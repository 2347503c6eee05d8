"""Multi-atlas segmentation of a cohort by several rules, from one set of registrations.

    python workflows/fuse.py cohort.zarr fused --config workflows/fuse.yaml --workers 2

Every atlas is registered to every target once, in ``OUT/run``; each rule has a folder with its
labels and scores. The same command again goes on where it was. Writes ``OUT/rules.csv``: the mean
Dice of each rule, of the likest single atlas and of the best one in hindsight, where targets have
labels of their own. `cohort fuse` does the same for one rule.
"""

# ruff: noqa: T201

import argparse
from pathlib import Path

import polars as pl

from cohort.config.choices import read_choices
from cohort.config.method import method_config
from cohort.data.store import CohortStore
from cohort.endings import ended
from cohort.engine.plan import PlanSettings
from cohort.engine.team import Team
from cohort.errors import UsageError
from cohort.studies.fusion import fuse, register_atlases
from cohort.studies.fusion_plan import plan_fusion
from triton_reg.ops.label_fusion import FusionSettings

DEFAULTS = Path(__file__).with_suffix(".yaml")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, default=DEFAULTS)
    parser.add_argument("--workers", type=int, default=0, help="0 is a plain loop")
    asked = parser.parse_args()
    chosen = read_choices(asked.config, DEFAULTS)
    store = CohortStore.open(asked.store)
    method = method_config(chosen["method"], None, chosen["settings"])
    try:
        rules = {rule: FusionSettings(rule, **chosen["fusion"]) for rule in chosen["rules"]}
    except ValueError as error:
        raise UsageError("E_FUSION", f"{asked.config}: {error}") from None
    if not rules:
        raise UsageError("E_FUSION", f"{asked.config}: rules is empty; need one at least")
    tasks = {
        rule: plan_fusion(
            store,
            chosen["targets"],
            chosen["atlases"],
            settings=settings,
            select=chosen["select"],
            confidence=chosen["confidence"],
        )
        for rule, settings in rules.items()
    }
    first, team = next(iter(tasks.values())), Team(asked.workers)
    run_dir = register_atlases(store, asked.out, first, PlanSettings(method), team=team)
    means = []
    for rule, task in tasks.items():
        report = fuse(store, run_dir, asked.out / rule, task, workers=asked.workers)
        columns = ("fused", "likest_dice", "best_dice")
        mean = {name: report.table[name].mean() for name in columns}
        means.append({"rule": rule, "targets": len(report.done), **mean})
        print(means[-1], *report.failed.values(), flush=True)
    pl.DataFrame(means).write_csv(asked.out / "rules.csv")


if __name__ == "__main__":
    ended(main)
