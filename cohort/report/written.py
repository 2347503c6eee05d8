"""Where a comparison of runs is written: a page and its tables, in a folder of its own."""

import re
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup, escape

from cohort.data.places import Where
from cohort.engine.spec import RunSpec
from cohort.report.compare import RunComparison, compare_runs
from cohort.report.compare_text import (
    comparison_markdown,
    notes,
    runs_table,
    structures_table,
    structures_title,
)
from cohort.report.layout import Column, Table
from cohort.report.page import Cohort, environment
from cohort.report.publish import write_file, write_tables

_BOLD = re.compile(r"^\*\*(-?[\d.]+)\*\*")  # see compare_text: a mean begins its cell
_BETWEEN_PARTS = re.compile(r" (?=\[)|(?<=[\d\]];) ")  # of a cell: mean, interval, test


def write_comparison(
    run_dirs: Sequence[Path], folder: Path, store_path: Where | None = None
) -> RunComparison:
    """Compare runs with the first, and write ``compare.md``, ``index.html`` and both tables.

    The tables are ``measures`` and ``structures``, as CSV, Parquet and Markdown, with every number
    unrounded.

    Raises:
        UsageError, StorageError: as :func:`compare_runs` does, or if a file cannot be written.
    """
    store = store_path or RunSpec.load(run_dirs[0]).store
    comparison = compare_runs(run_dirs, Cohort.of(store).names)
    tables = {"measures": comparison.measures, "structures": comparison.structures}
    write_tables(folder, tables)
    write_file(folder / "compare.md", comparison_markdown(comparison).encode())
    write_file(folder / "index.html", _page(comparison).encode())
    return comparison


def _page(comparison: RunComparison) -> str:
    sheets = [
        _sheet("Runs", *runs_table(comparison), texts=2),
        *(
            _sheet(structures_title(measure), *structures_table(comparison, measure), texts=1)
            for measure in comparison.structures["measure"].unique(maintain_order=True)
        ),
    ]
    template = environment().get_template("compare.html.jinja")
    runs = [run.name for run in comparison.runs]
    return template.render(runs=runs, sheets=sheets, notes=notes(comparison))


def _sheet(caption: str, titles: list[str], rows: list[list[str]], *, texts: int) -> Table:
    """A table whose first columns, so many, are texts, and the others numbers."""
    columns = tuple(Column(title, title) for title in titles)
    return Table(caption, columns, [(*row[:texts], *map(_numbers, row[texts:])) for row in rows])


def _numbers(cell: str) -> Markup:
    """A cell of Markdown as HTML, with lines broken between its parts and not within them."""
    bold = _BOLD.sub(r"<strong>\1</strong>", str(escape(cell)))
    parts = _BETWEEN_PARTS.split(bold)
    return Markup(" ".join(f'<span class="unbroken">{part}</span>' for part in parts))
