"""How far the subjects of a run are from each other, from its rows."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from cohort.engine.spec import RunSpec
from cohort.errors import UsageError

Kind = Literal["energy", "ncc", "dice"]
KINDS: tuple[Kind, ...] = ("energy", "ncc", "dice")
_LEAST_KNOWN = 0.9  # of all unordered pairs
_FEWEST = 3
# for each kind: the columns that may give it, best first, what the distance is, whether it is 1 - v
_COLUMNS = {
    "energy": (("displacement_rms_mm", "root-mean-square displacement in mm", False),
               ("displacement_mean_mm", "mean displacement in mm", False)),
    "ncc": (("ncc", "1 - NCC", True),),
    "dice": (("dice_mean", "1 - Dice", True),),
}  # fmt: skip
COLUMNS = tuple(column for columns in _COLUMNS.values() for column, _, _ in columns)


@dataclass(frozen=True, eq=False)
class Distances:
    """Of all subjects that were registered.

    Attributes:
        names: the subjects, sorted.
        matrix: float64 ``[N, N]``, symmetric, zero on the diagonal, without gaps.
        known: bool ``[N, N]``: the pairs that rows tell of; others are filled in.
        said: what the distance is, in words, with its unit.
        left_out: subjects of the run that no registered pair tells of.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    known: np.ndarray
    said: str
    left_out: tuple[str, ...] = ()

    @property
    def filled(self) -> int:
        """Unordered pairs whose distance was filled in."""
        return int((~self.known).sum() - (~self.known).diagonal().sum()) // 2


def distances_of(rows: pl.DataFrame, spec: RunSpec, kind: Kind = "energy") -> Distances:
    """Distances from a run's rows: the mean of both directions where both are there.

    A pair that failed gets the mean of its two subjects' median distances.

    Args:
        rows: of the run, as :func:`cohort.engine.results.read_rows` gives them.
        spec: of the run.
        kind: ``energy``, the root mean square of the displacement's lengths if the run measured the
            family ``deformation``, else their mean; ``ncc``; or ``dice``.

    Raises:
        UsageError: ``E_POPULATION`` if the run has an atlas, has fewer than 3 subjects or 90 % of
            their pairs, or did not measure this distance.
    """
    if kind not in _COLUMNS:  # a script's YAML may say anything
        raise UsageError("E_POPULATION", f"distance is {kind!r}; need {', '.join(_COLUMNS)}")
    if spec.atlas is not None:
        raise _refusal(f"the run registers everyone with the atlas {spec.atlas}", spec)
    good = rows.filter(pl.col("status") == "ok")
    if not len(good):
        raise _refusal(f"none of its {len(rows):,} registered pairs succeeded", spec)
    for column, said, is_likeness in _COLUMNS[kind]:
        if column not in good.columns or good[column].null_count():
            continue
        names = tuple(sorted({*good["fixed"], *good["moving"]}))
        _check_enough(good, len(names), spec)  # before there is a matrix: of 50,000 it has 20 GB
        matrix = symmetric_mean(good, column, names)
        known = ~np.isnan(matrix)
        matrix = _filled(1 - matrix if is_likeness else matrix)
        left_out = tuple(sorted(set(spec.subject_ids) - set(names)))
        return Distances(names, matrix, known, said, left_out)
    raise UsageError(
        "E_POPULATION",
        f"--distance {kind} needs {' or '.join(one[0] for one in _COLUMNS[kind])} of every pair;"
        f" {len(good):,} registered pairs have it in {_fullest(good, kind):,} rows",
    )


def symmetric_mean(rows: pl.DataFrame, column: str, names: tuple[str, ...]) -> np.ndarray:
    """A measure by unordered pair, float64 ``[N, N]``: the mean of the directions that are there.

    NaN where neither is, and on the diagonal.
    """
    directed = by_direction(rows, column, names)
    both = np.stack([directed, directed.T])
    count = (~np.isnan(both)).sum(0)
    total = np.nansum(both, axis=0)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def by_direction(rows: pl.DataFrame, column: str, names: tuple[str, ...]) -> np.ndarray:
    """A measure by ordered pair, float64 ``[N, N]``, fixed by row; NaN where there is none."""
    index = pl.DataFrame({"name": names, "place": np.arange(len(names))})
    found = rows.select("fixed", "moving", pl.col(column).cast(pl.Float64).alias("value"))
    for role in ("fixed", "moving"):
        places = index.rename({"name": role, "place": f"{role}_place"})
        found = found.join(places, on=role)
    matrix = np.full((len(names), len(names)), np.nan)
    values = found["value"].fill_null(np.nan).to_numpy()
    matrix[found["fixed_place"].to_numpy(), found["moving_place"].to_numpy()] = values
    return matrix


def _check_enough(good: pl.DataFrame, count: int, spec: RunSpec) -> None:
    if count < _FEWEST:
        raise _refusal(f"the run has registered pairs of {count} subjects", spec)
    total = count * (count - 1) // 2
    roles = pl.col("fixed"), pl.col("moving")
    unordered = good.select(one=pl.min_horizontal(roles), other=pl.max_horizontal(roles))
    share = unordered.filter(pl.col("one") != pl.col("other")).n_unique() / total
    if share < _LEAST_KNOWN:
        raise _refusal(
            f"{share:.1%} of the {total:,} pairs of the run's {count} subjects are registered", spec
        )


def _refusal(found: str, spec: RunSpec) -> UsageError:
    return UsageError(
        "E_POPULATION",
        f"{found} (--pairs {spec.pairs}); a population needs at least {_FEWEST} subjects and"
        f" {_LEAST_KNOWN:.0%} of their pairs: register with --pairs all or unordered",
    )


def _filled(matrix: np.ndarray) -> np.ndarray:
    matrix = matrix.copy()
    np.fill_diagonal(matrix, np.nan)
    medians = np.nanmedian(matrix, axis=1)
    filled = np.where(np.isnan(matrix), (medians[:, None] + medians[None]) / 2, matrix)
    np.fill_diagonal(filled, 0)
    return np.maximum(filled, 0)  # 1 - NCC of a scan that is there twice may round to below zero


def _fullest(rows: pl.DataFrame, kind: Kind) -> int:
    return max(rows[column].count() for column, _, _ in _COLUMNS[kind] if column in rows.columns)
