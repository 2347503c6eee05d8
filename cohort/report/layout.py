"""The tables of a report, with their columns and captions, ready to be laid out."""

import json
from dataclasses import dataclass
from itertools import islice
from typing import Any

import polars as pl

from cohort.report import tables

MOST_FAILURES = 50
MOST_ROWS = 1000  # of a page that opens and is sorted at once


@dataclass(frozen=True)
class Column:
    """One column of a table: a frame's column, its title, and its decimals (None for text)."""

    name: str
    title: str
    digits: int | None = None


@dataclass(frozen=True)
class Table:
    """A table to be laid out; cells are values of a frame."""

    caption: str
    columns: tuple[Column, ...]
    rows: list[tuple[Any, ...]]


_STRUCTURE_COLUMNS = (
    Column("name", "Structure"),
    Column("structure", "Label", 0),
    Column("n", "Pairs", 0),
    Column("before", "Mean before", 3),
    Column("mean", "Mean after", 3),
    Column("sd", "SD", 3),
    Column("median", "Median", 3),
    Column("p05", "5 %", 3),
    Column("p95", "95 %", 3),
)


def laid_out(frame: pl.DataFrame, columns: tuple[Column, ...], caption: str) -> Table:
    """A frame, the most conspicuous rows first, as a table of these columns.

    Of very many rows the first 1,000, and the caption says so: all are in files beside the page.
    """
    beyond = len(frame) - MOST_ROWS
    more = f"; {beyond:,} more are in the tables beside this page" if beyond > 0 else ""
    shown = frame.select([column.name for column in columns]).head(MOST_ROWS)
    return Table(caption + more, columns, shown.rows())


def structures(frame: pl.DataFrame) -> Table:
    """The table of a `tables.structure_table`."""
    return laid_out(frame, _STRUCTURE_COLUMNS, "Dice per structure over all registered pairs")


def subjects(rows: pl.DataFrame) -> Table:
    """How well every subject registers, as fixed and as moving."""
    measure = tables.main_measure(rows)
    title = "Dice" if measure == "dice_mean" else "NCC"
    columns = (
        Column("subject_id", "Subject"),
        Column("as_fixed", f"Mean {title} as fixed", 3),
        Column("n_fixed", "Pairs as fixed", 0),
        Column("as_moving", f"Mean {title} as moving", 3),
        Column("n_moving", "Pairs as moving", 0),
        Column("failed", "Failed pairs", 0),
    )
    frame = tables.subject_table(rows, measure)
    return laid_out(frame, columns, f"Mean {title} after registration per subject")


def outliers(frame: pl.DataFrame) -> Table:
    """The table of an `outliers.outliers`."""
    columns = (
        Column("subject", "Subject"),
        Column("reason", "Why"),
        Column("distance", "Robust SD away", 1),
    )
    left_out = len(frame) - MOST_FAILURES
    more = f"; {left_out:,} that are nearer are left out" if left_out > 0 else ""
    return laid_out(frame.head(MOST_FAILURES), columns, f"Subjects that stand apart{more}")


def failures(rows: pl.DataFrame) -> Table:
    """Failed pairs by code and reason."""
    frame = tables.failure_table(rows)
    columns = (
        Column("code", "Code"),
        Column("message", "Reason"),
        Column("pairs", "Pairs", 0),
        Column("fixed", "First: fixed"),
        Column("moving", "First: moving"),
    )
    left_out = len(frame) - MOST_FAILURES
    more = f"; {left_out:,} rarer reasons are left out" if left_out > 0 else ""
    return laid_out(frame.head(MOST_FAILURES), columns, f"Failed pairs by reason{more}")


def quarantine(entries: dict[str, dict[str, Any]]) -> Table:
    """Subjects that ingest refused."""
    columns = (
        Column("subject_id", "Subject"),
        Column("code", "Code"),
        Column("message", "Reason"),
        Column("source", "File"),
    )
    rows = [
        (
            subject_id,
            str(entry.get("code")),
            str(entry.get("message")),
            _source(entry.get("source")),
        )
        for subject_id, entry in islice(entries.items(), MOST_ROWS)
    ]
    beyond = len(entries) - MOST_ROWS
    more = f"; {beyond:,} more, which `cohort info --json` lists" if beyond > 0 else ""
    return Table(f"Subjects in quarantine{more}", columns, rows)


def _source(source: Any) -> str:
    return source if isinstance(source, str) else json.dumps(source, ensure_ascii=False)
