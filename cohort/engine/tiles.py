"""Tiles: blocks of pairs, and the order in which they are worked on."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cohort.engine.designs import PairSet
from cohort.errors import UsageError

_TILE_S = 60.0  # at most; what a worker's death costs, and what a driver waits for at the end
_TILES_A_WORKER = 20  # at least, so that all workers end together
_MOST_TILES = 500_000  # files in a run
_TOO_MANY = 5_000_000
_WIDEST = 512  # subjects: a square of them takes minutes at the fastest


@dataclass(frozen=True)
class Tile:
    """A block of pairs: the unit of work, of commit and of resume.

    Attributes:
        tile_id: its block, ``00003-00017``; also the name of its part.
        pairs: ``(fixed, moving)`` subject ids, sorted.
    """

    tile_id: str
    pairs: tuple[tuple[str, str], ...]

    @property
    def subject_ids(self) -> tuple[str, ...]:
        """The subjects of the tile, each once."""
        return tuple(dict.fromkeys(subject for pair in self.pairs for subject in pair))


@dataclass(frozen=True, eq=False)
class Tiles:
    """All tiles of a run in an order that lets subjects be used again while they are at hand.

    Attributes:
        pairs: what is cut into tiles.
        subject_ids: their names, by index.
        side: of a block, in subjects.
        blocks: ``[T, 2]`` int32 in the order of work.
        counts: ``[T]``, the pairs of each.
    """

    pairs: PairSet
    subject_ids: tuple[str, ...]
    side: int
    blocks: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(
        cls, pairs: PairSet, subject_ids: tuple[str, ...], side: int, at_hand: int = 0
    ) -> "Tiles":
        """Cut ``pairs`` into tiles.

        Args:
            pairs: indices into ``subject_ids``.
            subject_ids: of the run.
            side: of a block, in subjects.
            at_hand: subjects that a worker keeps. Tiles come in panels of as many columns as that
                holds, and run up and down their rows: the columns stay, the rows stream past.

        Raises:
            UsageError: ``E_TILES`` if there would be millions of files.
        """
        if pairs.tile_count(side) > _TOO_MANY:
            raise UsageError(
                "E_TILES",
                f"tiles of side {side} would be {pairs.tile_count(side):,} files; need at most"
                f" {_TOO_MANY:,}: use a larger --tile-size, such as"
                f" {tile_side(pairs, len(subject_ids))}",
            )
        blocks, counts = pairs.blocks(side)
        order = _panel_order(blocks, max(at_hand // side - 2, 1))  # two for the rows
        return cls(pairs, subject_ids, side, blocks[order], counts[order])

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[Tile]:
        return map(self.tile, range(len(self)))

    @property
    def n_pairs(self) -> int:
        """Of all tiles."""
        return int(self.counts.sum())

    def id_of(self, position: int) -> str:
        """The id of the tile at a place in the order of work."""
        first, second = self.blocks[position].tolist()
        return f"{first:05d}-{second:05d}"

    def tile(self, position: int) -> Tile:
        """The tile at a place in the order of work."""
        return self.named(self.id_of(position))

    def named(self, tile_id: str) -> Tile:
        """The tile of an id."""
        first, second = map(int, tile_id.split("-"))
        rows = self.pairs.within(first, second, self.side).tolist()
        names = self.subject_ids
        return Tile(tile_id, tuple((names[fixed], names[moving]) for fixed, moving in rows))

    def around(self, subject_id: str) -> Iterator[Tile]:
        """All tiles that a pair of one subject can be in, without a look at the others."""
        block = self.subject_ids.index(subject_id) // self.side
        return map(self.tile, np.flatnonzero((self.blocks == block).any(axis=1)).tolist())

    def without(self, tile_ids: set[str]) -> "Tiles":
        """Those that are still to be done, in the same order."""
        codes = {self._code(*map(int, one.split("-"))) for one in tile_ids}
        done = np.isin(self._codes, np.fromiter(codes, np.int64, len(codes)))
        return Tiles(
            self.pairs, self.subject_ids, self.side, self.blocks[~done], self.counts[~done]
        )

    @cached_property
    def _codes(self) -> np.ndarray:
        return self.blocks[:, 0].astype(np.int64) * 2**31 + self.blocks[:, 1]

    @staticmethod
    def _code(first: int, second: int) -> int:
        return first * 2**31 + second


def tile_side(
    pairs: PairSet, subjects: int, seconds_a_pair: float = 0.25, workers: int = 1, fit: int = 0
) -> int:
    """Side of a tile in subjects.

    The largest whose tiles take at most a minute each and are at least 20 for each worker, so that
    a death costs little and all workers end together; but so large that no more than half a million
    files are written, and so small that a tile's subjects fit.

    Args:
        pairs: of the run.
        subjects: of the run.
        seconds_a_pair: of one worker.
        workers: that the run is planned for.
        fit: subjects that a worker can keep; 0 if that is not known.
    """
    most = min(_WIDEST, subjects, fit // 2 if fit else subjects)
    needed = max(_TILES_A_WORKER * workers, pairs.n_pairs * seconds_a_pair / _TILE_S)
    return max(_largest(pairs, needed, most), _smallest(pairs, subjects), 1)


def _largest(pairs: PairSet, needed: float, most: int) -> int:
    """The largest side, up to ``most``, that gives at least ``needed`` tiles; else 1."""
    low, high = 1, max(most, 1)
    while low < high:  # more tiles the smaller they are
        middle = (low + high + 1) // 2
        low, high = (middle, high) if pairs.tile_count(middle) >= needed else (low, middle - 1)
    return low


def _smallest(pairs: PairSet, subjects: int) -> int:
    """The smallest side that gives no more files than a run should have."""
    low, high = 1, subjects
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if pairs.tile_count(middle) <= _MOST_TILES else (middle + 1, high)
    return low


def _panel_order(blocks: np.ndarray, width: int) -> np.ndarray:
    """Panels of ``width`` columns, rows up in one and down in the next."""
    row, column = blocks.T.astype(np.int64)
    panel = column // width
    return np.lexsort((column, np.where(panel % 2 == 0, row, -row), panel))


def panel_width(subjects: int, workers: int, fit: int) -> int:
    """Subjects that a worker should keep at hand: what fits, and no more than reading pays.

    With ``P`` workers and ``M`` columns at hand ``N^2 / 2M + P M`` subjects are read, which is
    least at ``N / sqrt(2 P)``.
    """
    return max(2, min(fit, math.ceil(subjects / math.sqrt(2 * workers))))
