"""A population from the rows of its pairs: distances, centre, groups, outliers, consistency."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cohort.data.places import place_of
from cohort.engine.opening import Opening
from cohort.engine.results import read_rows
from cohort.engine.spec import RunSpec
from cohort.errors import UsageError
from cohort.studies.population_distances import (
    COLUMNS,
    Distances,
    Kind,
    distances_of,
    symmetric_mean,
)
from cohort.studies.population_folder import BLOCKS, check_folder
from cohort.studies.population_outliers import JUDGED, Outliers, rank_outliers
from cohort.studies.population_structure import (
    Clusters,
    Embedding,
    clusters,
    embedding,
    mean_distances,
)
from cohort.studies.population_triangles import Progress, TriangleSample, measure_triangles

# of a row, what distances and outliers are judged by; scores of structures are many times as much
_READ = ("status", *COLUMNS, *(column for column, _, _ in JUDGED))


@dataclass(frozen=True, kw_only=True)
class PopulationSettings:
    """What is asked of a population.

    Attributes:
        distance: see :func:`cohort.studies.population_distances.distances_of`.
        clusters: how many groups; None for the number that separates best.
        triangles: that start at each subject; 0 registers nothing.
        seed: of the triangles.
    """

    distance: Kind = "energy"
    clusters: int | None = None
    triangles: int = 4
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Population:
    """What was found.

    Attributes:
        subjects: a row a subject, the most conspicuous first.
        pairs: a row an unordered pair: ``a``, ``b``, ``distance`` (filled in where not ``known``),
            ``ice_mm``, ``triangle_mm`` and of how many ``triangles`` it is a side.
        triangles: a row a triangle, see
            :func:`cohort.studies.population_triangles.measure_triangles`.
        facts: all else, ready for JSON.
    """

    subjects: pl.DataFrame
    pairs: pl.DataFrame
    triangles: pl.DataFrame
    facts: dict[str, Any]


def analyse(
    opening: Opening,
    out: Path,
    settings: PopulationSettings,
    workers: int = 1,
    progress: Progress | None = None,
) -> Population:
    """Analyse the population of a run.

    Only triangles register pairs again, with the bits of the run; they are kept below ``out``, so
    that the same call goes on where an earlier one was stopped. Nothing else is written.

    Args:
        opening: of the run.
        out: the folder of the analysis.
        settings: see :class:`PopulationSettings`.
        workers: processes for the triangles.
        progress: called with the number of triangles that are done, and of all.

    Raises:
        UsageError: ``E_POPULATION`` if the run does not hold a population, or does not tell this
            distance, or there are fewer subjects than groups, or the folder holds something else.
        SubjectError, StorageError, SchedulerError: as
            :func:`cohort.studies.population_triangles.measure_triangles` does.
    """
    if settings.triangles < 0:
        raise UsageError("E_POPULATION", f"--triangles {settings.triangles}: need 0 or more")
    spec = RunSpec.load(opening.run_dir)
    check_folder(out)
    rows = read_rows(opening.run_dir, _READ)
    distances = distances_of(rows, spec, settings.distance)
    groups = clusters(distances.matrix, settings.clusters)
    good = rows.filter(pl.col("status") == "ok")
    in_rows = good["ice_mm"].null_count() < len(good)
    chosen = {"each": settings.triangles, "seed": settings.seed, "with_inverse": not in_rows}
    sample = TriangleSample(names=distances.names, **chosen)
    triangles = measure_triangles(opening, sample, out / BLOCKS, workers, progress)
    pairs = _pairs(distances, good if in_rows else _as_rows(triangles), triangles)
    outliers = rank_outliers(good, distances.names)
    planes = _planes(distances, outliers)
    subjects = _subjects(distances, groups, planes, outliers, pairs, triangles)
    facts = _facts(spec, rows, distances, groups, outliers)
    facts |= {
        "store": place_of(opening.store).address,  # where it is now
        "variance_share": planes[0].share,
        "variance_share_within": planes[1].share,
        "seed": settings.seed,
        "triangles": len(triangles),
        "triangle_mm": triangles["mean_mm"].mean(),
        "triangle_p95_mm": triangles["p95_mm"].mean(),
        "ice_mm": pairs["ice_mm"].mean(),
        "ice_from": "rows" if in_rows else "sample",
        "ice_pairs": pairs["ice_mm"].count(),
    }
    return Population(subjects, pairs, triangles, facts)


def _planes(distances: Distances, outliers: Outliers) -> tuple[Embedding, Embedding]:
    """Of everyone, and of those who do not stand apart, NaN for the others: a few who are far from
    everyone else would take the axes."""
    inside = ~np.isin(distances.names, outliers.apart)
    own = embedding(distances.matrix[np.ix_(inside, inside)])
    xy = np.full((len(inside), 2), np.nan)
    xy[inside] = own.xy
    return embedding(distances.matrix), Embedding(xy, own.share)


def _as_rows(triangles: pl.DataFrame) -> pl.DataFrame:
    """The first sides of triangles as rows of pairs."""
    named = triangles.select(pl.col("a").alias("fixed"), pl.col("b").alias("moving"), "ice_mm")
    return named.group_by("fixed", "moving").agg(pl.col("ice_mm").first())


def _pairs(distances: Distances, rows: pl.DataFrame, triangles: pl.DataFrame) -> pl.DataFrame:
    one, other = np.triu_indices(len(distances.names), 1)
    names = pl.Series(distances.names)
    ice = symmetric_mean(rows, "ice_mm", distances.names)[one, other]
    pairs = pl.DataFrame({
        "a": names[one],
        "b": names[other],
        "distance": distances.matrix[one, other],
        "known": distances.known[one, other],
        "ice_mm": pl.Series(ice).fill_nan(None),
    })  # fmt: skip
    sides = pl.concat([
        triangles.select(
            pl.min_horizontal(*side).alias("a"), pl.max_horizontal(*side).alias("b"), "mean_mm"
        )
        for side in (("a", "b"), ("b", "c"), ("a", "c"))
    ])  # fmt: skip
    means = sides.group_by("a", "b").agg(
        pl.col("mean_mm").mean().alias("triangle_mm"),
        pl.col("mean_mm").count().cast(pl.Int64).alias("triangles"),
    )
    joined = pairs.join(means, on=["a", "b"], how="left", maintain_order="left")
    return joined.with_columns(pl.col("triangles").fill_null(0))


def _subjects(
    distances: Distances,
    groups: Clusters,
    planes: tuple[Embedding, Embedding],
    outliers: Outliers,
    pairs: pl.DataFrame,
    triangles: pl.DataFrame,
) -> pl.DataFrame:
    names = pl.Series(distances.names)
    apart = distances.matrix + np.diag(np.full(len(names), np.inf))
    table = pl.DataFrame({
        "subject": names,
        "mean_distance": mean_distances(distances.matrix),
        "nearest": names[apart.argmin(1)],
        "nearest_distance": apart.min(1),
        "cluster": groups.of,
        "x": planes[0].xy[:, 0],
        "y": planes[0].xy[:, 1],
        "x_within": pl.Series(planes[1].xy[:, 0]).fill_nan(None),
        "y_within": pl.Series(planes[1].xy[:, 1]).fill_nan(None),
        "outlier_score": outliers.scores,
        "reason": outliers.reasons,
    })  # fmt: skip
    ice = _by_member(pairs, ("a", "b"), "ice_mm").rename({"mean": "ice_mm"})
    closing = _by_member(triangles, ("a", "b", "c"), "mean_mm").rename({"mean": "triangle_mm"})
    widest = _by_member(triangles, ("a", "b", "c"), "p95_mm").rename({"mean": "triangle_p95_mm"})
    for found in (ice, closing, widest):
        table = table.join(found, on="subject", how="left", maintain_order="left")
    return table.sort("outlier_score", "subject", descending=[True, False])


def _by_member(rows: pl.DataFrame, members: tuple[str, ...], value: str) -> pl.DataFrame:
    """Mean of a measure over all rows that name a subject: ``subject``, ``mean``."""
    named = [rows.select(pl.col(one).alias("subject"), value) for one in members]
    together = pl.concat(named).drop_nulls().group_by("subject", maintain_order=True)
    return together.agg(pl.col(value).mean().alias("mean"))


def _facts(
    spec: RunSpec,
    rows: pl.DataFrame,
    distances: Distances,
    groups: Clusters,
    outliers: Outliers,
) -> dict[str, Any]:
    means = mean_distances(distances.matrix)
    return {
        "method": spec.method.name,
        "fingerprint": spec.fingerprint,
        "plan_digest": spec.plan_digest,
        "pairs": spec.pairs,
        "planned": spec.n_pairs,
        "registered": int((rows["status"] == "ok").sum()),
        "subjects": len(distances.names),
        "left_out": list(distances.left_out),
        "distance": distances.said,
        "filled": distances.filled,
        "medoid": distances.names[int(means.argmin())],
        "medoid_distance": float(means.min()),
        "mean_distance": float(means.mean()),
        "clusters": list(_cluster_facts(distances, groups)),
        "silhouette": groups.silhouette,
        "silhouettes_tried": {str(number): value for number, value in groups.tried.items()},
        "judged_by": list(outliers.measures),
        "few": outliers.few,
        "apart": outliers.apart,
    }


def _cluster_facts(distances: Distances, groups: Clusters) -> Iterator[dict[str, Any]]:
    for number in np.unique(groups.of):
        members = np.flatnonzero(groups.of == number)
        within = distances.matrix[np.ix_(members, members)]
        yield {
            "cluster": int(number),
            "subjects": [distances.names[one] for one in members],
            "medoid": distances.names[members[within.sum(1).argmin()]],
        }
