"""Times on a GPU, and the rows that are made of them."""

# ruff: noqa: T201

import csv
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
# fmt: off
COLUMNS = [
    "section", "name", "shape", "batch", "precision", "time_us", "bytes", "floor_us", "ratio",
    "pairs_per_s", "peak_mib", "card", "torch", "triton", "date",
]
# fmt: on
TIMED, LAUNCHES = 20, 10


@dataclass
class Report:
    """Rows as they are measured, each printed at once."""

    about: dict[str, str]
    name: str
    rows: list[dict[str, str]] = field(default_factory=list)
    bytes_per_us: float = 0.0

    def add(self, section: str, name: str, *, time_us: float, **more: object) -> None:
        """A row; the floor and the ratio to it where the bytes are known."""
        size_bytes = more.get("bytes")
        if isinstance(size_bytes, int) and self.bytes_per_us:
            floor = size_bytes / self.bytes_per_us
            more |= {"floor_us": f"{floor:.1f}", "ratio": f"{time_us / floor:.2f}"}
        row = {"section": section, "name": name, "time_us": f"{time_us:.1f}"}
        row |= {key: str(value) for key, value in more.items()}
        self.rows.append(row | self.about)
        print("  " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)

    def write(self) -> None:
        """The file of this card, whole."""
        RESULTS.mkdir(exist_ok=True)
        card = re.sub(r"\W+", "-", self.about["card"]).strip("-").lower()
        with (RESULTS / f"{self.name}_{card}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            writer.writerows(self.rows)


def median_us(run: Callable[[], object], times: int = TIMED) -> float:
    """Median time of a run on the GPU, after two that are not counted."""
    for _ in range(2):
        run()
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(times)]
    for start, stop in marks:
        start.record()
        run()
        stop.record()
    torch.cuda.synchronize()
    return 1e3 * statistics.median(start.elapsed_time(stop) for start, stop in marks)


def median_launch_us(launch: Callable[[], object]) -> float:
    """Time of one launch, from several in a CUDA graph: Python is slower than the small ones."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(LAUNCHES):
            launch()
    return median_us(graph.replay) / LAUNCHES
