"""Scores of structures: read apart from all else, as those of a million pairs are gigabytes."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

Read = Callable[[list[str]], pa.Table]
"""Gives columns of all committed rows, as `cohort.engine.results.read_table` does of a run."""


@dataclass(frozen=True, eq=False)
class StructureScores:
    """Dice of structures, as the page of a run shows it.

    Attributes:
        table: of each structure over all pairs, see :func:`structure_table`.
        pairs: label and Dice of every structure of some pairs, by (fixed, moving).
    """

    table: pl.DataFrame
    pairs: Mapping[tuple[str, str], Mapping[int, float]]

    @classmethod
    def of(
        cls, read: Read, names: dict[int, str], pairs: Collection[tuple[str, str]]
    ) -> "StructureScores":
        """Read them, and those of ``pairs`` too; ``names`` by label."""
        return cls(structure_table(read, names), _scores_of(read, pairs))


def structure_table(read: Read, names: dict[int, str]) -> pl.DataFrame:
    """Dice per structure over all registered pairs, lowest mean first.

    Columns: structure, name, n, before (mean), mean, sd, median, p05, p25, p75, p95. A pair counts
    for the structures that both of its subjects have.
    """
    value = pl.col("value")
    quantiles = [
        value.quantile(share, "linear").alias(f"p{round(100 * share):02d}")
        for share in (0.05, 0.25, 0.75, 0.95)
    ]
    after = _by_structure(read, "dice")
    table = after.group_by("structure").agg(
        value.count().alias("n"),
        value.mean().alias("mean"),
        value.std().alias("sd"),
        value.median().alias("median"),
        *quantiles,
    )
    del after
    before = _by_structure(read, "dice_structures_before")
    means_before = before.group_by("structure").agg(value.mean().alias("before"))
    labels = table["structure"].to_list()
    named = pl.Series("name", [names.get(s, f"structure {s}") for s in labels], dtype=pl.String)
    return (
        table.with_columns(named)
        .join(means_before, on="structure", how="left")
        .select(
            *("structure", "name", "n", "before", "mean", "sd", "median"),
            *("p05", "p25", "p75", "p95"),
        )
        .sort("mean", "structure")
    )


def entries(column: pa.ChunkedArray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Row, label and value of every entry of a map column, chunk by chunk."""
    start = 0
    for chunk in column.chunks:
        offsets = chunk.offsets.to_numpy()
        inside = slice(int(offsets[0]), int(offsets[-1]))
        rows = np.repeat(np.arange(start, start + len(chunk)), np.diff(offsets))
        yield (
            rows,
            chunk.keys.to_numpy()[inside],
            chunk.items.to_numpy(zero_copy_only=False)[inside],
        )
        start += len(chunk)


def _by_structure(read: Read, column: str) -> pl.DataFrame:
    """One row per pair and structure: ``structure``, ``value``. Failed pairs have none."""
    found = entries(read([column])[column])
    frames = [pl.DataFrame({"structure": keys, "value": values}) for _, keys, values in found]
    schema = {"structure": pl.Int32, "value": pl.Float64}
    return pl.concat([pl.DataFrame(schema=schema), *frames]).filter(pl.col("value").is_finite())


def _scores_of(
    read: Read, pairs: Collection[tuple[str, str]]
) -> dict[tuple[str, str], dict[int, float]]:
    table = read(["fixed", "moving", "dice"])
    for side, name in enumerate(("fixed", "moving")):
        named = pa.array([pair[side] for pair in pairs], pa.string())
        table = table.filter(pc.field(name).isin(named))
    return {
        (row["fixed"], row["moving"]): dict(row["dice"] or ())
        for row in table.to_pylist()
        if (row["fixed"], row["moving"]) in pairs
    }
