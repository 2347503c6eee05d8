"""``population``: the subjects of a run as a population."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from cohort import terminal
from cohort.engine.opening import Opening
from cohort.engine.spec import RunSpec
from cohort.errors import UsageError
from cohort.options import Json, Run, StoreMoved, TrustCode, Workers, local_path, worker_count
from cohort.report.population import write_population_page
from cohort.studies.population import Population, PopulationSettings, analyse
from cohort.studies.population_distances import Kind
from cohort.studies.population_files import template_commands, write_population


def population(
    run_dir: Run,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=local_path, help="Folder for tables and the page. [default: RUN/population]"
        ),
    ] = None,
    distance: Annotated[
        str, typer.Option(help="energy (length of the displacement), ncc or dice.")
    ] = "energy",
    clusters: Annotated[
        str, typer.Option(help="How many groups, or auto for those that separate best.")
    ] = "auto",
    triangles: Annotated[
        int,
        typer.Option(
            min=0, help="Triangles that start at each subject; their pairs are registered again."
        ),
    ] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the triangles.")] = 0,
    store: StoreMoved = None,
    workers: Workers = None,
    trust_code: TrustCode = False,
    json: Json = False,
) -> None:
    """Analyse the subjects of a run of all pairs as a population.

    Distances between subjects, the one in the middle, groups and a picture in the plane; which
    subjects stand apart and why, without looking at labels; whether displacements undo each other
    and close into triangles. Stop it at any time: the same command goes on where it was.
    """
    folder = run_dir / "population" if out is None else out
    settings = PopulationSettings(
        distance=_distance(distance),
        clusters=_clusters(clusters),
        triangles=triangles,
        seed=seed,
    )
    opening = _opening(run_dir, store, workers, trust_code)
    with terminal.progress_bar("triangles", quiet=json) as update:

        def progress(done: int, all_: int) -> None:
            update(done, all_, 0)

        found = analyse(opening, folder, settings, opening.workers, progress)
    write_population(found, folder)
    commands = template_commands(found.facts, folder)
    page = write_population_page(folder, commands)
    if json:
        terminal.say_json({**found.facts, "page": page, "commands": commands})
    else:
        _say(page, found, commands)


def _opening(run_dir: Path, store: str | None, workers: int | None, trust_code: bool) -> Opening:
    spec = RunSpec.load(run_dir)
    # on a GPU all processes would share the first card
    count = 1 if spec.device == "cuda" else max(worker_count(workers), 1)
    where = store or spec.store
    return Opening(run_dir=run_dir, store=where, workers=count, trust_code=trust_code)


def _distance(text: str) -> Kind:
    for kind in get_args(Kind):
        if text == kind:
            return kind
    raise UsageError("E_POPULATION", f"--distance is {text!r}; need {', '.join(get_args(Kind))}")


def _clusters(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError("E_POPULATION", f"--clusters is {text!r}; need a number or auto")
    return int(text)


def _say(page: Path, found: Population, commands: list[str]) -> None:
    facts = found.facts
    rows: dict[str, Any] = {
        "subjects": f"{facts['subjects']:,}",
        "distance": f"{facts['distance']}, {facts['mean_distance']:.3g} on average",
        "medoid": f"{facts['medoid']}, {facts['medoid_distance']:.3g} on average",
        "two axes hold": f"{facts['variance_share']:.0%} of the variance",
    }
    sizes = ", ".join(str(len(one["subjects"])) for one in facts["clusters"])
    silhouette = facts["silhouette"]
    separated = "" if silhouette is None else f", mean silhouette {silhouette:.2f}"
    rows["clusters"] = f"{len(facts['clusters'])} of {sizes}{separated}"
    if facts["ice_mm"] is not None:
        rows["there and back"] = f"{facts['ice_mm']:.3f} mm, {facts['ice_pairs']:,} pairs"
    if facts["triangle_mm"] is not None:
        rows["triangle error"] = (
            f"{facts['triangle_mm']:.3f} mm, 95 % {facts['triangle_p95_mm']:.3f} mm,"
            f" {facts['triangles']:,} triangles"
        )
    terminal.say_table(str(page), rows)
    apart = found.subjects.filter(found.subjects["subject"].is_in(facts["apart"]))
    if len(apart):
        terminal.say_table("stand apart", dict(apart.select("subject", "reason").iter_rows()))
    if commands:
        terminal.say_list("templates", commands)
