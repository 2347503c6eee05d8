"""What a run measured, a column a measure: what aggregation and comparison work on."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from cohort.engine.results import INCIDENTAL, SCHEMA, read_table
from cohort.engine.spec import RunSpec
from cohort.report.structure_scores import entries

# measures are whatever the schema has of these two types, so that a new one needs nothing here
_MEASURES = [
    one.name for one in SCHEMA if pa.types.is_float64(one.type) and one.name not in INCIDENTAL
]
_FACTS = ["fixed", "moving", "status", "elapsed_s"]
_SCORES = [one.name for one in SCHEMA if pa.types.is_map(one.type)]


@dataclass(frozen=True, eq=False)
class RunValues:
    """The registered pairs of a run and their values.

    Attributes:
        name: what tables call the run.
        spec: its facts.
        pairs: ``fixed`` and ``moving``, one row a registered pair.
        measures: one column a measure that some pair has, one row a pair.
        seconds: ``[P]`` seconds that each pair took.
        failed: pairs that have no values because they failed.
        scores: the measures of structures: a map column each, one row a committed pair.
        rows: ``[P]`` the row in `scores` of each registered pair.
    """

    name: str
    spec: RunSpec
    pairs: pl.DataFrame
    measures: pl.DataFrame
    seconds: np.ndarray
    failed: int
    scores: pa.Table = field(repr=False)
    rows: np.ndarray = field(repr=False)

    @classmethod
    def read(cls, run_dir: Path, name: str | None = None) -> "RunValues":
        """Read a run; a checksum of every page that is read is checked.

        Raises:
            UsageError, StorageError: as :meth:`RunSpec.load` and
                :func:`cohort.engine.results.read_table` do.
        """
        spec = RunSpec.load(run_dir)
        table = read_table(run_dir, [*_FACTS, *_MEASURES, *_SCORES])
        filled = [name for name in _MEASURES if table[name].null_count < len(table)]
        frame = pl.from_arrow(table.select([*_FACTS, *filled]))
        assert isinstance(frame, pl.DataFrame)
        good = frame.with_row_index("row").filter(pl.col("status") == "ok").sort("fixed", "moving")
        finite = good.select(pl.when(pl.col(one).is_finite()).then(pl.col(one)) for one in filled)
        there = [one.name for one in finite if one.null_count() < len(finite)]
        return cls(
            name or run_dir.resolve().name,
            spec,
            good.select("fixed", "moving"),
            finite.select(there),
            good["elapsed_s"].to_numpy(),
            len(frame) - len(good),
            table.select(_SCORES),
            good["row"].to_numpy(),
        )

    def only(self, chosen: np.ndarray) -> "RunValues":
        """Some of the pairs; `chosen`: their indices, in the order that is wanted."""
        return replace(
            self,
            pairs=self.pairs[chosen],
            measures=self.measures[chosen],
            seconds=self.seconds[chosen],
            rows=self.rows[chosen],
        )

    @property
    def structure_measures(self) -> list[str]:
        """Measures that some pair has for structures."""
        scores = self.scores
        return [name for name in _SCORES if scores[name].null_count < len(scores)]

    def structures(self, measure: str) -> pl.DataFrame:
        """A measure of structures: a column a label (``"17"``), a row a pair; null if absent."""
        column = self.scores[measure]
        found = list(entries(column))
        labels = np.unique(np.concatenate([np.unique(keys) for _, keys, _ in found] or [[]]))
        values = np.full((len(labels), len(column)), np.nan)
        for rows, keys, items in found:
            values[np.searchsorted(labels, keys), rows] = items
        values[np.isinf(values)] = np.nan
        whole = np.array_equal(self.rows, np.arange(len(column)))
        chosen = values if whole else (one[self.rows] for one in values)
        # by itself and once: of a million pairs of a hundred structures, each copy is a gigabyte
        return pl.DataFrame([
            pl.Series(str(int(label)), one, nan_to_null=True)
            for label, one in zip(labels, chosen, strict=True)
        ])  # fmt: skip
