"""The operations page names every code and every option that it should, and none that is not."""

import re
from pathlib import Path

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
    options = (PROJECT / "cohort").rglob("*.py")
    source = "".join(path.read_text() for path in options)
    told = set(re.findall(r"`?(--[a-z][a-z-]+)", PAGE.read_text()))
    outside = {"--no-trial", "--nodes", "--ntasks-per-node", "--gpus-per-task", "--nthreads"}
    outside |= {"--keep"}  # as in --keep-...
    known = {one for one in told if f'"{one}' in source or f"{one[2:].replace('-', '_')}" in source}
    assert told - known - outside == set()
