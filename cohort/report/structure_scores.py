"""Scores of structures, measure by measure: those of a million pairs are a gigabyte each."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

_BATCH_ROWS = 16 * 1024

Read = Callable[[list[str]], Iterable[pa.Table]]
"""Gives columns of all committed rows, as `cohort.engine.results.read_tables` does of a run."""


@dataclass(frozen=True, eq=False)
class StructureScores:
    """Dice of structures, as the page of a run shows it.

    Attributes:
        table: of each structure over all pairs, see :func:`structure_table`.
        pairs: label and Dice of every structure of some pairs, by (fixed, moving).
    """

    table: pl.DataFrame
    pairs: Mapping[tuple[str, str], Mapping[int, float]]


def structure_table(by_structure: pl.DataFrame) -> pl.DataFrame:
    """Dice per structure over all registered pairs, lowest mean first.

    Columns: structure, name, n, before (mean), mean, sd, median, p05, p25, p75, p95; from the table
    that :func:`cohort.report.aggregate.by_structure` makes. A pair counts for the structures that
    both of its subjects have.
    """
    before = by_structure.filter(measure="dice_structures_before")
    return (
        by_structure.filter(measure="dice")
        .filter(pl.col("n") > 0)
        .join(before.select("structure", before="mean"), on="structure", how="left")
        .select(
            *("structure", "name", "n", "before", "mean", "sd", "median"),
            *("p05", "p25", "p75", "p95"),
        )
        .sort("mean", "structure")
    )


def dice_of_pairs(
    read: Read, pairs: Collection[tuple[str, str]]
) -> dict[tuple[str, str], dict[int, float]]:
    """Label and Dice of every structure of some pairs, by (fixed, moving)."""
    found = {}
    for table in read(["fixed", "moving", "dice"]):
        for side, name in enumerate(("fixed", "moving")):
            named = pa.array([pair[side] for pair in pairs], pa.string())
            table = table.filter(pc.field(name).isin(named))
        for row in table.to_pylist():
            found[row["fixed"], row["moving"]] = dict(row.get("dice") or ())
    return {pair: scores for pair, scores in found.items() if pair in pairs}


def structure_values(read: Read, measure: str, pairs: pl.DataFrame) -> dict[str, np.ndarray]:
    """A measure of structures: ``[P]`` values of each label (``"17"``), in the order of labels.

    `pairs` has P rows, ``fixed`` and ``moving``; NaN where a pair has no finite value.
    """
    places = _Places(pairs)
    rows_of: dict[int, int] = {}  # of a label, in `values`
    values = np.empty((0, len(pairs)))
    for table in _in_batches(read(["fixed", "moving", measure])):
        if measure not in table.schema.names:
            continue
        at = places.of(table)
        for rows, keys, items in _entries(table[measure]):
            labels = keys.dictionary.to_pylist()
            own = np.array([rows_of.setdefault(one, len(rows_of)) for one in labels], np.int64)
            values = _with_rows(values, len(rows_of))
            wanted = at[rows] >= 0
            structure = own[keys.indices.to_numpy()[wanted]]
            values[structure, at[rows[wanted]]] = items[wanted]
    values[np.isinf(values)] = np.nan
    return {str(label): values[rows_of[label]] for label in sorted(rows_of)}


def _in_batches(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables of many rows, of which each costs what one of few rows does."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= _BATCH_ROWS:
            yield pa.concat_tables(waiting, promote_options="default").combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting, promote_options="default").combine_chunks()


def _with_rows(values: np.ndarray, rows: int) -> np.ndarray:
    """With so many rows; new ones are NaN."""
    new = rows - len(values)
    return np.pad(values, ((0, new), (0, 0)), constant_values=np.nan) if new else values


def _entries(
    column: pa.ChunkedArray,
) -> Iterator[tuple[np.ndarray, pa.DictionaryArray, np.ndarray]]:
    """Row, label and value of every entry of a map column, chunk by chunk."""
    start = 0
    for chunk in column.chunks:
        offsets = chunk.offsets.to_numpy()
        first, entries = int(offsets[0]), int(offsets[-1] - offsets[0])
        yield (
            np.repeat(np.arange(start, start + len(chunk)), np.diff(offsets)),
            chunk.keys.slice(first, entries).dictionary_encode(),
            chunk.items.slice(first, entries).to_numpy(zero_copy_only=False),
        )
        start += len(chunk)


class _Places:
    """Where a pair stands in a table of pairs: files of rows have an order of their own."""

    def __init__(self, pairs: pl.DataFrame) -> None:
        self._subject = pl.Enum(pl.concat([pairs["fixed"], pairs["moving"]]).unique().sort())
        keys = self._keys(pairs)
        self._order = np.argsort(keys)
        self._keys_in_order = keys[self._order]

    def of(self, table: pa.Table) -> np.ndarray:
        """The place of the pair of each row; -1 of a pair that is not among them."""
        if not len(self._order):
            return np.full(len(table), -1)
        frame = pl.from_arrow(table.select(["fixed", "moving"]))
        assert isinstance(frame, pl.DataFrame)
        keys = self._keys(frame)
        near = np.searchsorted(self._keys_in_order, keys).clip(max=len(self._order) - 1)
        return np.where(self._keys_in_order[near] == keys, self._order[near], -1)

    def _keys(self, pairs: pl.DataFrame) -> np.ndarray:
        """One number a pair; -1 where a subject is none of those that are asked for."""
        number = [
            pairs[role].cast(self._subject, strict=False).to_physical().cast(pl.Int64)
            for role in ("fixed", "moving")
        ]
        return (number[0] * len(self._subject.categories) + number[1]).fill_null(-1).to_numpy()
