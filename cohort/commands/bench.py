"""``bench``: what this machine does."""

from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from cohort import terminal
from cohort.commands.crew import device_of
from cohort.engine.spec import Device
from cohort.errors import UsageError
from cohort.options import HourlyPrice, Json, local_path
from cohort.report.bench import write_bench
from cohort.studies.bench.settings import (
    METHODS,
    SHAPES,
    SMALL,
    BenchSettings,
    Shape,
    parse_counts,
    parse_methods,
    parse_shapes,
    size_text,
)
from cohort.studies.bench.study import Listener, bench
from cohort.studies.bench.tables import read_tables


def bench_command(
    out: Annotated[
        Path, typer.Argument(parser=local_path, help="Folder for tables, pictures and the heads.")
    ],
    methods: Annotated[str, typer.Option(help="Which, with commas between.")] = ",".join(METHODS),
    shapes: Annotated[
        str | None,
        typer.Option(help=f"Voxels. [default: {','.join(map(size_text, SHAPES))}]"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="The two small shapes alone: some minutes.")
    ] = False,
    batches: Annotated[
        str | None,
        typer.Option(help="Pairs at once. [default: 1 on a CPU, 1,4,16 on a GPU]"),
    ] = None,
    workers: Annotated[str, typer.Option(help="Of whole runs, one after the other.")] = "1,2",
    device: Annotated[str | None, typer.Option(help="cpu or cuda. [default: cpu]")] = None,
    repeats: Annotated[int, typer.Option(help="Of each measurement, 5 or more.")] = 5,
    pairs: Annotated[int, typer.Option(help="Different ones that repeats take in turn.")] = 2,
    store: Annotated[
        str | None, typer.Option(help="Take pairs from this store in place of synthetic heads.")
    ] = None,
    pairs_file: Annotated[
        Path | None, typer.Option(help="Which of its pairs: CSV with columns fixed,moving.")
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(metavar="PYTHON", help="Measure other tools too, which this Python has."),
    ] = None,
    hourly_price: HourlyPrice = None,
    json: Json = False,
) -> None:
    """Measure this machine: methods, kernels against their rooflines, and whole runs.

    Synthetic heads with known truth are made once. What it will take is told first, after a try of
    each method. The same command goes on where it was; what does not fit into memory or fails is a
    row that says why. Leave the machine alone meanwhile. --peers .venv-peers/bin/python adds ANTs,
    greedy, demons and ConvexAdam at the first shape, which `make peers` installs.
    """
    if store is not None and (shapes is not None or quick):
        asked = f"--shapes {shapes}" if shapes is not None else "--quick"
        raise UsageError("E_BENCH", f"{asked}: a store's pairs have its own shape; leave it out")
    settings = BenchSettings(
        variants=parse_methods(methods),
        shapes=_shapes(shapes, quick=quick),
        batches=() if batches is None else parse_counts("--batches", batches),
        device=_device(device),
        workers=parse_counts("--workers", workers),
        repeats=repeats,
        pairs=pairs,
        store=store,
        pairs_file=pairs_file,
        peers=peers,
    )
    with terminal.progress_bar("measuring", quiet=json) as update:

        def forecast(seconds: float) -> None:
            if not json:
                terminal.say(f"this takes about {_minutes(seconds)}")

        bench(out, settings, Listener(forecast, update))
    page, found = write_bench(out, hourly_price), read_tables(out)
    if json:
        terminal.say_json({"page": page, **found})
    else:
        _tell(page, found)
    rows = [*found["cells"], *found["end_to_end"], *chain(*found["left_out"].values())]
    raise typer.Exit(1 if any(map(_is_failed, rows)) else 0)


def _shapes(text: str | None, *, quick: bool) -> tuple[Shape, ...]:
    if text is not None:
        return parse_shapes(text)
    return SMALL if quick else SHAPES


def _is_failed(row: dict[str, Any]) -> bool:
    """What there is no room for is no failure."""
    return row["status"] != "ok" and not row["status"].startswith("E_BENCH")


def _device(asked: str | None) -> Device:
    """What is measured; a study has no plan that could be made where there is no card."""
    found = device_of(asked, here=False) or "cpu"
    if found == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "E_DEVICE",
            "--device cuda: torch finds no GPU here; measure where one is, or this machine's"
            " processor with --device cpu",
        )
    return found


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} s"


def _tell(page: Path, found: dict[str, Any]) -> None:
    good = [cell for cell in found["cells"] if cell["status"] == "ok"]
    titles = ("method", "voxels", "at once", "pairs per hour", "Dice", "MiB")
    rows = [
        (
            cell["variant"], cell["shape"], str(cell["batch"]), f"{cell['pairs_per_hour']:,.0f}",
            f"{cell['dice_mean']:.3f}" if "dice_mean" in cell else "", f"{cell['peak_mib']:,.0f}",
        )
        for cell in good
    ]  # fmt: skip
    terminal.say_columns(str(page), titles, rows)
    missing = [
        f"{row['variant']} {row['shape']}: {row['message']}"
        for kind in ("cells", "end_to_end")
        for row in found[kind]
        if row["status"] != "ok"
    ]
    if missing:
        terminal.say_list("not measured", missing)
