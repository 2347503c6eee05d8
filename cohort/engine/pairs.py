"""Which pairs: the designs that ``--pairs`` names."""

import csv
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from cohort.engine.designs import Listed, PairSet, Product
from cohort.errors import UsageError

DESIGNS = (
    "all, unordered, atlas:SUBJECT|FILE, to:SUBJECT|FILE, random:K, regular:K, knn:K,"
    " between:PATTERN,PATTERN or FILE.csv"
)
_ROLES = ("fixed", "moving")


def select_pairs(design: str, subject_ids: tuple[str, ...], seed: int) -> PairSet:
    """The pairs of a design, without repetition.

    Args:
        design: ``all`` (every ordered pair), ``unordered`` (each two subjects once, the earlier one
            fixed), ``atlas:X`` (X moves onto every subject), ``to:X`` (every subject moves onto X),
            ``random:K`` (K ordered pairs, seeded), ``regular:K`` (every subject is fixed in K pairs
            and moving in K, seeded), ``between:A*,B*`` (every subject whose id matches the second
            pattern moves onto every one that matches the first) or a CSV file with columns
            ``fixed,moving``.
        subject_ids: the subjects in the store's order.
        seed: of ``random:K`` and ``regular:K``.

    Raises:
        UsageError: ``E_PAIRS`` if the design is unknown, empty or names an unknown subject.
    """
    count, indices = len(subject_ids), {name: index for index, name in enumerate(subject_ids)}
    if count < 2:
        raise UsageError("E_PAIRS", f"pairs need at least 2 subjects, the store has {count}")
    kind, separator, argument = design.partition(":")
    everyone = np.arange(count, dtype=np.int32)
    if design in ("all", "unordered"):
        return Product(everyone, everyone, upward=design == "unordered")
    if separator and kind in ("atlas", "to"):
        one = np.array([_index_of(argument, indices, design)], dtype=np.int32)
        return Product(everyone, one) if kind == "atlas" else Product(one, everyone)
    if separator and kind == "between":
        return _between(argument, subject_ids)
    if separator and kind == "random":
        return Listed(_random_pairs(argument, count, seed).astype(np.int32))
    if separator and kind == "regular":
        return Listed(_regular_pairs(argument, count, seed).astype(np.int32))
    if design.endswith(".csv"):
        return Listed(_read_pairs(Path(design), indices).astype(np.int32))
    raise UsageError("E_PAIRS", f"unknown pairs {design!r}; possible: {DESIGNS}")


def neighbours_asked(design: str, count: int) -> int | None:
    """K of ``knn:K``; None for another design.

    Raises:
        UsageError: ``E_PAIRS`` if there are not so many others.
    """
    kind, _, argument = design.partition(":")
    return _degree(argument, count, "knn") if kind == "knn" else None


def _index_of(subject_id: str, indices: dict[str, int], where: str) -> int:
    if subject_id not in indices:
        known = ", ".join(list(indices)[:5]) + (", ..." if len(indices) > 5 else "")
        message = f"{where}: no subject {subject_id!r} in the store, which holds {known}"
        raise UsageError("E_PAIRS", message)
    return indices[subject_id]


def _between(argument: str, subject_ids: tuple[str, ...]) -> Product:
    patterns = argument.split(",")
    if len(patterns) != 2 or not all(patterns):
        raise UsageError(
            "E_PAIRS",
            f"between: needs two patterns of ids, as in siteA-*,siteB-*; got {argument!r}",
        )
    sides = [
        [index for index, name in enumerate(subject_ids) if fnmatchcase(name, pattern)]
        for pattern in patterns
    ]
    for pattern, found in zip(patterns, sides, strict=True):
        if not found:
            known = ", ".join(subject_ids[:3])
            raise UsageError("E_PAIRS", f"between: no subject matches {pattern!r}; some: {known}")
    if sides[0] == sides[1] and len(sides[0]) == 1:
        raise UsageError("E_PAIRS", f"between: both patterns name {subject_ids[sides[0][0]]} alone")
    fixed, moving = (np.array(side, dtype=np.int32) for side in sides)
    return Product(fixed, moving)


def _random_pairs(argument: str, count: int, seed: int) -> np.ndarray:
    possible = count * (count - 1)
    if not argument.isdecimal() or not 1 <= int(argument) <= possible:
        raise UsageError(
            "E_PAIRS",
            f"random:K needs K from 1 to {possible} for {count} subjects, got {argument!r}",
        )
    chosen = np.random.default_rng(seed).choice(possible, int(argument), replace=False)
    fixed, moving = np.divmod(chosen, count - 1)
    return np.stack([fixed, moving + (moving >= fixed)], axis=1)  # leave out the diagonal


def _regular_pairs(argument: str, count: int, seed: int) -> np.ndarray:
    """Subjects on a circle in random order, each with those at K random distances ahead of it."""
    degree = _degree(argument, count, "regular")
    random = np.random.default_rng(seed)
    circle = random.permutation(count)
    distances = 1 + random.choice(count - 1, degree, replace=False)
    place = np.arange(count)
    return np.concatenate([
        np.stack([circle[place], circle[(place + distance) % count]], axis=1)
        for distance in np.sort(distances)
    ])  # fmt: skip


def _degree(argument: str, count: int, kind: str) -> int:
    if not argument.isdecimal() or not 1 <= int(argument) < count:
        raise UsageError(
            "E_PAIRS",
            f"{kind}:K needs K from 1 to {count - 1} for {count} subjects, got {argument!r}",
        )
    return int(argument)


def _read_pairs(path: Path, indices: dict[str, int]) -> np.ndarray:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _parsed_pairs(path, csv.reader(file, strict=True), indices)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError("E_PAIRS", f"{path} cannot be read as CSV: {error}") from None


def _parsed_pairs(path: Path, rows: Any, indices: dict[str, int]) -> np.ndarray:
    """Pairs of a `csv.reader`, row by row: a million rows at once would be a gigabyte."""
    columns = next(rows, [])
    places = {name: place for place, name in enumerate(columns)}
    is_table = {"fixed", "moving"} <= places.keys()
    pairs: dict[int, None] = {}  # fixed * N + moving
    for row in filter(None, rows) if is_table else ():
        cells = [row[places[role]] if places[role] < len(row) else "" for role in _ROLES]
        fixed, moving = indices.get(cells[0]), indices.get(cells[1])
        if fixed is None or moving is None or fixed == moving:
            raise _fault(f"{path} line {rows.line_num}", cells, indices)
        code = fixed * len(indices) + moving
        if code in pairs:
            raise _fault(f"{path} line {rows.line_num}", cells, indices)
        pairs[code] = None
    if not pairs:
        count = sum(1 for _ in filter(None, rows))
        found = f"{', '.join(columns) or 'no columns'} and {count} rows"
        raise UsageError(
            "E_PAIRS", f"{path} needs the columns fixed,moving and a pair a row; found {found}"
        )
    return np.stack(np.divmod(np.fromiter(pairs, np.int64, len(pairs)), len(indices)), axis=1)


def _fault(where: str, cells: list[str], indices: dict[str, int]) -> UsageError:
    """What is wrong with a row that is no new pair of two subjects."""
    for cell in cells:
        _index_of(cell, indices, where)
    fault = "a subject with itself" if cells[0] == cells[1] else "a pair for the second time"
    return UsageError("E_PAIRS", f"{where} has {fault}: {', '.join(cells)}")
