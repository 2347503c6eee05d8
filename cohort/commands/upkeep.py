"""Commands that look after runs: ``stop``, ``verify``, ``repair``."""

from dataclasses import asdict
from typing import Annotated

import typer

from cohort import terminal
from cohort.engine.inspection import Finding
from cohort.engine.repair import repair
from cohort.engine.spec import RunSpec
from cohort.engine.stop import request_stop
from cohort.engine.verify import verify
from cohort.options import Json, Run, Steal, StoreMoved


def stop(run_dir: Run, json: Json = False) -> None:
    """End a run after the pairs that are at work; `cohort register` goes on from there."""
    RunSpec.load(run_dir)
    request_stop(run_dir)
    if json:
        terminal.say_json({"stopping": str(run_dir)})
    else:
        terminal.say(f"{run_dir}: whoever works on it stops after the pairs that are at work")


def verify_command(
    run_dir: Run,
    store: StoreMoved = None,
    no_store: Annotated[
        bool, typer.Option("--no-store", help="Look at the run alone, not at its store.")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read every array of the run's subjects.")
    ] = False,
    json: Json = False,
) -> None:
    """Check that a run is whole: its plan, every row once, all checksums, and its store."""
    seen = verify(run_dir, store, with_store=not no_store, deep=deep)
    if json:
        terminal.say_json(asdict(seen))
    else:
        checked = {
            "tiles": f"{seen.tiles - seen.left:,} of {seen.tiles:,} done and good",
            "rows": f"{seen.rows:,} read",
            "subjects": f"{seen.subjects:,} looked up in the store",
        }
        terminal.say_table(str(run_dir), checked)
        _say_findings("wrong", seen.findings)
    raise typer.Exit(1 if seen.findings else 0)


def repair_command(
    run_dir: Run,
    compact: Annotated[
        bool, typer.Option("--compact", help="Merge all small files of rows into large ones.")
    ] = False,
    steal: Steal = False,
    json: Json = False,
) -> None:
    """Move damaged files of a run to RUN/bad, restore what can be, and clear leftovers away.

    Good rows stay. What is missing then is done by the same `cohort register` as before.
    """
    done = repair(run_dir, steal=steal, merge=compact)
    if json:
        terminal.say_json(asdict(done))
        return
    _say_findings("was wrong", done.findings)
    rows: dict[str, object] = {
        "moved to bad": len(done.moved),
        "restored": len(done.restored),
        "tiles saved": done.saved,
        "leftovers": f"{done.swept} removed",
        "merged": f"{done.compacted} parts",
        "tiles left": f"{done.left:,} to do" if done.left else "none, the run is whole",
    }
    terminal.say_table(str(run_dir), rows)


def _say_findings(title: str, findings: list[Finding]) -> None:
    if findings:
        lines = [f"{one.code} {one.path}: {one.sentence}" for one in findings]
        terminal.say_list(title, lines)
