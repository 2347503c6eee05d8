"""A table of results whose rows take the place of older ones when all of them are measured."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

Add = Callable[[Sequence[object]], None]


@contextmanager
def renewed(path: Path, columns: Sequence[str], keys: int = 1) -> Iterator[Add]:
    """Collect rows of a CSV file; yields what takes one row.

    When the block ends, the file holds the rows it had with other keys, then those that were added.
    If it fails, the file stays as it was.

    Args:
        path: of the file.
        columns: its head.
        keys: so many first columns say what a row is of.
    """
    rows: list[list[str]] = []
    yield lambda row: rows.append([str(value) for value in row])
    measured = {tuple(row[:keys]) for row in rows}
    older: list[list[str]] = []
    if path.exists():
        with path.open(newline="") as file:
            older = list(csv.reader(file))[1:]
    kept = [row for row in older if tuple(row[:keys]) not in measured]
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        csv.writer(file).writerows([list(columns), *kept, *rows])
    part.replace(path)
