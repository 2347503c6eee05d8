"""What the pages say can be done as they say it: links lead somewhere, command lines are taken."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from cohort.cli import app

PROJECT = Path(__file__).parents[1]
PAGES = sorted(
    page for folder in (".", "workflows", "triton_reg", "benchmarks", "cohort")
    for page in (PROJECT / folder).glob("*.md")
)  # fmt: skip
NAMES = [str(page.relative_to(PROJECT)) for page in PAGES]
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(cohort [^`]+)`")


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def command_lines(page: Path) -> list[str]:
    """The ``cohort`` lines of code blocks and of running text, without comments."""
    text = page.read_text()
    blocks = [body.replace("\\\n", " ") for language, body in BLOCK.findall(text) if not language]
    lines = [line.strip() for body in blocks for line in body.splitlines()]
    shown = [part for line in lines for part in re.split(r" (?:&&|\|\|) ", line.partition(" #")[0])]
    said = [" ".join(one.split()) for one in INLINE.findall(BLOCK.sub("", text))]
    return [line for line in (*shown, *said) if line.startswith("cohort ")]


def cohort() -> TyperGroup:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def examples() -> list[str]:
    """The example at the end of each command's help."""
    return [(one.epilog or "").removeprefix("Example: ") for one in cohort().commands.values()]


def refused(line: str) -> str:
    """Why a command line is not taken; empty if it is, or names a command alone."""
    _, name, *rest = shlex.split(line)
    command = cohort().commands.get(name)
    if command is None:
        return f"there is no cohort {name}"
    options = {
        option for one in command.params for option in (*one.opts, *one.secondary_opts)
    } | {"--help"}  # fmt: skip
    unknown = [word for word in rest if word.startswith("--") and word not in options]
    return f"cohort {name} has no {', '.join(unknown)}" if unknown else ""


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_command_lines_of_pages_name_commands_and_options_that_are_there(page: Path) -> None:
    general = {"cohort COMMAND --help", "cohort --version"}
    lines = [line for line in command_lines(page) if line not in general]
    assert [f"{line}: {why}" for line in lines if (why := refused(line))] == []


def test_the_main_page_shows_command_lines() -> None:
    assert len(command_lines(PROJECT / "README.md")) > 8


def test_a_line_that_would_not_be_taken_is_seen() -> None:
    assert refused("cohort registre a b") == "there is no cohort registre"
    assert refused("cohort register a b --pears all") == "cohort register has no --pears"


@pytest.mark.parametrize("line", examples())
def test_examples_of_the_help_are_whole_command_lines(line: str) -> None:
    _, name, *rest = shlex.split(line)
    assert cohort().commands[name].make_context(name, rest).params


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_of_pages_is_python_whose_imports_exist(page: Path) -> None:
    for language, body in BLOCK.findall(page.read_text()):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert [one.name for one in node.names if not hasattr(module, one.name)] == []
