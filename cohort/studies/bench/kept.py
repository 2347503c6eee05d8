"""What is measured is kept as it comes: a file each, and tables of all of them."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from cohort.data.own_folder import own_folder
from cohort.data.storage import to_json, write_atomic
from cohort.errors import UsageError
from cohort.studies.bench.settings import file_name

Row = dict[str, Any]
# what two calls in one folder must share
_SAME = ("processor", "card", "triton-reg", "torch", "numba", "triton")
_MEASURED = "measured.json"
CELLS = (
    "method", "settings", "shape", "device", "batch", "status", "message", "repeats", "pairs",
    "register_s", "register_q1_s", "register_q3_s", "register_cpu_s", "pairs_per_hour", "cold_s",
    "cold_q1_s", "cold_q3_s", "pairs_per_hour_cold", "prepare_s", "prepare_q1_s", "prepare_q3_s",
    "read_s", "first_extra_s", "compile_s", "peak_mib", "device_mib", "dice_before", "dice_mean",
    "epe_before_mm", "epe_mm", "folding", "sdlogj", "clock_mhz", "power_w", "joules_a_pair",
    "version",
)  # fmt: skip
KERNELS = (
    "method", "kernel", "shape", "device", "repeats", "median_ms", "q1_ms", "q3_ms",
    "processor_ms", "mbytes", "mflop", "gb_s", "gflop_s", "floor_ms", "bound", "over_floor",
)  # fmt: skip
RUNS = (
    "method", "settings", "shape", "device", "workers", "status", "message", "pairs", "failed",
    "pairs_per_hour", "busy_s", "efficiency", "register_s", "metrics_s", "prepare_s", "read_s",
    "commit_s", "other_s", "waiting_s", "register_q1_s", "register_q3_s", "processor_s",
    "dice_mean", "epe_mm", "sdlogj",
)  # fmt: skip


class Kept:
    """The folder of a study."""

    def __init__(
        self, out: Path, machine: Mapping[str, str], measured: Mapping[str, str] | None = None
    ) -> None:
        """Make the folder this machine's, or see that it is.

        Args:
            out: the folder.
            machine: what measures.
            measured: on what, and how: what no name of a measurement says. What is asked for the
                first time is added to what earlier calls asked for.

        Raises:
            UsageError: ``E_BENCH`` if it holds measurements of another machine or other versions,
                or of something else, or anything that is no study.
            StorageError: if it cannot be made.
        """
        self.done = out / "done"
        self.run = out / "measured_run"  # of the whole run that is being measured
        file = out / "machine.json"
        own_folder(out, "E_BENCH", "study", mark=file.name)
        if file.is_file():
            _check_same(file, {name: machine[name] for name in _SAME if name in machine},
                        "another machine or version")  # fmt: skip
        else:
            write_atomic(file, to_json(dict(machine)))
        self.done.mkdir(exist_ok=True)
        file, asked = out / _MEASURED, dict(measured or {})
        known = _check_same(file, asked, "something else") if file.is_file() else {}
        if asked.keys() - known.keys():
            write_atomic(file, to_json(known | asked))

    def find(self, key: str) -> Row | None:
        """What was measured and succeeded; None if it has to be done."""
        path = self.done / file_name(key)
        if not path.is_file():
            return None
        row = json.loads(path.read_bytes())
        return row if row.get("status") == "ok" else None

    def note(self, key: str, row: Row) -> Row:
        """Keep a measurement, whatever became of it."""
        write_atomic(self.done / file_name(key), to_json({"key": key, **row}))
        return row

    def all(self, kind: str) -> list[Row]:
        """Everything of a kind, the first word of its key."""
        rows = [json.loads(path.read_bytes()) for path in sorted(self.done.glob("*.json"))]
        return [row for row in rows if row["key"].partition(" ")[0] == kind]


def _check_same(file: Path, facts: Mapping[str, str], what: str) -> dict[str, str]:
    """What the file knows, unless it contradicts these facts."""
    there = json.loads(file.read_bytes())
    other = [
        f"{name} {there[name]} there, {fact} here"
        for name, fact in facts.items()
        if there.get(name, fact) != fact
    ]
    if other:
        raise UsageError(
            "E_BENCH",
            f"{file.parent} holds measurements of {what} ({'; '.join(other)}): need another folder",
        )
    return there


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """A CSV file; what is not known is empty, numbers have six digits."""
    text = StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _said(row.get(name)) for name in columns})
    write_atomic(path, text.getvalue().encode())


def _said(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else value
