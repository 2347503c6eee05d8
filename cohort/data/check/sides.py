"""Which subjects are mirrored left to right, learnt from the cohort's own labels.

No label says on which side it belongs. But each structure lies somewhere between left and right,
and bodies of one kind agree where: the cohort's own arrangement is the median over its subjects.
A subject is compared with it by projection, p m / m m over the structures that both have: 1 is the
same arrangement, 0 one without sides, -1 the mirror image. Two things are compared: how far to the
right of the mean labelled voxel a structure's centre lies, and, for structures that have both sides
under one label, how unequal the halves are. The first is the stronger; the second is asked where it
is mute. Both are mute unless nearly all subjects are clearly of the one or the other kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cohort.data.check.facts import LabelFacts

_MIN_SUBJECTS = 3
_CLEAR = 0.5
_NEARLY_ALL = 0.9
# below these structures lie on the mid-plane, and what is left of a side is noise
_MIN_SIDE_OF_POSITIONS, _MIN_SIDE_OF_HALVES = 0.1, 0.05


@dataclass(frozen=True, eq=False)
class Sides:
    """How subjects' sides agree with the cohort's median.

    likeness: projection ``[N]``, NaN for subjects without shared structures. measure:
    ``positions`` or ``halves``.
    """

    likeness: np.ndarray
    measure: str

    @property
    def mirrored(self) -> np.ndarray:
        """Bool ``[N]``: which subjects have left and right exchanged."""
        return self.likeness < -_CLEAR


def compare_sides(labels: Sequence[LabelFacts]) -> Sides | None:
    """The agreement of labelled subjects; None where the cohort has no side to agree on."""
    if len(labels) < _MIN_SUBJECTS:
        return None
    structures = _shared_structures(labels)
    positions = _table([(one.values, one.right) for one in labels], structures)
    halves = _table([(one.values, 2 * one.right_share - 1) for one in labels], structures)
    for measure, table, least in (
        ("positions", positions, _MIN_SIDE_OF_POSITIONS),
        ("halves", halves, _MIN_SIDE_OF_HALVES),
    ):
        likeness = _likeness(table, least)
        if likeness is not None:
            return Sides(likeness, measure)
    return None


def _shared_structures(labels: Sequence[LabelFacts]) -> np.ndarray:
    """Values that at least half of the subjects have."""
    values, counts = np.unique(np.concatenate([one.values for one in labels]), return_counts=True)
    return values[2 * counts >= len(labels)]


def _table(columns: Sequence[tuple[np.ndarray, np.ndarray]], structures: np.ndarray) -> np.ndarray:
    """Measures ``[N, S]`` of the shared structures, NaN where a subject has none."""
    table = np.full((len(columns), len(structures)), np.nan)
    for row, (values, measures) in zip(table, columns, strict=True):
        _, here, there = np.intersect1d(structures, values, return_indices=True)
        row[here] = measures[there]
    return table


def _likeness(table: np.ndarray, least: float) -> np.ndarray | None:
    """Projection ``[N]`` of rows onto the median row, if there is a side and rows agree on it."""
    if not table.shape[1]:
        return None
    median = np.nanmedian(table, axis=0)
    if np.sqrt(np.mean(median**2)) < least:
        return None
    known = ~np.isnan(table)
    lengths = known @ median**2
    likeness = np.full(len(table), np.nan)
    np.divide(np.where(known, table, 0.0) @ median, lengths, out=likeness, where=lengths > 0)
    judged = np.abs(likeness[lengths > 0])
    return likeness if np.mean(judged > _CLEAR) >= _NEARLY_ALL else None
