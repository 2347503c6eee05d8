"""Designs of a group study: a table of subjects as the text files that FSL and PALM read.

A design has an intercept, a column of ones, and a column for each one of the table, less its mean
over the subjects: the intercept is then the mean of all, and each other column is adjusted for the
others. ``design.mat`` and ``design.con`` are FSL's text format, which randomise, glm and PALM read.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cohort.errors import UsageError

INTERCEPT = "intercept"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Design:
    """What is asked of a group of subjects.

    Attributes:
        columns: names, the intercept first.
        matrix: ``[N, P]``, a row a subject; columns beside the intercept have the mean 0.
        means: ``[P]``, what was taken from each column, 0 from the intercept.
        ignored: subjects of the table who are not among those of the study.
    """

    columns: tuple[str, ...]
    matrix: np.ndarray
    means: np.ndarray
    ignored: tuple[str, ...] = ()

    @property
    def contrasts(self) -> dict[str, np.ndarray]:
        """Of each column, upwards and downwards; of the intercept if it is the only one."""
        chosen = range(1, len(self.columns)) if len(self.columns) > 1 else (0,)
        unit = np.eye(len(self.columns))
        signs = {"positive": 1.0, "negative": -1.0}
        return {
            f"{self.columns[one]}_{said}": sign * unit[one] + 0.0  # not -0
            for one in chosen
            for said, sign in signs.items()
        }

    def as_mat(self) -> bytes:
        """``design.mat``."""
        rows, waves = self.matrix.shape
        head = [f"/NumWaves\t{waves}", f"/NumPoints\t{rows}"]
        return _with_matrix(head, self.matrix, np.ptp(self.matrix, axis=0))

    def as_con(self) -> bytes:
        """``design.con``."""
        found = self.contrasts
        head = [f"/ContrastName{one}\t{name}" for one, name in enumerate(found, start=1)]
        head += [f"/NumWaves\t{len(self.columns)}", f"/NumContrasts\t{len(found)}"]
        matrix = np.stack(list(found.values()))
        return _with_matrix(head, matrix, np.ptp(self.matrix @ matrix.T, axis=0))

    def as_json(self, subjects: Sequence[str]) -> dict[str, Any]:
        """What the columns and contrasts mean, and whose the rows are."""
        return {
            "columns": [
                {"name": name, "mean_removed": float(mean)}
                for name, mean in zip(self.columns, self.means, strict=True)
            ],
            "contrasts": {name: values.tolist() for name, values in self.contrasts.items()},
            "rows": list(subjects),
            "ignored": list(self.ignored),
        }


def intercept_alone(subjects: Sequence[str]) -> Design:
    """The mean of all subjects."""
    return Design((INTERCEPT,), np.ones((len(subjects), 1)), np.zeros(1))


def read_design(path: Path, subjects: Sequence[str]) -> Design:
    """A CSV file with a column ``subject`` and numeric ones, in the order of ``subjects``.

    Raises:
        UsageError: ``E_MORPHOMETRY`` with what is wrong, in which row and column.
    """
    names, rows = _table(path)
    missing = [one for one in subjects if one not in rows]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if missing[_SHOWN:] else "")
        raise _wrong(path, f"it has no row for {len(missing)} of {len(subjects)} subjects: {shown}")
    values = np.array([_numbers(path, one, names, rows[one]) for one in subjects])
    means = values.mean(axis=0)
    matrix = np.column_stack([np.ones(len(subjects)), values - means])
    _check(path, names, matrix)
    ignored = tuple(sorted(set(rows) - set(subjects)))
    return Design((INTERCEPT, *names), matrix, np.append(0.0, means), ignored)


def _table(path: Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Names of the numeric columns, and a row a subject."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            fields, rows = list(reader.fieldnames or []), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _wrong(path, f"it cannot be read: {error}") from None
    if "subject" not in fields or len(fields) < 2:
        raise _wrong(path, f"it has the columns {', '.join(fields) or 'none'}")
    names = [one for one in fields if one != "subject"]
    for name in names:
        if not _NAME.fullmatch(name) or names.count(name) > 1 or name == INTERCEPT:
            raise _wrong(
                path,
                f"column {name!r}: need names of letters, digits, dots, dashes and underscores,"
                f" each once, and none that is {INTERCEPT}",
            )
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["subject"] in found:
            raise _wrong(path, f"it has two rows for {row['subject']}")
        found[row["subject"]] = row
    return names, found


def _numbers(path: Path, subject: str, names: Sequence[str], row: dict[str, str]) -> list[float]:
    found = []
    for name in names:
        try:
            found.append(float(row[name]))
        except (TypeError, ValueError):
            found.append(np.nan)
        if not np.isfinite(found[-1]):
            raise _wrong(
                path,
                f"{name} of {subject} is {row[name]!r}; need a number, and of groups a code"
                " such as 0 and 1",
            )
    return found


def _check(path: Path, names: Sequence[str], matrix: np.ndarray) -> None:
    """Refuse columns that say nothing, or nothing new, and more columns than subjects bear."""
    if len(matrix) <= matrix.shape[1]:
        raise _wrong(
            path, f"{len(matrix)} subjects for {matrix.shape[1]} columns, the intercept counted;"
            " need more subjects than columns"
        )  # fmt: skip
    known = 1
    for number, name in enumerate(names, start=1):
        scale = np.abs(matrix[:, : number + 1]).max(axis=0)
        rank = np.linalg.matrix_rank(matrix[:, : number + 1] / np.where(scale > 0, scale, 1.0))
        if rank == known:
            raise _wrong(path, f"column {name} is constant, or a sum of the columns before it")
        known = rank


def _wrong(path: Path, found: str) -> UsageError:
    return UsageError(
        "E_MORPHOMETRY",
        f"--design {path}: {found}. Need a CSV file with a column subject and one or more columns"
        " of numbers",
    )


def _with_matrix(head: list[str], matrix: np.ndarray, heights: np.ndarray) -> bytes:
    """FSL's text: what it is, how far each regressor or contrast ranges, and the numbers."""
    heights = np.where(heights == 0, 1.0, heights)  # of an intercept, as FSL has it
    lines = [*head, "/PPheights\t" + _line(heights), "", "/Matrix", *map(_line, matrix)]
    return ("\n".join(lines) + "\n").encode()


def _line(numbers: np.ndarray) -> str:
    return "\t".join(f"{one:.9e}" for one in numbers)
