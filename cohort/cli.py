"""The ``cohort`` command: its table of commands; exit codes are those of :mod:`cohort.endings`."""

from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from typing import Annotated, Any, NamedTuple, cast

import typer
from typer.core import TyperCommand, TyperGroup

from cohort.endings import ended


class _Entry(NamedTuple):
    """Where a command is, ``module:function`` in `cohort.commands`; what it does, in a line; and an
    example for its own help."""

    where: str
    does: str
    example: str


# in the order in which a new user meets them
_ENTRIES = {
    "synth": _Entry(
        "stores:synth",
        "Make a population whose true displacements are known.",
        "cohort synth demo/nifti --subjects 6",
    ),
    "check": _Entry(
        "check:check_command", "Look at every scan before work.", "cohort check scans/"
    ),
    "ingest": _Entry(
        "stores:ingest_command",
        "Bring every scan onto one working grid in a store.",
        "cohort ingest scans/ cohort.zarr --grid 96x112x96@2mm",
    ),
    "info": _Entry("stores:info", "Say what a store holds.", "cohort info cohort.zarr"),
    "features": _Entry(
        "features:features",
        "Compare feature extractors without registering.",
        "cohort features cohort.zarr --compare features=mind --run run",
    ),
    "train": _Entry(
        "training:train_command",
        "Train the features of a method on a store.",
        "cohort train cohort.zarr model --method pdd_net --folds 3",
    ),
    "plan": _Entry(
        "runs:plan",
        "Say which pairs a run will register, and what it will take.",
        "cohort plan cohort.zarr run --pairs random:100",
    ),
    "register": _Entry(
        "runs:register",
        "Register the pairs of a run and measure each, or go on with it.",
        "cohort register cohort.zarr run --set features=mind --workers 2",
    ),
    "stop": _Entry("upkeep:stop", "End a run after the pairs that are at work.", "cohort stop run"),
    "status": _Entry("status:status", "Say how far a run is.", "cohort status run"),
    "report": _Entry(
        "reports:report",
        "Write the report of a run, or compare runs.",
        "cohort report run other_run",
    ),
    "population": _Entry(
        "population:population",
        "Say who is in the middle, and who stands apart.",
        "cohort population run --clusters auto",
    ),
    "atlas": _Entry(
        "atlas:atlas_command",
        "Make the mean of a cohort, in shape and in looks.",
        "cohort atlas cohort.zarr template --iterations 4",
    ),
    "morphometry": _Entry(
        "morphometry:morphometry",
        "Map where subjects are larger or smaller than the template.",
        "cohort morphometry template --design groups.csv",
    ),
    "apply": _Entry(
        "exports:apply_command",
        "Bring an image, labels or points between original scans.",
        "cohort apply run --fixed a --moving b --labels b_labels.nii.gz",
    ),
    "export": _Entry(
        "exports:export_command",
        "Write a pair's transform as other tools read it.",
        "cohort export run --fixed a --moving b --to itk --out transforms",
    ),
    "fuse": _Entry(
        "fuse:fuse_command",
        "Segment subjects by the labels of others.",
        "cohort fuse cohort.zarr segmented --targets 'new-*' --atlases 'atlas-*'",
    ),
    "verify": _Entry("upkeep:verify_command", "Check that a run is whole.", "cohort verify run"),
    "repair": _Entry(
        "upkeep:repair_command",
        "Move damaged files of a run away, and restore what can be.",
        "cohort repair run",
    ),
    "bench": _Entry(
        "bench:bench_command",
        "Measure this machine: methods, kernels and whole runs.",
        "cohort bench measured --quick",
    ),
    "doctor": _Entry("machine:doctor", "Say what this machine offers.", "cohort doctor --warm"),
}


class _Commands(Mapping[str, TyperCommand]):
    """Each command, imported when it is asked for: most need torch, which takes seconds."""

    def __getitem__(self, name: str) -> TyperCommand:
        where, _, example = _ENTRIES[name]
        module, _, function = where.partition(":")
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        call = getattr(import_module(f"cohort.commands.{module}"), function)
        alone.command(name, epilog=f"Example: {example}")(call)
        return cast(TyperCommand, typer.main.get_command(alone))

    def __iter__(self) -> Iterator[str]:
        return iter(_ENTRIES)

    def __len__(self) -> int:
        return len(_ENTRIES)


class _Group(TyperGroup):
    """All commands; its help imports none of them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_ENTRIES)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.does) for name, one in _ENTRIES.items()])


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # else what stands in brackets, as defaults do, is taken for markup
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"cohort {metadata.version('triton-reg')}")
        raise typer.Exit


@app.callback()
def everywhere(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say which it is."),
    ] = False,
) -> None:
    """Register large cohorts of 3D medical volumes: every scan, or every pair, in one space."""


def main() -> None:
    """Run the command line."""
    ended(lambda: app(prog_name="cohort"))
