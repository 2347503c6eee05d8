"""Synthetic values of pairs whose subjects matter: ``mean + a_fixed + b_moving + noise``."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from cohort.engine.pairs import select_pairs
from cohort.report.statistics.design import PairDesign


@dataclass(frozen=True)
class Case:
    """So many subjects, paired as `pairs` says; effects in units of the noise, normal or skewed."""

    subjects: int
    pairs: str
    effect: float = 3.0
    skewed: bool = False


def design_of(case: Case, seed: int = 0) -> tuple[np.ndarray, PairDesign]:
    """Pairs ``[P, 2]`` and their design; ``disjoint`` pairs share no subject."""
    names = tuple(f"s{number:03d}" for number in range(case.subjects))
    if case.pairs == "disjoint":
        pairs = np.arange(case.subjects).reshape(-1, 2)
    else:
        pairs = select_pairs(case.pairs, names, seed).within(0, 0, case.subjects)
    table = {"fixed": [names[one] for one in pairs[:, 0]],
             "moving": [names[one] for one in pairs[:, 1]]}  # fmt: skip
    return pairs, PairDesign.of(pl.DataFrame(table))


def pair_values(case: Case, pairs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Values ``[P]`` with a true mean of zero; an atlas has no effect, as it does not vary."""
    shape = (2, case.subjects)
    effects = rng.exponential(size=shape) - 1 if case.skewed else rng.standard_normal(shape)
    effects *= case.effect
    if case.pairs.startswith(("atlas:", "to:")):
        effects[:, 0] = 0
    noise = rng.standard_normal(len(pairs))
    return effects[0, pairs[:, 0]] + effects[1, pairs[:, 1]] + noise
