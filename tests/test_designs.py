"""Sets of pairs by rule against the same pairs written out, block by block."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from cohort.engine.designs import Listed, PairSet
from cohort.engine.pairs import select_pairs
from cohort.errors import UsageError

NAMES = tuple(f"{'a' if number % 3 else 'b'}{number:02d}" for number in range(11))
DESIGNS = ["all", "unordered", "atlas:a04", "to:a04", "between:a*,b*", "between:*,b*", "random:40",
           "regular:3"]  # fmt: skip


def written_out(design: str) -> set[tuple[int, int]]:
    """The pairs of a design, the plain way."""
    every = itertools.permutations(range(len(NAMES)), 2)
    rules = {
        "all": lambda fixed, moving: True,
        "unordered": lambda fixed, moving: fixed < moving,
        "atlas:a04": lambda fixed, moving: moving == 4,
        "to:a04": lambda fixed, moving: fixed == 4,
        "between:a*,b*": lambda fixed, moving: (NAMES[fixed] + NAMES[moving])[::3] == "ab",
        "between:*,b*": lambda fixed, moving: NAMES[moving][0] == "b",
    }
    return {pair for pair in every if rules[design](*pair)}


def all_of(pairs: PairSet, side: int) -> list[tuple[int, int]]:
    blocks, counts = pairs.blocks(side)
    found = [pairs.within(first, second, side) for first, second in blocks.tolist()]
    assert [len(one) for one in found] == counts.tolist()
    assert all(((one // side).min(1) == first).all() and ((one // side).max(1) == second).all()
               for one, (first, second) in zip(found, blocks.tolist(), strict=True))  # fmt: skip
    return [(fixed, moving) for one in found for fixed, moving in one.tolist()]


@pytest.mark.parametrize("side", [1, 2, 4, 11, 50])
@pytest.mark.parametrize("design", DESIGNS)
def test_blocks_share_out_every_pair_once(design: str, side: int) -> None:
    pairs = select_pairs(design, NAMES, 3)
    found = all_of(pairs, side)
    assert len(set(found)) == len(found) == pairs.n_pairs
    if design in DESIGNS[:6]:
        assert set(found) == written_out(design)
    else:
        assert set(found) == set(all_of(pairs, 1))


@pytest.mark.parametrize("side", [1, 3, 4, 11])
@pytest.mark.parametrize("design", DESIGNS)
def test_blocks_are_counted_without_being_made(design: str, side: int) -> None:
    pairs = select_pairs(design, NAMES, 3)
    blocks, _ = pairs.blocks(side)
    assert len(blocks) <= pairs.tile_count(side) <= len(blocks) + len(NAMES)


def test_both_ways_lie_in_one_block() -> None:
    blocks, _ = select_pairs("all", NAMES, 0).blocks(4)
    assert (blocks[:, 0] <= blocks[:, 1]).all()
    assert [0, 5] in select_pairs("all", NAMES, 0).within(0, 1, 4).tolist()
    assert [5, 0] in select_pairs("all", NAMES, 0).within(0, 1, 4).tolist()


def test_regular_pairs_use_every_subject_alike() -> None:
    pairs = select_pairs("regular:4", NAMES, 7)
    assert isinstance(pairs, Listed)
    assert (np.bincount(pairs.pairs[:, 0]) == 4).all()
    assert (np.bincount(pairs.pairs[:, 1]) == 4).all()
    assert pairs.digest == select_pairs("regular:4", NAMES, 7).digest
    assert pairs.digest != select_pairs("regular:4", NAMES, 8).digest


@pytest.mark.parametrize(
    ("design", "message"),
    [
        ("regular:0", "needs K from 1 to 10 for 11 subjects, got '0'"),
        ("regular:11", "needs K from 1 to 10"),
        ("between:a*", "needs two patterns of ids"),
        ("between:a*,x*", "no subject matches 'x\\*'; some: b00, a01, a02"),
        ("between:a01,a01", "both patterns name a01 alone"),
    ],
)
def test_designs_that_give_nothing_are_refused(design: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        select_pairs(design, NAMES, 0)
    assert caught.value.code == "E_PAIRS"


LARGE = """
from cohort.engine.pairs import select_pairs
from cohort.engine.tiles import Tiles, tile_side
from cohort.studies.bench.machine import forget_peak, peak_bytes
names = tuple(f"s{number:05d}" for number in range(10_001))
before = forget_peak()
pairs = select_pairs("all", names, 0)
tiles = Tiles.of(pairs, names, tile_side(pairs, len(names), workers=64), 900)
grown = (peak_bytes() - before) / 2**20
print(pairs.n_pairs, tiles.n_pairs, len(tiles.tile(len(tiles) // 2).pairs) > 0, 0 < grown < 200)
"""


def test_a_hundred_million_pairs_take_little_memory() -> None:
    said = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["100010000", "100010000", "True", "True"]
