"""Which subjects vary from pair to pair, and so what the independent units of a run are.

Pairs that share a subject are alike: a scan that registers badly does so in all of its pairs. What
is independent are subjects. A run of N subjects tells about N things, however many pairs it has.
"""

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import polars as pl

MOST_ATLASES = 5


class Unit(Enum):
    """What is independent of what."""

    SUBJECT = "subjects, each in all of its pairs"
    TWO_GROUPS = "subjects of two groups, of which one is always fixed and the other moving"
    OTHER_SUBJECT = "subjects other than the atlas"
    PAIR = "pairs, which share no subject"


@dataclass(frozen=True, eq=False)
class PairDesign:
    """The independent units of pairs.

    Attributes:
        first: a unit of each pair, ``[P]`` indices below `n_units`.
        second: the other unit of each pair, ``[P]``; None where a pair has but one.
        n_units: number of units.
        unit: what the units are.
        held: the atlases: subjects that do not vary, so that nothing is said of others.
    """

    first: np.ndarray
    second: np.ndarray | None
    n_units: int
    unit: Unit
    held: tuple[str, ...] = ()

    @classmethod
    def of(cls, pairs: pl.DataFrame) -> "PairDesign":
        """The design of a table with columns ``fixed`` and ``moving``, one row a pair.

        A subject that is in every pair is an atlas; so are up to five subjects that are one side
        of all pairs and never the other. Where no subject has two partners, a pair is a unit.
        """
        fixed, moving, subjects = _codes(pairs)
        count = len(subjects)
        low, high = np.minimum(fixed, moving), np.maximum(fixed, moving)
        partners, dyads = np.unique(low.astype(np.int64) * count + high, return_inverse=True)
        degree = np.bincount(np.concatenate(np.divmod(partners, max(count, 1))), minlength=count)
        if (degree <= 1).all():
            return cls(dyads, None, len(partners), Unit.PAIR)
        held = _atlases(fixed, moving, count)
        if not held.any():
            apart = not np.isin(fixed, moving).any()
            return cls(fixed, moving, count, Unit.TWO_GROUPS if apart else Unit.SUBJECT)
        others, units = np.unique(np.where(held[fixed], moving, fixed), return_inverse=True)
        names = tuple(subjects[index] for index in np.flatnonzero(held))
        return cls(units, None, len(others), Unit.OTHER_SUBJECT, names)

    def only(self, chosen: np.ndarray) -> "PairDesign":
        """The same units over some of the pairs; `chosen`: ``[P]`` of bool."""
        second = None if self.second is None else self.second[chosen]
        return replace(self, first=self.first[chosen], second=second)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """The sum of ``values [P]`` over the pairs of each unit, ``[n_units]``."""
        sums = np.bincount(self.first, values, self.n_units)
        if self.second is not None:
            sums += np.bincount(self.second, values, self.n_units)
        return sums

    def sentence(self) -> str:
        """What the units are, for people."""
        if self.unit is Unit.OTHER_SUBJECT:
            held = "atlas is" if len(self.held) == 1 else "atlases are"
            names = ", ".join(self.held)
            return (
                f"The units are {self.n_units:,} subjects; the {held} held ({names}), "
                "so nothing is said of another"
            )
        return f"The units are {self.n_units:,} {self.unit.value}"


def _codes(pairs: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Fixed and moving as indices into the subjects that there are, sorted."""
    subjects = pl.concat([pairs["fixed"], pairs["moving"]]).unique().sort()
    names = pl.Enum(subjects)
    fixed, moving = (pairs[role].cast(names).to_physical().to_numpy() for role in pairs.columns[:2])
    return fixed.astype(np.int64), moving.astype(np.int64), subjects.to_list()


def _atlases(fixed: np.ndarray, moving: np.ndarray, count: int) -> np.ndarray:
    """Which subjects are atlases, ``[count]`` of bool."""
    as_fixed, as_moving = (np.bincount(role, minlength=count) for role in (fixed, moving))
    everywhere = as_fixed + as_moving == len(fixed)
    if everywhere.any():
        return everywhere
    fewer, more = sorted((as_fixed > 0, as_moving > 0), key=np.count_nonzero)
    apart = not (fewer & more).any()
    few = np.count_nonzero(fewer) <= MOST_ATLASES < np.count_nonzero(more)
    return fewer if apart and few else np.zeros(count, bool)
