"""Tensor-based morphometry of a cohort: its template, and how much larger each subject is, where.

    python workflows/morphometry.py cohort.zarr out --config workflows/morphometry.yaml --workers 2

Makes the template in ``OUT`` and writes into ``OUT/morphometry``: ln det J of template to subject,
positive where the subject is larger, as one 4D file with mask and design for FSL's randomise and
PALM, t maps of the design, and volumes of structures. The same command again goes on where it was.
``cohort atlas`` and ``cohort morphometry`` do the same.
"""

# ruff: noqa: T201

import argparse
from pathlib import Path

from cohort.config.choices import read_choices
from cohort.config.method import method_config
from cohort.data.store import CohortStore
from cohort.endings import ended
from cohort.engine.team import Team
from cohort.studies.atlas.build import build_template
from cohort.studies.atlas.one_pass import Build
from cohort.studies.atlas.settings import checked_settings
from cohort.studies.morphometry import FOLDER, MorphometrySettings, measure_volume_changes

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
    template = checked_settings({
        "subjects": store.subject_ids,
        "center": chosen["center"],
        "method": method_config(chosen["method"], None, chosen["settings"]),
    })  # fmt: skip
    build = Build(store, asked.out, template, Team(asked.workers))
    build_template(build, chosen["iterations"])
    settings = MorphometrySettings(
        affine=chosen["affine"],
        fwhm_mm=chosen["fwhm_mm"],
        design=Path(chosen["design"]) if chosen["design"] else None,
    )
    facts = measure_volume_changes(asked.out, settings, max(asked.workers, 1), asked.store)
    print(asked.out / FOLDER, facts["measure"], facts["randomise"], sep="\n")
    for name, found in facts["statistics"].items():
        print(f"t of {name}: {found['t_min']:.2f} to {found['t_max']:.2f}, not corrected")
    for subject_id, message in facts["failed"].items():
        print(f"{subject_id} is left out: {message}")


if __name__ == "__main__":
    ended(main)
