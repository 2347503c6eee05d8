"""Which pairs: the designs that ``--pairs`` names."""

import csv
import math
from pathlib import Path

import numpy as np

from cohort.errors import UsageError

DESIGNS = "all, unordered, atlas:SUBJECT|FILE, to:SUBJECT|FILE, random:K or FILE.csv"


def select_pairs(design: str, subject_ids: tuple[str, ...], seed: int) -> np.ndarray:
    """The pairs of a design as rows ``(fixed, moving)`` of indices into ``subject_ids``.

    Args:
        design: ``all`` (every ordered pair), ``unordered`` (each two subjects once, the earlier one
            fixed), ``atlas:X`` (X moves onto every subject), ``to:X`` (every subject moves onto X),
            ``random:K`` (K ordered pairs, seeded) or a CSV file with columns ``fixed,moving``.
        subject_ids: the subjects in the store's order.
        seed: of ``random:K``.

    Returns:
        ``[P, 2]`` int32, without repetition.

    Raises:
        UsageError: ``E_PAIRS`` if the design is unknown, empty or names an unknown subject.
    """
    count, indices = len(subject_ids), {name: index for index, name in enumerate(subject_ids)}
    if count < 2:
        raise UsageError("E_PAIRS", f"pairs need at least 2 subjects, the store has {count}")
    kind, separator, argument = design.partition(":")
    if design in ("all", "unordered"):
        first, second = np.triu_indices(count, k=1)
        forward = np.stack([first, second], axis=1)
        pairs = forward if design == "unordered" else np.concatenate([forward, forward[:, ::-1]])
    elif separator and kind in ("atlas", "to"):
        one = _index_of(argument, indices, design)
        others = np.delete(np.arange(count), one)
        columns = (others, np.full_like(others, one))
        pairs = np.stack(columns if kind == "atlas" else columns[::-1], axis=1)
    elif separator and kind == "random":
        pairs = _random_pairs(argument, count, seed)
    elif design.endswith(".csv"):
        pairs = _read_pairs(Path(design), indices)
    else:
        raise UsageError("E_PAIRS", f"unknown pairs {design!r}; possible: {DESIGNS}")
    return pairs.astype(np.int32)


def _index_of(subject_id: str, indices: dict[str, int], where: str) -> int:
    if subject_id not in indices:
        known = ", ".join(list(indices)[:5]) + (", ..." if len(indices) > 5 else "")
        message = f"{where}: no subject {subject_id!r} in the store, which holds {known}"
        raise UsageError("E_PAIRS", message)
    return indices[subject_id]


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


def _read_pairs(path: Path, indices: dict[str, int]) -> np.ndarray:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or ()
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError("E_PAIRS", f"{path} cannot be read as CSV: {error}") from None
    if not rows or not {"fixed", "moving"} <= set(columns):
        found = f"{', '.join(columns) or 'no columns'} and {len(rows)} rows"
        raise UsageError(
            "E_PAIRS", f"{path} needs the columns fixed,moving and a pair a row; found {found}"
        )
    pairs: dict[tuple[int, int], None] = {}
    for line, row in rows:
        where = f"{path} line {line}"
        fixed, moving = (_index_of(row[role] or "", indices, where) for role in ("fixed", "moving"))
        if fixed == moving or (fixed, moving) in pairs:
            fault = "a subject with itself" if fixed == moving else "a pair for the second time"
            raise UsageError("E_PAIRS", f"{where} has {fault}: {row['fixed']}, {row['moving']}")
        pairs[fixed, moving] = None
    return np.array(list(pairs))


def tile_side(pairs: int) -> int:
    """Side of a tile in subjects for so many pairs.

    At least some forty tiles, so that a few workers end together, and at most 8 x 8 pairs; of
    millions of pairs more, up to 32 x 32, so that the parts stay few enough to be read quickly.
    """
    return max(1, min(8, math.isqrt(pairs // 40)), min(32, math.isqrt(pairs // 1000)))
