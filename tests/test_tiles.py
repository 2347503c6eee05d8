"""Tiles: how large, in what order, and what is left."""

import numpy as np
import pytest

from cohort.engine.pairs import select_pairs
from cohort.engine.tiles import Tiles, panel_width, tile_side
from cohort.errors import UsageError


def names(count: int) -> tuple[str, ...]:
    return tuple(f"s{number:05d}" for number in range(count))


def cut(count: int, side: int, at_hand: int = 0, design: str = "all") -> Tiles:
    return Tiles.of(select_pairs(design, names(count), 0), names(count), side, at_hand)


def test_panels_keep_their_columns_and_turn_at_each_end() -> None:
    tiles = cut(8, 2, at_hand=8)  # two columns of two subjects, and room for the rows
    assert [tiles.id_of(one)[4::6] for one in range(len(tiles))] == [
        "00", "01", "11", "33", "22", "23", "12", "13", "02", "03"]  # fmt: skip


def test_the_order_changes_no_tile() -> None:
    one, other = cut(20, 3, 0), cut(20, 3, 15)
    assert sorted(map(str, one)) == sorted(map(str, other))
    assert [tile.tile_id for tile in one] != [tile.tile_id for tile in other]


def test_tiles_that_are_done_are_left_out() -> None:
    tiles = cut(9, 2, 9)
    done = {tiles.id_of(0), tiles.id_of(4)}
    left = tiles.without(done)
    assert [one.tile_id for one in left] == [
        one.tile_id for one in tiles if one.tile_id not in done
    ]
    assert left.n_pairs == tiles.n_pairs - len(tiles.tile(0).pairs) - len(tiles.tile(4).pairs)
    assert left.named(tiles.id_of(4)) == tiles.tile(4)


@pytest.mark.parametrize(
    ("count", "seconds", "workers", "longest", "fewest"),
    [
        (24, 0.5, 2, 60, 40),
        (414, 0.25, 8, 60, 160),
        (414, 0.002, 64, 60, 1280),
        (10_000, 0.25, 64, 61, 1280),  # no more than half a million files
    ],
)
def test_tiles_take_at_most_a_minute_and_are_twenty_a_worker(
    count: int, seconds: float, workers: int, longest: float, fewest: int
) -> None:
    pairs = select_pairs("all", names(count), 0)
    side = tile_side(pairs, count, seconds, workers)
    tiles, larger = (Tiles.of(pairs, names(count), one) for one in (side, side + 1))
    assert tiles.n_pairs / len(tiles) * seconds <= longest
    assert len(tiles) >= fewest
    # and no smaller than that asks for
    assert len(larger) < fewest or larger.n_pairs / len(larger) * seconds > 60


@pytest.mark.parametrize("design", ["all", "unordered", "to:s3", "random:12"])
def test_the_tiles_around_a_subject_have_all_its_pairs(design: str) -> None:
    names = tuple(f"s{number}" for number in range(9))
    tiles = Tiles.of(select_pairs(design, names, 0), names, 2)
    near = {pair for tile in tiles.around("s3") for pair in tile.pairs}
    own = {pair for tile in tiles for pair in tile.pairs if "s3" in pair}
    assert own <= near
    assert len(list(tiles.around("s3"))) <= 5  # of 15


def test_tiles_are_few_enough_to_be_files_and_small_enough_for_memory() -> None:
    pairs = select_pairs("all", names(100_000), 0)
    assert len(Tiles.of(pairs, names(100_000), tile_side(pairs, 100_000, 0.25, 512))) <= 500_000
    some = select_pairs("all", names(200), 0)
    assert tile_side(some, 200, seconds_a_pair=0.001, workers=1, fit=8) == 4


def test_millions_of_files_are_refused_with_a_size_that_would_do() -> None:
    with pytest.raises(UsageError, match=r"50,005,000 files; need at most 5,000,000: .* such as"):
        cut(10_000, 1)


def test_a_panel_is_no_wider_than_reading_pays() -> None:
    assert panel_width(10_000, 64, fit=10_000) == 884
    assert panel_width(10_000, 64, fit=300) == 300
    assert panel_width(3, 64, fit=300) == 2


def test_subjects_of_a_tile_are_named_once() -> None:
    tiles = cut(6, 2, design="random:9")
    for tile in tiles:
        assert sorted(tile.subject_ids) == sorted({one for pair in tile.pairs for one in pair})
    assert int(np.sum(tiles.counts)) == 9
