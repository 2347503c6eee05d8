"""The ``cohort`` command: its table of commands; exit codes are those of :mod:`cohort.endings`."""

from importlib import metadata
from typing import Annotated

import typer

from cohort.commands import (
    atlas,
    bench,
    check,
    exports,
    features,
    fuse,
    machine,
    morphometry,
    population,
    reports,
    runs,
    stores,
    training,
    upkeep,
)
from cohort.endings import ended

# in the order in which a new user meets them, each with an example for its help
_COMMANDS = (
    (stores.synth, "cohort synth demo/nifti --subjects 6"),
    (check.check_command, "cohort check scans/"),
    (stores.ingest_command, "cohort ingest scans/ cohort.zarr --grid 96x112x96@2mm"),
    (stores.info, "cohort info cohort.zarr"),
    (features.features, "cohort features cohort.zarr --compare features=mind --run run"),
    (training.train_command, "cohort train cohort.zarr model --method pdd_net --folds 3"),
    (runs.plan, "cohort plan cohort.zarr run --pairs random:100"),
    (runs.register, "cohort register cohort.zarr run --set features=mind --workers 2"),
    (upkeep.stop, "cohort stop run"),
    (reports.status, "cohort status run"),
    (reports.report, "cohort report run other_run"),
    (population.population, "cohort population run --clusters auto"),
    (atlas.atlas_command, "cohort atlas cohort.zarr template --iterations 4"),
    (morphometry.morphometry, "cohort morphometry template --design groups.csv"),
    (exports.apply_command, "cohort apply run --fixed a --moving b --labels b_labels.nii.gz"),
    (exports.export_command, "cohort export run --fixed a --moving b --to itk --out transforms"),
    (fuse.fuse_command, "cohort fuse cohort.zarr segmented --targets 'new-*' --atlases 'atlas-*'"),
    (upkeep.verify_command, "cohort verify run"),
    (upkeep.repair_command, "cohort repair run"),
    (bench.bench_command, "cohort bench measured --quick"),
    (machine.doctor, "cohort doctor --warm"),
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # else what stands in brackets, as defaults do, is taken for markup
)
for _command, _example in _COMMANDS:
    _name = _command.__name__.removesuffix("_command")
    app.command(_name, epilog=f"Example: {_example}")(_command)


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
