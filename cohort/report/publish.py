"""Tables as files that people, spreadsheets and programs read: CSV, Markdown and Parquet."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from cohort.data.storage import storage_error, write_atomic

_MOST_READ = 1000  # rows


def write_tables(folder: Path, tables: Mapping[str, pl.DataFrame]) -> list[Path]:
    """Write each table as ``NAME.csv``, ``NAME.parquet`` and ``NAME.md``; returns their paths.

    Markdown is for people: of a long table it has the first 1,000 rows, and says so.

    Raises:
        StorageError: ``E_STORAGE`` if the file system refuses.
    """
    paths = []
    for name, table in tables.items():
        parquet = io.BytesIO()
        table.write_parquet(parquet)
        contents = {
            "csv": table.write_csv().encode(),
            "parquet": parquet.getvalue(),
            "md": _head_in_markdown(name, table).encode(),
        }
        paths += [write_file(folder / f"{name}.{kind}", one) for kind, one in contents.items()]
    return paths


def _head_in_markdown(name: str, table: pl.DataFrame) -> str:
    text = markdown(table.columns, table.head(_MOST_READ).rows())
    left_out = len(table) - _MOST_READ
    return f"{text}\n{left_out:,} more rows are in {name}.csv\n" if left_out > 0 else text


def write_file(path: Path, content: bytes) -> Path:
    """Write a file whole, with the folder that it needs.

    Raises:
        StorageError: ``E_STORAGE`` if the file system refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    write_atomic(path, content)
    return path


def markdown(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown: numbers with four digits to the right, empty where there is none."""
    numeric = [any(_is_number(row[place]) for row in rows) for place in range(len(titles))]
    lines = [
        [_escaped(title) for title in titles],
        ["---:" if number else "---" for number in numeric],
        *([_cell(value) for value in row] for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else _escaped(str(value))


def _escaped(text: str) -> str:
    """Text that cannot end its cell or its line."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())
