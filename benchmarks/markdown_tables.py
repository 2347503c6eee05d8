"""Rows of results files, and the Markdown that pages make of them."""

import csv
import textwrap
from collections.abc import Iterable
from pathlib import Path

Row = dict[str, str]


def rows_of(path: Path) -> list[Row]:
    """The rows of a results file, none if it is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(head: str, rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table; ``head`` has its columns between ``|``."""
    columns = [one.strip() for one in head.split("|")]
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def paragraph(text: str) -> str:
    return textwrap.fill(text, 100, break_on_hyphens=False)


def fraction(text: str, digits: int = 3) -> str:
    """Without the zero before the point, as the field writes overlaps: ``.618``."""
    return f"{float(text):.{digits}f}".removeprefix("0")


def whole(text: str) -> str:
    return f"{float(text):,.0f}"


def machine(row: Row) -> str:
    """The processor, without the number of threads, which the text tells."""
    return row["cpu"].partition(",")[0]
