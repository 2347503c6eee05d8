"""Subjects of a CSV or TSV table: one row each, paths relative to the table's folder."""

import csv
from collections.abc import Sequence
from pathlib import Path

from cohort.data.entries import Rejected, SourceEntry
from cohort.errors import UsageError

SUFFIXES = {".csv": ",", ".tsv": "\t"}
_COLUMNS = ("subject", "session", "image", "labels", "mask", "keypoints")
_REQUIRED = ("subject", "image")


def read_table(table: Path) -> list[SourceEntry | Rejected]:
    """One entry per row; the id is the subject, or subject_session where there is a session."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=SUFFIXES[table.suffix.lower()], strict=True)
            _check_columns(table, reader.fieldnames or ())
            return [_entry(table, reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise UsageError(
            "E_SOURCE", f"{table} is not in UTF-8, which is needed: {error}"
        ) from error
    except (OSError, csv.Error) as error:
        raise UsageError("E_SOURCE", f"{table} cannot be read as a table: {error}") from error


def _check_columns(table: Path, found: Sequence[str]) -> None:
    unknown = [name for name in found if name not in _COLUMNS]
    missing = [name for name in _REQUIRED if name not in found]
    if unknown or missing or len(set(found)) < len(found):
        between = "tabs" if SUFFIXES[table.suffix.lower()] == "\t" else "commas"
        raise UsageError(
            "E_SOURCE",
            f"{table} has columns {', '.join(found) or 'none'}"
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + f". Need {' and '.join(_REQUIRED)}, each once, {between} between;"
            f" possible: {', '.join(_COLUMNS)}",
        )


def _entry(table: Path, line: int, row: dict[str, str]) -> SourceEntry | Rejected:
    where = f"{table} line {line}"
    values = {name: (row.get(name) or "").strip() for name in _COLUMNS}
    subject_id = "_".join(filter(None, (values["subject"], values["session"])))
    if None in row or not values["image"]:
        found = "more cells than columns" if None in row else "no image"
        return Rejected(subject_id, "E_MISSING", f"{where} has {found}; need an image path", where)
    files = {role: values[role] for role in _COLUMNS[2:] if values[role]}
    return SourceEntry(subject_id, **{role: table.parent / path for role, path in files.items()})
