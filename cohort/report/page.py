"""The report of a run: one HTML page that needs nothing but itself."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from cohort.data.places import Where
from cohort.data.storage import sweep, write_atomic
from cohort.data.store import CohortStore
from cohort.engine.events import pairs_per_hour
from cohort.engine.results import read_rows, read_tables
from cohort.engine.spec import RunSpec
from cohort.engine.summary import SUMMARISED, summarise
from cohort.errors import CohortError
from cohort.report import content, layout, outliers, tables
from cohort.report.aggregate import run_tables
from cohort.report.effort import spent_plot, throughput_plot
from cohort.report.figures import MOST_STRUCTURES, structure_plot
from cohort.report.overview import matrix_plot, pair_matrix
from cohort.report.pictures import Picture, Progress, pictures_of
from cohort.report.publish import write_tables
from cohort.report.run_values import RunValues
from cohort.report.structure_scores import StructureScores, dice_of_pairs, structure_table
from triton_reg import __version__

WORST_PAIRS = 10
# what the page is made of; a row has many times as much
_SHOWN = (
    *(SUMMARISED + content.COLUMNS + outliers.COLUMNS),
    *("worker", "finished_at"),
)


@dataclass(frozen=True)
class Cohort:
    """What the page tells of the store; `missing` says why it cannot be read."""

    names: dict[int, str] = field(default_factory=dict)
    quarantined: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: str = ""

    @classmethod
    def of(cls, store_path: Where) -> "Cohort":
        """What the store at `store_path` says, or why it says nothing."""
        try:
            store = CohortStore.open(store_path)
            return cls(_structure_names(store.settings), store.quarantined)
        except CohortError as error:
            return cls(missing=error.message)


def write_report(
    run_dir: Path,
    store_path: Where | None = None,
    *,
    trust_code: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write ``RUN/report/index.html`` from the rows that are committed; returns its path.

    The tables of the run are written below ``RUN/report/tables``, as CSV, Parquet and Markdown.

    `store_path` is where the store is now, if it is not where the run left it. Pictures of a run
    whose settings name code need `trust_code`, which allows to run that.
    """
    run_dir = Path(run_dir)
    spec, cohort = _facts(run_dir, store_path)
    digest = _inputs_digest(run_dir, cohort, trust_code)
    told = run_tables(RunValues.of_run(run_dir), cohort.names)
    write_tables(tables_folder(run_dir), told)  # first, as the page vouches for them
    rows = read_rows(run_dir, _SHOWN)
    worst = tables.worst_pairs(rows, WORST_PAIRS).select("fixed", "moving").rows()
    dice = dice_of_pairs(partial(read_tables, run_dir), worst)
    scores = StructureScores(structure_table(told["by_structure"]), dice)
    pictures = {}
    if not cohort.missing:
        pictures = pictures_of(run_dir, store_path, worst, trust_code, progress)
    rate, work = pairs_per_hour(run_dir), (throughput_plot(run_dir), spent_plot(run_dir))
    name = run_dir.resolve().name
    page = render_page(name, spec, rows, scores, cohort, pictures, rate, digest, work)
    path = _page_path(run_dir)
    sweep(path.parent)  # also makes it
    write_atomic(path, page.encode())
    return path


def is_current(run_dir: Path, store_path: Where | None = None, *, trust_code: bool = False) -> bool:
    """Whether page and tables were made by this version from what run and store hold now.

    A page that was made with `trust_code` is as good without.
    """
    run_dir = Path(run_dir)
    _, cohort = _facts(run_dir, store_path)
    try:
        with _page_path(run_dir).open(encoding="utf-8") as page:
            head = page.read(4096)
    except FileNotFoundError:
        return False
    if not (tables_folder(run_dir) / "by_run.csv").is_file():
        return False
    digests = {_inputs_digest(run_dir, cohort, trusted) for trusted in (trust_code, True)}
    return any(f'content="{digest}"' in head for digest in digests)


def render_page(
    name: str,
    spec: RunSpec,
    rows: pl.DataFrame,
    scores: StructureScores,
    cohort: Cohort,
    pictures: dict[tuple[str, str], Picture],
    rate: float | None = None,
    digest: str = "",
    work: tuple[str, str] = ("", ""),
) -> str:
    """The page of a run called `name`, as HTML.

    `scores` has those of the worst pairs; `pictures` by (fixed, moving); `rate` in pairs per
    hour; `digest` of all that the page shows; `work` pictures of the throughput over time, and of
    where the time went.
    """
    summary = summarise(rows)
    worst_rows = tables.worst_pairs(rows, WORST_PAIRS).to_dicts()
    worst = [_worst(row, scores, cohort, pictures) for row in worst_rows]
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            name=name,
            digest=digest,
            facts=content.run_facts(spec, rows, summary, len(cohort.quarantined)),
            planned=spec.n_pairs,
            left=spec.n_pairs - summary.pairs,
            summary=summary,
            headline=content.headline(summary, rate),
            worst=worst,
            is_outlined=any(one["picture"].has_outlines for one in worst),
            work=work[0],
            spent=work[1],
            quarantine=layout.quarantine(cohort.quarantined),
            cohort=cohort,
            **_of_rows(rows, scores.table),
        )
    )


def _of_rows(rows: pl.DataFrame, by_structure: pl.DataFrame) -> dict[str, Any]:
    """The sections that rows and the table of structures alone decide."""
    matrix = pair_matrix(rows)
    title = content.title_of(tables.main_measure(rows))
    return {
        "distributions": content.distributions(rows),
        "structure_plot": structure_plot(by_structure) if len(by_structure) else "",
        "plotted": min(len(by_structure), MOST_STRUCTURES),
        "structures": layout.structures(by_structure),
        "subjects": layout.subjects(rows),
        "worst_by": title,
        "matrix": matrix_plot(*matrix, title) if matrix else "",
        "outliers": layout.outliers(outliers.outliers(rows)),
        "failures": layout.failures(rows),
    }


def _worst(
    row: dict[str, Any],
    scores: StructureScores,
    cohort: Cohort,
    pictures: dict[tuple[str, str], Picture],
) -> dict[str, Any]:
    """What the page shows of one of the worst pairs."""
    pair = row["fixed"], row["moving"]
    return {
        "fixed": row["fixed"],
        "moving": row["moving"],
        "numbers": content.numbers_of(row),
        "lowest": content.lowest_structures(scores.pairs.get(pair, {}), cohort.names),
        "picture": pictures.get(pair, Picture()),
    }


def _facts(run_dir: Path, store_path: Where | None) -> tuple[RunSpec, Cohort]:
    spec = RunSpec.load(run_dir)
    return spec, Cohort.of(store_path or spec.store)


def _structure_names(settings: dict[str, Any]) -> dict[int, str]:
    """Label value -> name; what is no label value is left out."""
    entries = settings.get("structures") or {}
    return {int(label): str(name) for label, name in entries.items() if str(label).isdecimal()}


def tables_folder(run_dir: Path) -> Path:
    """Where the tables of a run lie."""
    return run_dir / "report" / "tables"


def _page_path(run_dir: Path) -> Path:
    return run_dir / "report" / "index.html"


def _inputs_digest(run_dir: Path, cohort: Cohort, trust_code: bool) -> str:
    parts = sorted((path.name, path.stat().st_size) for path in run_dir.glob("*/*.parquet"))
    inputs = [__version__, parts, asdict(cohort), trust_code]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


@cache
def environment() -> Environment:
    """The templates of this package, which escape whatever they are given."""
    made = Environment(
        loader=PackageLoader("cohort.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["zip"] = zip
    made.filters["number"] = content.number
    return made
