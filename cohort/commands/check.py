"""``check``: what is in a source or a store, and what is wrong with it, before any work."""

from typing import Annotated

import typer

from cohort import terminal
from cohort.commands.check_text import document, finding_lists, summary, table
from cohort.data.check.look import check
from cohort.data.header_choices import HeaderChoices, parse_fixes
from cohort.options import AssumeOrientation, FixHeaders, Json, Workers, worker_count


def check_command(
    path: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE|STORE", help="What `cohort ingest` would read, or a store that it made."
        ),
    ],
    assume_orientation: AssumeOrientation = None,
    fix_headers: FixHeaders = "",
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Look at every scan before work: warnings, the worst first, then one row a subject.

    Of more than 500 subjects only those with a remark have a row. Nothing is written. Axes, voxels
    and mm are those of the files, ~ marks oblique ones. The column side compares where the labels
    lie, left to right, with the cohort: 1 alike, -1 mirrored. Exit code 1 says that ingest would
    quarantine a subject.
    """
    choices = HeaderChoices.parse(parse_fixes(fix_headers), assume_orientation)
    with terminal.progress_bar("checking", quiet=json) as update:
        report = check(path, choices, workers=worker_count(workers), progress=update)
    if json:
        terminal.say_json(document(report))
    else:
        for heading, lines in finding_lists(report):
            terminal.say_list(heading, lines)
        terminal.say_list("subjects", table(report))
        terminal.say(f"{path}: {summary(report)}")
    raise typer.Exit(1 if report.refused else 0)
