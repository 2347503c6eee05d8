"""The operations page names every code and every option that it should, and none that is not."""

import re
from pathlib import Path

from typer.main import get_command

from cohort import cli

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "workflows" / "operations.md"
CODE = re.compile(r"\bE_[A-Z][A-Z_]+\b")


def codes_in(text: str) -> set[str]:
    return set(CODE.findall(text))


def test_every_code_is_explained_and_no_other() -> None:
    source = "".join(path.read_text() for path in sorted((PROJECT / "cohort").rglob("*.py")))
    raised = set(re.findall(r'"(E_[A-Z][A-Z_]+)"', source))
    assert codes_in(PAGE.read_text()) == raised


def test_every_option_on_the_page_is_one() -> None:
    commands = get_command(cli.app).commands.values()
    parameters = [one for command in commands for one in command.params]
    known = {name for one in parameters for name in (*one.opts, *one.secondary_opts)}
    told = set(re.findall(r"`?(--[a-z][a-z-]+)", PAGE.read_text()))
    others = {"--nodes", "--ntasks-per-node", "--gpus-per-task", "--nthreads", "--memory-limit"}
    assert told - known - others == {"--help", "--keep-"}  # the latter for several options
