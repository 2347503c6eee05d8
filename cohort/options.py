"""Arguments and options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cohort.errors import UsageError


def local_path(text: str) -> Path:
    """A path on a file system; a URL would become a folder of that name.

    Raises:
        UsageError: ``E_USAGE`` for a URL.
    """
    if "://" in str(text):
        raise UsageError(
            "E_USAGE",
            f"{text} is a URL; here only a STORE may be on object storage. Runs, sources and"
            " results need a folder on a file system that all workers see",
        )
    return Path(text)


Store = Annotated[
    str,
    typer.Argument(help="The cohort store: a folder such as cohort.zarr, or s3://BUCKET/NAME."),
]
Run = Annotated[Path, typer.Argument(parser=local_path, help="The folder of the run.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Worker processes; 0 is a plain loop. [default: cores]")
]
Trial = Annotated[
    bool,
    typer.Option(
        "--trial/--no-trial",
        help="Try some pairs, to cut tiles by their time and to say what the run will take.",
    ),
]
HourlyPrice = Annotated[
    float | None, typer.Option(min=0, help="What a worker costs an hour, to be told the sum.")
]
Gpus = Annotated[
    str | None,
    typer.Option(help="all, or numbers such as 0,1: one worker a number; 0,0 puts two on card 0."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="A Dask scheduler that has the workers, such as tls://host:8786."),
]
SchedulerFile = Annotated[
    Path | None, typer.Option(help="The file in which a Dask scheduler says where it is.")
]
InsecureNetwork = Annotated[
    bool,
    typer.Option(
        "--insecure-network",
        help="Use a scheduler that is reached over a network without TLS: whoever reaches it too"
        " can run any code on its workers.",
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(min=1, help="Pairs registered at once. [default: 1 on a CPU, 16 on a GPU]"),
]
PairTimeout = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        help="Seconds after which a worker process gives up a pair. [default: 20 times the median"
        " of its pairs, at least 120]",
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        help="Do tiles again in which a pair failed, whatever the reason; the other rows come out"
        " the same. A subject that the store no longer has as it was planned fails again.",
    ),
]
Steal = Annotated[
    bool,
    typer.Option(
        "--steal",
        help="Take the run from a driver that holds its lock; that one stops when it notices.",
    ),
]
KeepFeatures = Annotated[
    bool,
    typer.Option(
        "--keep-features",
        help="Keep each subject's features in the store, and take them from there: worth it for"
        " networks on CPUs.",
    ),
]
OnDevice = Annotated[
    str | None,
    typer.Option(
        "--device", help="cpu or cuda, for the whole run. [default: cuda with --gpus, else cpu]"
    ),
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
        " X), X a subject or a NIfTI file; random:K; regular:K (everyone fixed in K and moving in"
        " K); knn:K (the K most alike); between:A*,B* (ids); or FILE.csv with columns"
        " fixed,moving. [default: all]"
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
KeepDisplacements = Annotated[
    str | None,
    typer.Option(
        help="Keep displacements in RUN/displacements.zarr, in 16 bits with a stated bound of their"
        " error: none, sample:K or all. [default: none]"
    ),
]
Kept = Annotated[
    bool,
    typer.Option(
        "--kept",
        help="Take the displacement that the run kept, with its stated error, and do not register"
        " the pair once more.",
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
    int | None, typer.Option(min=1, help="Side of a tile in subjects. [default: from their time]")
]
AssumeOrientation = Annotated[str | None, typer.Option(help="RAS, for files that do not say.")]
FixHeaders = Annotated[
    str,
    typer.Option(
        help="What to believe of files that are refused: sform or qform where the two conflict,"
        " units or ignore-units where lengths are not mm, nan-background where voxels are NaN;"
        " several with commas between."
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
    str | None, typer.Option("--store", help="Where the store is now, if it has moved.")
]


def worker_count(asked: int | None) -> int:
    """Worker processes to start: one a core that this process may use, unless asked otherwise."""
    return len(os.sched_getaffinity(0)) if asked is None else asked
