"""Groups of options: one parameter of a command, one option a field on the command line."""

import inspect
from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from cohort.commands.option_groups import with_groups


@dataclass(frozen=True)
class Meal:
    """What is eaten."""

    soup: Annotated[str, typer.Option(help="Of the day.")] = "pea"
    bread: Annotated[bool, typer.Option("--bread")] = False


@with_groups
def serve(guest: Annotated[str, typer.Argument()], meal: Meal, seats: int = 1) -> None:
    """Serve a meal."""
    typer.echo(f"{guest} {meal} {seats}")


APP = typer.Typer()
APP.command()(serve)


def test_each_field_is_an_option_in_the_place_of_its_group() -> None:
    assert list(inspect.signature(serve).parameters) == ["guest", "soup", "bread", "seats"]
    assert serve.__name__ == "serve"
    assert serve.__doc__ == "Serve a meal."
    shown = CliRunner().invoke(APP, ["--help"]).output
    assert shown.index("--soup") < shown.index("--bread") < shown.index("--seats")
    assert "Of the day." in shown


def test_a_command_gets_the_group_with_what_was_said_and_its_defaults() -> None:
    said = CliRunner().invoke(APP, ["Ada", "--bread", "--seats", "2"])
    assert said.output == f"Ada {Meal(bread=True)} 2\n"
    assert CliRunner().invoke(APP, ["Ada"]).output == f"Ada {Meal()} 1\n"
