"""Runs side by side on the pairs that all of them registered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cohort.errors import UsageError
from cohort.report.run_values import RunValues
from cohort.report.statistics.design import PairDesign
from cohort.report.statistics.intervals import mean_over_pairs
from cohort.report.statistics.paired import compare_pairs, holm

_FLOATS = (
    "mean", "sd", "low", "high", "difference", "difference_low", "difference_high", "p",
    "effect_size",
)  # fmt: skip
_SCHEMA = {
    "run": pl.String, "measure": pl.String, "structure": pl.Int32, "n": pl.Int64,
    "units": pl.Int64, **dict.fromkeys(_FLOATS, pl.Float64), "test": pl.String, "flips": pl.Int64,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class RunComparison:
    """Runs on their common pairs.

    Attributes:
        runs: each with the common pairs alone, in one order; the first is what others are
            compared with.
        registered: how many pairs each run had registered.
        design: of the common pairs.
        measures: a row a run and measure: run, measure, n, units, mean, sd, low, high, then for
            all but the first run the mean difference from the first with its interval, p, p_holm,
            effect_size, test and flips.
        structures: the same a run, measure and structure, with the structure's name.
    """

    runs: list[RunValues]
    registered: list[int]
    design: PairDesign
    measures: pl.DataFrame
    structures: pl.DataFrame


def compare_runs(run_dirs: Sequence[Path], names: Mapping[int, str]) -> RunComparison:
    """Compare runs with the first of them; `names` of structures by label.

    Raises:
        UsageError: ``E_COMPARE`` if the runs have no pair in common, or a subject of the common
            pairs is not the same scan in all of them; ``E_RUN`` if a folder is no run.
        StorageError: if a run cannot be read.
    """
    whole = [RunValues.of_run(path, name) for path, name in _named(run_dirs)]
    runs = _on_common_pairs(whole)
    _refuse_other_scans(runs)
    design = PairDesign.of(runs[0].pairs)
    rows = _compared(runs, [run.measures for run in runs], design)
    measures = _corrected(pl.DataFrame(rows, _SCHEMA))
    rows = []
    for measure in filter(_is_result, _shared([run.structure_measures for run in runs])):
        columns = [run.structures(measure) for run in runs]
        rows += [
            {**row, "measure": measure, "structure": int(row["measure"])}
            for row in _compared(runs, columns, design)
        ]
    structures = _corrected(pl.DataFrame(rows, _SCHEMA))
    called = [names.get(one, f"structure {one}") for one in structures["structure"]]
    return RunComparison(
        runs,
        [len(run.pairs) for run in whole],
        design,
        measures.drop("structure"),
        structures.with_columns(pl.Series("name", called, pl.String)),
    )


def _named(run_dirs: Sequence[Path]) -> list[tuple[Path, str]]:
    """Folders with the names of their runs: the whole path where two folders are called alike."""
    short = [path.resolve().name for path in run_dirs]
    if len(set(short)) < len(short):
        short = [str(path) for path in run_dirs]
    if len(set(short)) < len(short):
        raise UsageError("E_COMPARE", f"a run is named twice: {', '.join(short)}")
    return list(zip(run_dirs, short, strict=True))


def _shared(lists: Sequence[Sequence[str]]) -> list[str]:
    """What all of these have, in the order of the first."""
    return [one for one in lists[0] if all(one in others for others in lists[1:])]


def _is_result(measure: str) -> bool:
    """Whether a measure is of the registration; what was before it is the same in all runs."""
    return "before" not in measure


def _on_common_pairs(runs: list[RunValues]) -> list[RunValues]:
    common = runs[0].pairs
    for run in runs[1:]:
        common = common.join(run.pairs, on=["fixed", "moving"], how="semi")
    if not len(common):
        had = ", ".join(f"{run.name} {len(run.pairs):,}" for run in runs)
        raise UsageError(
            "E_COMPARE", f"no pair was registered by all of these runs, which have: {had}"
        )
    chosen = [run.pairs.with_row_index("at").join(common, on=["fixed", "moving"], how="semi")
              for run in runs]  # fmt: skip
    return [run.only(at["at"].to_numpy()) for run, at in zip(runs, chosen, strict=True)]


def _refuse_other_scans(runs: list[RunValues]) -> None:
    """One name for two scans would make their difference that of the runs."""
    first, *others = runs
    subjects = pl.concat([first.pairs["fixed"], first.pairs["moving"]]).unique().sort().to_list()
    digests = dict(zip(first.spec.subject_ids, first.spec.subject_digests, strict=True))
    for run in others:
        theirs = dict(zip(run.spec.subject_ids, run.spec.subject_digests, strict=True))
        changed = [name for name in subjects if digests[name] != theirs[name]]
        if changed:
            some = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
            raise UsageError(
                "E_COMPARE",
                f"{first.name} and {run.name} registered other scans as ({some}); "
                "compare runs on stores that hold the same subjects",
            )


def _compared(
    runs: list[RunValues], tables: Sequence[Mapping[str, np.ndarray]], design: PairDesign
) -> list[dict[str, Any]]:
    """A row a run and column, over the pairs where all runs have a value."""
    rows = []
    for measure in filter(_is_result, _shared([[*table] for table in tables])):
        values = np.stack([table[measure] for table in tables])
        values[:, np.isnan(values).any(axis=0)] = np.nan
        for index, (run, own) in enumerate(zip(runs, values, strict=True)):
            row = {"run": run.name, "measure": measure, **_told(own, design)}
            rows.append(row | (_difference(own - values[0], design) if index else {}))
    return rows


def _told(values: np.ndarray, design: PairDesign) -> dict[str, Any]:
    estimate = mean_over_pairs(values, design)
    spread = float(np.nanstd(values, ddof=1)) if estimate.n > 1 else None
    return {
        "n": estimate.n,
        "units": estimate.units,
        "mean": estimate.mean,
        "sd": spread,
        "low": estimate.low,
        "high": estimate.high,
    }


def _difference(values: np.ndarray, design: PairDesign) -> dict[str, Any]:
    found = compare_pairs(values, design)
    return {
        "difference": found.difference.mean,
        "difference_low": found.difference.low,
        "difference_high": found.difference.high,
        "p": found.p,
        "effect_size": found.effect_size,
        "test": found.test,
        "flips": found.flips,
    }


def _corrected(table: pl.DataFrame) -> pl.DataFrame:
    """With Holm's p over all tests of a measure; NaN becomes null."""
    groups = table.partition_by("measure", maintain_order=True)
    corrected = [holm(group["p"].fill_null(np.nan).to_numpy()) for group in groups]
    p_holm = pl.Series("p_holm", np.concatenate([*corrected, np.empty(0)]))
    return table.insert_column(table.columns.index("p") + 1, p_holm).fill_nan(None)
