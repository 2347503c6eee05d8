"""The page of a template: what it looks like, how its passes went, and who fits it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cohort.data.nifti import read_nifti
from cohort.data.store import CohortStore
from cohort.errors import StorageError
from cohort.report.layout import Column, laid_out
from cohort.report.page import environment
from cohort.report.publish import write_file
from cohort.report.template_figures import fit_plot, pass_curves, template_planes

MOST_MISFIT = 3.5  # robust standard deviations
_PASSES = (
    Column("pass", "Pass", 0),
    Column("moved_voxels", "Moved, voxels", 3),
    Column("drift_voxels", "Drift, voxels", 3),
    Column("drift_mm", "Drift, mm", 3),
    Column("left_voxels", "Left of it, voxels", 3),
    Column("sharpness", "Sharpness, per mm²", 5),
    Column("ncc_before", "NCC before", 4),
    Column("ncc", "NCC", 4),
    Column("sdlogj", "SD ln det J", 3),
    Column("failed", "Failed", 0),
)
_SUBJECTS = (
    Column("subject", "Subject"),
    Column("misfit", "Misfit", 1),
    Column("ncc", "NCC", 4),
    Column("dice", "Dice with the majority", 3),
    Column("sdlogj", "SD ln det J", 3),
    Column("displacement_mean_mm", "Displacement, mm", 2),
    Column("weight", "Weight", 2),
    Column("message", "Failed because"),
)


def write_template_page(out: Path) -> Path:
    """Write ``OUT/index.html`` of a template; returns its path.

    Raises:
        StorageError: ``E_STORAGE`` if a file of the template cannot be read, or the page written.
    """
    try:
        document = json.loads((out / "template.json").read_bytes())
        subjects = pl.read_csv(
            out / "subjects.csv", schema_overrides={"subject": pl.String, "message": pl.String}
        )
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise StorageError("E_STORAGE", f"{out} cannot be read: {error}") from error
    good = subjects.filter(pl.col("status") == "ok")
    passes = document["passes"]
    shown = [name for name in ("dice", "message") if subjects[name].null_count() == len(subjects)]
    columns = tuple(column for column in _SUBJECTS if column.name not in shown)
    page = environment().get_template("template.html.jinja").render(
        name=document["name"],
        headline=_headline(document, good),
        picture=_picture(out, document),
        history=_history(out, passes),
        curves=pass_curves(passes),
        passes=laid_out(pl.DataFrame(passes, infer_schema_length=None), _PASSES, "The passes"),
        fit=fit_plot(good["misfit"].fill_null(0).to_list(), good["ncc"].to_list(), MOST_MISFIT),
        most=MOST_MISFIT,
        far=good.filter(pl.col("misfit") > MOST_MISFIT)["subject"].to_list(),
        failed=document["subjects"] - document["registered"],
        subjects=laid_out(subjects.sort("misfit", descending=True, nulls_last=True), columns,
                          "Every subject, the worst fit first"),
        facts=_facts(out, document),
    )  # fmt: skip
    return write_file(out / "index.html", page.encode())


def _headline(document: Mapping[str, Any], good: pl.DataFrame) -> list[tuple[str, str]]:
    last = document["passes"][-1]
    found = [
        ("Subjects", f"{document['registered']} of {document['subjects']}"),
        ("Passes", str(len(document["passes"]))),
        ("Moved by the last pass", f"{last['moved_voxels']:.3f} voxels"),
        ("Drift after removal", f"{last['left_voxels']:.3f} voxels"),
        ("Mean NCC", f"{last['ncc']:.3f}"),
    ]
    overlap = good["dice"].mean()
    if overlap is not None:
        found.append(("Dice with the majority", f"{overlap:.3f}"))
    return found


def _picture(out: Path, document: Mapping[str, Any]) -> str:
    """The published template, and once more with its labels if it has some."""
    image = out / document["image"]
    template = read_nifti(image)
    shown = {"template": template.data}
    path = image.with_name(f"{image.name.rpartition('_')[0]}_dseg.nii.gz")
    labels = None
    if path.exists():
        labels = read_nifti(path, content="labels").data
        shown["template with its labels"] = template.data.copy()
    return template_planes(shown, template.grid.spacing_mm, labels)


def _history(out: Path, passes: Sequence[Mapping[str, Any]]) -> str:
    """What the first and the last pass registered to."""
    runs = [out / "pass-1", out / "run"] if len(passes) > 1 else [out / "run"]
    shown: dict[str, np.ndarray] = {}
    spacing = (1.0, 1.0, 1.0)
    for number, run_dir in zip((1, len(passes)), runs, strict=False):
        store = CohortStore.open(run_dir / "atlas.zarr")
        shown[f"what pass {number} registered to"] = store.read(store.subject_ids[0]).volume
        spacing = store.grid.spacing_mm
    return template_planes(shown, spacing)


def _facts(out: Path, document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was chosen, and where things lie."""
    settings = json.loads((out / "atlas.json").read_bytes())
    told = ", ".join(f"{key}={value}" for key, value in settings["method"]["settings"].items())
    shape = " x ".join(map(str, document["grid"]["shape"]))
    return [
        ("Image", document["image"]),
        ("Grid", f"{shape} voxels"),
        ("Method", f"{settings['method']['name']}: {told}"),
        ("Start", settings["start"]),
        ("Mean", settings["center"]),
        ("Intensities", settings["normalise"]),
        ("Symmetric", "yes" if settings["symmetric"] else "no"),
        ("Sharpening", f"{settings['sharpen']:g}"),
        ("Transforms", ", ".join(document["runs"])),
        ("Version", document["version"]),
    ]
