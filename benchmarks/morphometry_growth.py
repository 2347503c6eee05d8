"""Does morphometry show a growth that is known, at its true size, and none where there is none?

    PYTHONPATH=. taskset -c 1 python benchmarks/morphometry_growth.py --methods voxelopt,dio

Ten heads and ten of which a ball of 24 mm has grown by 30 % in volume, 2 mm voxels, each with a
random smooth deformation of its own (`growing_population.py`). ``visible``: the ball is a structure
with an edge. ``hidden``: the ball is whatever tissue lies there, so that only edges that happen to
run through it tell of the growth. ``none``: nothing grows. A template of everyone in three passes,
then morphometry with its defaults and the two groups as the design.

The true map of each subject is known on the template's grid and is smoothed in the same mask. All
numbers are of the difference between the two groups' mean ln det J: over the ball, the shell in
which the growth falls off, and outside, 10 mm and more from that. ``ratio`` is measured over true.
``volume`` is the mean volume of the ball in a group, by the transforms and in truth, before its
random deformation. Seconds are those of the processor.

Rows are written to ``benchmarks/results/morphometry_growth.csv``.
"""

# ruff: noqa: T201

import argparse
import datetime
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.growing_population import BALL_LABEL, GrowingPopulation, Growth
from benchmarks.results_table import renewed
from cohort.config.atlas import AtlasSettings
from cohort.config.method import method_config
from cohort.data.store import CohortStore
from cohort.studies.atlas.build import build_template
from cohort.studies.atlas.one_pass import Build
from cohort.studies.bench.machine import cpu_name
from cohort.studies.morphometry import MorphometrySettings, measure_volume_changes
from cohort.studies.morphometry_maps import smoothed
from cohort.studies.morphometry_space import read_values
from cohort.studies.nifti_images import read_volumes

RESULTS = Path(__file__).parent / "results" / "morphometry_growth.csv"
BALL = Growth(1.3, (20.0, -5.0, 12.0), 24.0, 44.0)
VISIBLE = GrowingPopulation(10, 96, 2.0, BALL, deformation_mm=1.5)
CASES = {
    "visible": VISIBLE,
    "none": replace(VISIBLE, ball=replace(BALL, factor=1.0)),
    "hidden": replace(VISIBLE, visible=False),
}
PASSES, MARGIN_MM, HIGH_T = 3, 10.0, 3.0
Row = tuple[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="voxelopt")
    parser.add_argument("--cases", default=",".join(CASES))
    asked = parser.parse_args()
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    columns = ("case", "method", "measure", "value", "cpu", "date")
    with renewed(RESULTS, columns, keys=2) as add:
        for method in asked.methods.split(","):
            for case in asked.cases.split(","):
                with tempfile.TemporaryDirectory() as folder:
                    for name, value in measured(CASES[case], method, Path(folder)):
                        print(case, method, name, f"{value:.5f}", sep="  ", flush=True)
                        add((case, method, name, f"{value:.5f}", cpu_name(), date))


def measured(
    population: GrowingPopulation, method: str, folder: Path, settings: tuple[str, ...] = ()
) -> Iterator[Row]:
    """What a template and morphometry of a population find, and what is true."""
    store = population.write(folder / "store")
    design = population.write_design(folder / "groups.csv")
    start = time.process_time()
    make_template(store, folder / "out", method, settings)
    yield "template cpu_s", time.process_time() - start
    start = time.process_time()
    wanted = MorphometrySettings(design=design)
    measure_volume_changes(folder / "out", wanted)
    yield "morphometry cpu_s", time.process_time() - start
    results = folder / "out" / "morphometry"
    yield from differences(population, results, wanted.fwhm_mm)
    if population.visible:
        yield from ball_volumes(population, results)


def make_template(
    store: CohortStore, out: Path, method: str, settings: tuple[str, ...] = ()
) -> None:
    """Of everyone."""
    chosen = method_config(method, None, list(settings))
    build_template(Build(store, out, AtlasSettings.model_validate(
        {"subjects": store.subject_ids, "method": chosen})), PASSES)  # fmt: skip


def differences(population: GrowingPopulation, results: Path, fwhm_mm: float) -> Iterator[Row]:
    """Between the groups' means, by region, as found and in truth."""
    mask = read_values(results / "mask.nii.gz") > 0
    true_maps = (smoothed(one, mask, population.grid, fwhm_mm) for one in population.true_maps())
    true = difference(population, true_maps)
    found = difference(population, read_volumes(results / "logjacobian.nii.gz"))
    t = read_values(results / "tstat-group.nii.gz")
    for name, region in regions(population, mask).items():
        yield f"{name}: found", found[region].mean()
        yield f"{name}: true", true[region].mean()
        yield f"{name}: root mean square of found", np.sqrt((found[region] ** 2).mean())
        yield (
            f"{name}: root mean square of found - true",
            np.sqrt(((found - true)[region] ** 2).mean()),
        )
        yield f"{name}: share with |t| above {HIGH_T:g}", (np.abs(t[region]) > HIGH_T).mean()
    inside = regions(population, mask)["ball"]
    if population.ball.factor != 1:
        yield "ball: ratio", found[inside].mean() / true[inside].mean()
        yield "ball: mean t", t[inside].mean()


def difference(population: GrowingPopulation, maps: Iterator[np.ndarray]) -> np.ndarray:
    """Mean of the second group less that of the first."""
    total = np.zeros(population.grid.shape)
    for grown, values in zip(population.subjects.values(), maps, strict=True):
        total += values if grown else -values.astype(np.float64)
    return total / population.each


def regions(population: GrowingPopulation, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Parts of the mask, on the template's grid."""
    ball = population.ball
    radius = ball.radius(population.phantom_points.reshape(3, -1)).reshape(mask.shape)
    return {
        "ball": mask & (radius < ball.radius_mm),
        "shell": mask & (radius >= ball.radius_mm) & (radius < ball.end_mm),
        "outside": mask & (radius > ball.end_mm + MARGIN_MM),
    }


def ball_volumes(population: GrowingPopulation, results: Path) -> Iterator[Row]:
    """Mean over each group, cm3."""
    table = pl.read_csv(results / "volumes.csv").filter(structure=BALL_LABEL)
    true = 4 / 3 * np.pi * population.ball.radius_mm**3 / 1000
    for group, factor in (("a", 1.0), ("b", population.ball.factor)):
        of_group = table.filter(pl.col("subject").str.starts_with(group))["volume_mm3"]
        yield f"volume of the ball in {group}, cm3: found", float(of_group.to_numpy().mean()) / 1000
        yield f"volume of the ball in {group}, cm3: true", true * factor


if __name__ == "__main__":
    main()
