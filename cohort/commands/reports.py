"""The command that writes what became of a run, or of several: ``report``."""

from pathlib import Path
from typing import Annotated

import typer

from cohort import terminal
from cohort.commands.run_text import apart_rows, report_rows
from cohort.engine.events import pairs_per_hour
from cohort.engine.results import read_rows
from cohort.engine.summary import SUMMARISED, summarise
from cohort.errors import UsageError
from cohort.options import Json, StoreMoved, TrustCode, local_path
from cohort.report.compare_text import notes, runs_table
from cohort.report.outliers import COLUMNS, outliers
from cohort.report.page import is_current, tables_folder, write_report
from cohort.report.written import write_comparison


def report(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", parser=local_path, help="The folder of the run, or of several."
        ),
    ],
    store: StoreMoved = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a comparison. [default: report/compare in the first run]"),
    ] = None,
    trust_code: TrustCode = False,
    json: Json = False,
) -> None:
    """Write the report of a run, one page that opens without a network, and print its numbers.

    Several runs are compared with the first, on the pairs that all of them registered.
    """
    if len(run_dirs) > 1:
        _report_comparison(run_dirs, store, out or run_dirs[0] / "report" / "compare", json)
    elif out is not None:
        raise UsageError("E_COMPARE", "--out is the folder of a comparison: name two runs or more")
    else:
        _report_one(run_dirs[0], store, trust_code, json)


def _report_one(run_dir: Path, store: str | None, trust_code: bool, json: bool) -> None:
    page, tables = run_dir / "report" / "index.html", tables_folder(run_dir)
    if not is_current(run_dir, store, trust_code=trust_code):
        with terminal.progress_bar("reporting", quiet=json) as update:

            def progress(done: int, all_: int) -> None:
                update(done, all_, 0)

            page = write_report(run_dir, store, trust_code=trust_code, progress=progress)
    rows, rate = read_rows(run_dir, (*SUMMARISED, *COLUMNS)), pairs_per_hour(run_dir)
    summary, apart = summarise(rows), outliers(rows)
    if json:
        document = {"report": page, "tables": tables, "pairs_per_hour": rate}
        document |= {"apart": apart.to_dicts()}
        terminal.say_json({**document, **terminal.as_json(summary)})
    else:
        terminal.say_table(str(page), report_rows(summary, rate))
        if len(apart):
            terminal.say_table("stand apart", apart_rows(apart))


def _report_comparison(run_dirs: list[Path], store: str | None, out: Path, json: bool) -> None:
    comparison = write_comparison(run_dirs, out, store)
    if json:
        terminal.say_json({
            "report": out / "index.html",
            "pairs": len(comparison.runs[0].pairs),
            "notes": notes(comparison),
            "measures": comparison.measures.to_dicts(),
        })  # fmt: skip
    else:
        titles, rows = runs_table(comparison)
        terminal.say_comparison(out / "index.html", titles, rows, notes(comparison))
