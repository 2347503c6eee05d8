"""Arguments and options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Store = Annotated[Path, typer.Argument(help="The cohort store, such as cohort.zarr.")]
Run = Annotated[Path, typer.Argument(help="The folder of the run.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Worker processes; 0 is a plain loop. [default: cores]")
]
Dashboard = Annotated[
    bool,
    typer.Option(
        "--dashboard",
        help="Serve Dask's dashboard of the workers to this machine alone; needs"
        " triton-reg[dashboard].",
    ),
]
Pairs = Annotated[
    str | None,
    typer.Option(
        help="all (ordered), unordered, atlas:X (X moves onto everyone), to:X (everyone moves onto"
        " X), X a subject or a NIfTI file; random:K or FILE.csv with columns fixed,moving."
        " [default: all]"
    ),
]
AtlasLabels = Annotated[
    Path | None, typer.Option(help="Segmentation of the NIfTI file that atlas: or to: names.")
]
Metrics = Annotated[
    str | None,
    typer.Option(
        help="Measures beyond the headline ones, by family: overlap, soft_overlap (each structure"
        " interpolated linearly), surface, deformation, similarity, consistency (registers each"
        " pair both ways), or all. [default: none]"
    ),
]
KeepUncertainty = Annotated[
    bool | None,
    typer.Option(
        "--keep-uncertainty",
        help="Keep how sure the method is of each displacement, in RUN/uncertainty.",
        show_default=False,
    ),
]
MethodName = Annotated[
    str | None, typer.Option("--method", help="voxelopt, pdd_net or dio. [default: voxelopt]")
]
Config = Annotated[Path | None, typer.Option(help="YAML file with settings of the method.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE, a setting of the method; repeatable.")
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Let features=torchscript run the program that its file is, with your rights. Never"
        " kept: give it on each command that needs it.",
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of random pairs. [default: 0]")]
TileSize = Annotated[
    int | None, typer.Option(min=1, help="Side of a tile in subjects. [default: from the pairs]")
]
AssumeOrientation = Annotated[str | None, typer.Option(help="RAS, for files that do not say.")]
FixHeaders = Annotated[
    str,
    typer.Option(
        help="What to believe of headers that are refused: sform or qform where the two conflict,"
        " units or ignore-units where lengths are not mm; several with commas between."
    ),
]

Fixed = Annotated[str | None, typer.Option(help="The fixed subject.")]
Moving = Annotated[
    str | None, typer.Option(help="The moving subject; may be left out if the run has only one.")
]
Via = Annotated[
    list[str] | None,
    typer.Option(help="A subject between the two, from fixed to moving; repeatable."),
]
StoreMoved = Annotated[
    Path | None, typer.Option("--store", help="Where the store is now, if it has moved.")
]


def worker_count(asked: int | None) -> int:
    """Worker processes to start: one a core that this process may use, unless asked otherwise."""
    return len(os.sched_getaffinity(0)) if asked is None else asked
