"""Sets of pairs that need not be listed: what a plan knows of them, block by block of subjects.

Subjects are indices into the run's subjects; a block of side ``B`` holds ``B`` of them in a row.
Pairs belong to the *unordered* two blocks of their subjects, so that (i, j) and (j, i) meet.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class PairSet(Protocol):
    """Ordered pairs ``(fixed, moving)`` of subject indices, each once and none with itself."""

    @property
    def n_pairs(self) -> int:
        """How many they are."""
        ...

    @property
    def digest(self) -> str:
        """sha256 that tells one set from another."""
        ...

    def tile_count(self, side: int) -> int:
        """In how many blocks of ``side`` x ``side`` subjects they lie, found without making any."""
        ...

    def blocks(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Blocks ``[T, 2]`` int32, the smaller number first, and their numbers of pairs ``[T]``."""
        ...

    def within(self, first: int, second: int, side: int) -> np.ndarray:
        """The pairs ``[P, 2]`` of one block, sorted."""
        ...


@dataclass(frozen=True, eq=False)
class Product:
    """Every fixed subject with every moving one.

    Attributes:
        fixed, moving: sorted subject indices, int32.
        upward: only the pairs whose fixed subject is the earlier one.
    """

    fixed: np.ndarray
    moving: np.ndarray
    upward: bool = False

    @property
    def n_pairs(self) -> int:
        """How many they are."""
        both = len(np.intersect1d(self.fixed, self.moving, assume_unique=True))
        if self.upward:
            return int((len(self.moving) - self._after(self.fixed)).sum())
        return len(self.fixed) * len(self.moving) - both

    @property
    def digest(self) -> str:
        """sha256 that tells one set from another."""
        said = ["product", self.fixed.tolist(), self.moving.tolist(), self.upward]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def tile_count(self, side: int) -> int:
        """In how many blocks they lie; blocks whose every pair is left out are counted too."""
        fixed, moving = np.unique(self.fixed // side), np.unique(self.moving // side)
        both = len(np.intersect1d(fixed, moving, assume_unique=True))
        # a block of two that both sides have is met twice, as is none on the diagonal
        return len(fixed) * len(moving) - both * (both - 1) // 2

    def blocks(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Blocks ``[T, 2]`` int32, the smaller number first, and their numbers of pairs ``[T]``."""
        fixed, moving = np.unique(self.fixed // side), np.unique(self.moving // side)
        first, second = (one.ravel() for one in np.meshgrid(fixed, moving, indexing="ij"))
        size = int(max(fixed.max(), moving.max())) + 1
        codes = np.unique(np.minimum(first, second).astype(np.int64) * size
                          + np.maximum(first, second))  # fmt: skip
        found = np.stack(np.divmod(codes, size), axis=1).astype(np.int32)
        counts = self._counts(found, size, side)
        return found[counts > 0], counts[counts > 0]

    def within(self, first: int, second: int, side: int) -> np.ndarray:
        """The pairs ``[P, 2]`` of one block, sorted."""
        parts = [self._crossed(first, second, side)]
        if first != second:
            parts.append(self._crossed(second, first, side))
        pairs = np.concatenate(parts)
        return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]

    def _after(self, subjects: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.moving, subjects, side="right")

    def _counts(self, blocks: np.ndarray, size: int, side: int) -> np.ndarray:
        fixed = np.bincount(self.fixed // side, minlength=size).astype(np.int64)
        moving = np.bincount(self.moving // side, minlength=size).astype(np.int64)
        first, second = blocks.T
        on_diagonal = first == second
        both = np.intersect1d(self.fixed, self.moving, assume_unique=True)
        alone = np.bincount(both // side, minlength=size)[first]
        square = fixed[first] * moving[second]
        if self.upward:  # only `unordered` asks for it: both sides are the same subjects
            return np.where(on_diagonal, (square - alone) // 2, square)
        return np.where(on_diagonal, square - alone, square + fixed[second] * moving[first])

    def _crossed(self, row: int, column: int, side: int) -> np.ndarray:
        """Pairs with the fixed subject in block ``row``, the moving one in block ``column``."""
        fixed, moving = _inside(self.fixed, row, side), _inside(self.moving, column, side)
        pairs = np.stack([np.repeat(fixed, len(moving)), np.tile(moving, len(fixed))], axis=1)
        kept = pairs[:, 0] < pairs[:, 1] if self.upward else pairs[:, 0] != pairs[:, 1]
        return pairs[kept]


@dataclass(frozen=True, eq=False)
class Listed:
    """Pairs that follow no rule, kept in memory.

    Attributes:
        pairs: ``[P, 2]`` int32.
    """

    pairs: np.ndarray
    _by_block: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, init=False)

    @property
    def n_pairs(self) -> int:
        """How many they are."""
        return len(self.pairs)

    @property
    def digest(self) -> str:
        """sha256 that tells one set from another; their order counts too."""
        return hashlib.sha256(np.ascontiguousarray(self.pairs).tobytes()).hexdigest()

    def tile_count(self, side: int) -> int:
        """In how many blocks they lie."""
        return len(np.unique(self._codes(side)))

    def blocks(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Blocks ``[T, 2]`` int32, the smaller number first, and their numbers of pairs ``[T]``."""
        codes, counts = np.unique(self._codes(side), return_counts=True)
        return np.stack(np.divmod(codes, 2**31), axis=1).astype(np.int32), counts

    def within(self, first: int, second: int, side: int) -> np.ndarray:
        """The pairs ``[P, 2]`` of one block, sorted."""
        codes, order = self._sorted(side)
        start, stop = np.searchsorted(codes, first * 2**31 + second + np.arange(2))
        pairs = self.pairs[order[start:stop]]
        return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]

    def _codes(self, side: int) -> np.ndarray:
        blocks = self.pairs.astype(np.int64) // side
        return blocks.min(1) * 2**31 + blocks.max(1)

    def _sorted(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Block codes in order and where each pair stands; kept, as every tile asks for it."""
        if side not in self._by_block:
            codes = self._codes(side)
            order = np.argsort(codes, kind="stable")
            self._by_block[side] = codes[order], order
        return self._by_block[side]


def _inside(subjects: np.ndarray, block: int, side: int) -> np.ndarray:
    start, stop = np.searchsorted(subjects, (block * side, (block + 1) * side))
    return subjects[start:stop]
