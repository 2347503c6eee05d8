"""``doctor``: what this machine offers to a run."""

from typing import Annotated

import typer

from cohort import terminal
from cohort.engine.doctor import examine
from cohort.engine.doctor import warm as compile_kernels
from cohort.options import Json


def doctor(
    warm: Annotated[
        bool, typer.Option("--warm", help="Compile the kernels now, so that no run waits for them.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what this machine offers: versions, cores, memory and GPUs."""
    facts: dict[str, object] = dict(examine())
    if warm:
        seconds = {}
        with terminal.progress_bar("compiling", quiet=json) as update:
            for done, (name, elapsed_s, count) in enumerate(compile_kernels(), start=1):
                seconds[name] = elapsed_s
                update(done, count, 0)
        facts["kernels"] = f"compiled and kept, in {sum(seconds.values()):.1f} s"
    if json:
        terminal.say_json(facts)
    else:
        terminal.say_table("this machine", facts)
