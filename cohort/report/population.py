"""The page of a population, made of the files that its analysis left."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cohort.errors import StorageError
from cohort.report.layout import Column, Table, laid_out
from cohort.report.page import environment
from cohort.report.population_figures import Marked, distance_plot, plane_plot
from cohort.report.publish import write_file

_MOST_IN_MATRIX = 1000
_WIDEST = 10
_APART = (
    Column("subject", "Subject"),
    Column("outlier_score", "Score", 1),
    Column("reason", "Why"),
)
_SUBJECTS = (
    Column("subject", "Subject"),
    Column("outlier_score", "Score", 1),
    Column("cluster", "Cluster", 0),
    Column("mean_distance", "Distance", 2),
    Column("nearest", "Nearest"),
    Column("ice_mm", "Back, mm", 2),
    Column("triangle_mm", "Triangle, mm", 2),
    Column("reason", "Stands apart most in"),
)
_TRIANGLES = (
    Column("a", "From"),
    Column("b", "By way of"),
    Column("c", "To"),
    Column("mean_mm", "Mean, mm", 3),
    Column("p95_mm", "95 %, mm", 3),
)
_CLUSTERS = (
    Column("cluster", "Cluster"),
    Column("count", "Subjects", 0),
    Column("medoid", "Medoid"),
    Column("members", "Who"),
)


def write_population_page(out: Path, commands: list[str]) -> Path:
    """Write ``OUT/index.html`` of an analysis; returns its path.

    Args:
        out: its folder.
        commands: that build the templates of its groups.

    Raises:
        StorageError: ``E_STORAGE`` if a file cannot be read or written.
    """
    try:
        facts = json.loads((out / "population.json").read_text())
        subjects = _table(out / "subjects.csv", "subject", "nearest", "reason")
        pairs = pl.read_parquet(io.BytesIO((out / "pairs.parquet").read_bytes()))
        triangles = _table(out / "triangles.csv", "a", "b", "c")
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise StorageError("E_STORAGE", f"{out} cannot be read: {error}") from error
    page = environment().get_template("population.html.jinja").render(
        name=out.resolve().parent.name if out.name == "population" else out.resolve().name,
        headline=_headline(facts),
        notices=_notices(facts),
        unit=facts["distance"],
        planes=list(_planes(subjects, facts)),
        matrix=_matrix(subjects, pairs, facts),
        apart=laid_out(subjects.filter(pl.col("subject").is_in(facts["apart"])), _APART,
                       "Subjects that stand apart"),
        judged=", ".join(facts["judged_by"]),
        is_few=facts["few"],
        subjects=laid_out(subjects, _SUBJECTS, "All subjects, the most conspicuous first"),
        clusters=_clusters(facts),
        silhouette=facts["silhouette"],
        commands=commands,
        triangles=_worst(triangles),
        ice_from=facts["ice_from"],
        facts=_facts(facts),
    )  # fmt: skip
    return write_file(out / "index.html", page.encode())


def _table(path: Path, *texts: str) -> pl.DataFrame:
    """A table whose ``texts`` stay texts, also where all subjects are called by numbers."""
    overrides = dict.fromkeys(texts, pl.String)
    return pl.read_csv(path, schema_overrides=overrides, infer_schema_length=None)


def _planes(subjects: pl.DataFrame, facts: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Who is shown, what share of the variance the axes hold, and the picture; everyone last."""
    medoids = [one["medoid"] for one in facts["clusters"] if len(one["subjects"]) > 1]
    marked, unit = Marked(facts["medoid"], medoids, facts["apart"]), facts["distance"]
    within = subjects.with_columns(x="x_within", y="y_within").drop_nulls(["x", "y"])
    is_split = bool(marked.apart) and len(within) > 2
    if is_split:
        share = f"{facts['variance_share_within']:.0%}"
        yield (
            "Those who do not stand apart",
            share,
            plane_plot(within.to_dicts(), marked._replace(apart=()), unit),
        )
    picture = plane_plot(subjects.to_dicts(), marked, unit, all_named=not is_split)
    yield "Everyone", f"{facts['variance_share']:.0%}", picture


def _matrix(subjects: pl.DataFrame, pairs: pl.DataFrame, facts: dict[str, Any]) -> str:
    if len(subjects) > _MOST_IN_MATRIX:
        return ""
    names = subjects["subject"].to_list()
    places = {name: place for place, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)))
    for a, b, distance in pairs.select("a", "b", "distance").iter_rows():
        matrix[places[a], places[b]] = matrix[places[b], places[a]] = distance
    groups = subjects["cluster"].to_list()
    return distance_plot(matrix, names, groups, facts["apart"], facts["distance"])


def _worst(triangles: pl.DataFrame) -> Table:
    widest = triangles.sort("mean_mm", descending=True, nulls_last=True).head(_WIDEST)
    return laid_out(widest, _TRIANGLES, "The triangles that close worst")


def _clusters(facts: dict[str, Any]) -> Table:
    rows = [
        (str(one["cluster"]), len(one["subjects"]), one["medoid"], ", ".join(one["subjects"]))
        for one in facts["clusters"]
    ]
    return Table("Clusters", _CLUSTERS, rows)


def _headline(facts: dict[str, Any]) -> list[tuple[str, str]]:
    entries = [
        ("Subjects", f"{facts['subjects']:,}"),
        ("Stand apart", f"{len(facts['apart']):,}"),
        ("Clusters", f"{len(facts['clusters'])}"),
        ("Medoid", facts["medoid"]),
        ("Mean distance", f"{facts['mean_distance']:.3g}"),
    ]
    for title, value in (("There and back", "ice_mm"), ("Triangle error", "triangle_mm")):
        if facts[value] is not None:
            entries.append((title, f"{facts[value]:.2f} mm"))
    return entries


def _notices(facts: dict[str, Any]) -> list[str]:
    found = []
    if facts["registered"] < facts["planned"]:
        left = facts["planned"] - facts["registered"]
        found.append(f"{left:,} of {facts['planned']:,} planned pairs are not registered.")
    if facts["filled"]:
        found.append(
            f"{facts['filled']:,} distances are not known; each is the mean of its two subjects'"
            " median distances."
        )
    if facts["left_out"]:
        names = ", ".join(facts["left_out"])
        found.append(f"Without a registered pair, and left out: {names}.")
    return found


def _facts(facts: dict[str, Any]) -> list[tuple[str, str]]:
    told = [
        ("Store", facts["store"]),
        ("Method", f"{facts['method']}, {facts['fingerprint']}"),
        ("Pairs", f"{facts['registered']:,} registered ({facts['pairs']})"),
        ("Distance", facts["distance"]),
        ("Triangles", f"{facts['triangles']:,}, seed {facts['seed']}"),
        ("There and back", f"{facts['ice_pairs']:,} pairs, from {facts['ice_from']}"),
    ]
    tried = facts["silhouettes_tried"]
    if tried:
        said = ", ".join(f"{count}: {value:.2f}" for count, value in tried.items())
        told.append(("Silhouettes", said))
    return told
