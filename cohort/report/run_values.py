"""What a run measured, a column a measure: what aggregation and comparison work on."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from cohort.engine.results import INCIDENTAL, SCHEMA, filled_columns, read_tables
from cohort.engine.spec import RunSpec
from cohort.report.structure_scores import Read, structure_values

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
        measures: ``[P]`` values of each measure that some pair has; NaN where a pair has none.
        seconds: ``[P]`` seconds that each pair took.
        failed: pairs that have no values because they failed.
        structure_measures: measures that some pair has for structures.
        read: gives more columns of the rows.
    """

    name: str
    spec: RunSpec
    pairs: pl.DataFrame
    measures: Mapping[str, np.ndarray]
    seconds: np.ndarray
    failed: int
    structure_measures: Sequence[str]
    read: Read = field(repr=False)

    @classmethod
    def of_run(cls, run_dir: Path, name: str | None = None) -> "RunValues":
        """Those of a run on disk; a checksum of every page that is read is checked.

        Raises:
            UsageError, StorageError: as :meth:`RunSpec.load` and
                :func:`cohort.engine.results.read_tables` do.
        """
        spec, filled = RunSpec.load(run_dir), filled_columns(run_dir)
        read = partial(read_tables, run_dir)
        return cls.of_rows(name or run_dir.resolve().name, spec, read, filled)

    @classmethod
    def of_rows(cls, name: str, spec: RunSpec, read: Read, filled: Container[str]) -> "RunValues":
        """Those of the rows that `read` gives, of which the columns `filled` hold a value."""
        measured = [one for one in _MEASURES if one in filled]
        columns = [*_FACTS, *measured]
        empty = pa.schema([SCHEMA.field(one) for one in columns]).empty_table()
        table = pa.concat_tables([empty, *read(columns)], promote_options="default")
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        good = frame.filter(pl.col("status") == "ok").sort("fixed", "moving")
        values = {one: good[one].fill_null(float("nan")).to_numpy() for one in measured}
        finite = {one: np.where(np.isinf(own), np.nan, own) for one, own in values.items()}
        return cls(
            name=name,
            spec=spec,
            pairs=good.select("fixed", "moving"),
            measures={one: own for one, own in finite.items() if not np.isnan(own).all()},
            seconds=good["elapsed_s"].to_numpy(),
            failed=len(frame) - len(good),
            structure_measures=[one for one in _SCORES if one in filled],
            read=read,
        )

    def only(self, chosen: np.ndarray) -> "RunValues":
        """Some of the pairs; `chosen`: their indices, in the order that is wanted."""
        return replace(
            self,
            pairs=self.pairs[chosen],
            measures={one: own[chosen] for one, own in self.measures.items()},
            seconds=self.seconds[chosen],
        )

    def structures(self, measure: str) -> dict[str, np.ndarray]:
        """A measure of structures: ``[P]`` values of each label (``"17"``); NaN if absent."""
        return structure_values(self.read, measure, self.pairs)
