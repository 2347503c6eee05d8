"""An unbiased template of a cohort, its labels, and everyone's transform to it.

    python workflows/atlas.py cohort.zarr template --config workflows/atlas.yaml --workers 2

Writes ``OUT/index.html``, ``OUT/tpl-NAME`` with the template and its maps, ``OUT/subjects.csv`` and
``OUT/run``, whose kept displacements `cohort export` and `cohort apply` read. Prints each pass. The
same command again goes on where it was; ``cohort atlas`` does the same.
"""

# ruff: noqa: T201

import argparse
from pathlib import Path
from typing import Any

from cohort.config.choices import read_choices
from cohort.config.method import method_config
from cohort.data.store import CohortStore
from cohort.data.subject_choice import chosen_subjects
from cohort.endings import ended
from cohort.engine.team import Team
from cohort.report.template import write_template_page
from cohort.studies.atlas.build import build_template
from cohort.studies.atlas.one_pass import Build
from cohort.studies.atlas.settings import checked_settings

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
    named = chosen["subjects"]
    subjects = chosen_subjects("subjects", named, store.subject_ids) if named else store.subject_ids
    settings = checked_settings({
        "subjects": subjects,
        "method": method_config(chosen["method"], None, chosen["set"]),
        **chosen["template"],
    })  # fmt: skip
    build = Build(store, asked.out, settings, Team(asked.workers), on_pass=say)
    document = build_template(build, chosen["iterations"])
    print(write_template_page(asked.out), asked.out / document["image"], sep="\n")


def say(number: int, facts: dict[str, Any]) -> None:
    drift = f"{facts['drift_mm']:.3f} mm found, {facts['left_voxels']:.3f} voxels left"
    moved = f"moved by {facts['moved_mm']:.3f} mm"
    print(f"pass {number}: drift {drift}; {moved}; NCC {facts['ncc']:.4f}", flush=True)


if __name__ == "__main__":
    ended(main)
