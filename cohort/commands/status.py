"""The command that says how far a run is: ``status``."""

from typing import Annotated

import typer

from cohort import terminal
from cohort.commands.run_text import status_rows
from cohort.engine.progress import RunProgress, progress_of
from cohort.errors import UsageError
from cohort.options import Json, Run


def status(
    run_dir: Run,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep telling until the run is done or Ctrl-C.")
    ] = False,
    json: Json = False,
) -> None:
    """Say how far a run is: rate, time left, failures, slowest subjects, disk."""
    if watch and json:
        raise UsageError("E_USAGE", "--watch is for people, --json for machines; need one of them")
    if watch:
        terminal.watch(str(run_dir), lambda: _watched(progress_of(run_dir)))
        return
    found = progress_of(run_dir)
    if json:
        facts = {name: value for name, value in vars(found).items() if name != "summary"}
        terminal.say_json({**facts, **terminal.as_json(found.summary)})
    else:
        terminal.say_table(str(run_dir), status_rows(found))


def _watched(progress: RunProgress) -> tuple[dict[str, object], bool]:
    return status_rows(progress), progress.left > 0
