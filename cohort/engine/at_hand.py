"""What a worker keeps because it will be needed again, within a budget."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class AtHand(Generic[Key, Value]):
    """Values by key. The oldest goes first, but what the tiles at work name goes last.

    In the order of :class:`cohort.engine.tiles.Tiles` that is what the plan needs last: the columns
    of a panel are met again with every row, a row that has passed is not.

    Args:
        budget: how much may be kept.
        size_of: how much a value takes; asked when it is kept, and of all values with each tile, as
            they may grow.
        fewest: so many of the newest stay though they are more than the budget.
        parting: called with what goes.
    """

    def __init__(
        self,
        budget: int,
        size_of: Callable[[Value], int],
        fewest: int = 2,
        parting: Callable[[Key, Value], None] | None = None,
    ) -> None:
        self.budget, self.fewest = budget, fewest
        self._size_of, self._parting = size_of, parting
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._sizes: dict[Key, int] = {}
        self._held = 0  # their sum: to ask thousands with every new one would take milliseconds
        self._named: frozenset[Key] = frozenset()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    @property
    def size(self) -> int:
        """What is kept now takes."""
        return sum(map(self._size_of, self._kept.values()))

    def name(self, keys: Collection[Key]) -> None:
        """Say what the tiles at work, and next in line, need."""
        self._named = frozenset(keys)
        self._sizes = {key: self._size_of(value) for key, value in self._kept.items()}
        self._held = sum(self._sizes.values())

    def get(self, key: Key) -> Value | None:
        """A value, if it is there; it counts as the newest from now on."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def keep(self, key: Key, value: Value) -> None:
        """Keep a value, at the cost of others."""
        self.take(key)
        self._kept[key] = value
        self._sizes[key] = self._size_of(value)
        self._held += self._sizes[key]
        self.shrink(self.budget)

    def take(self, key: Key) -> Value | None:
        """A value, if it is there, which is kept no longer."""
        self._held -= self._sizes.pop(key, 0)
        return self._kept.pop(key, None)

    def drop_unnamed(self) -> None:
        """Let go of what nobody named, whatever it takes."""
        for key in self._kept.keys() - self._named:
            self.take(key)

    def shrink(self, budget: int) -> None:
        """Let go until no more than ``budget`` is kept."""
        if self._held <= budget:
            return
        movable = list(self._kept)[: max(len(self._kept) - self.fewest, 0)]
        for key in sorted(movable, key=self._named.__contains__):  # stable: the oldest first
            if self._held <= budget:
                return
            value = self._kept[key]
            self.take(key)
            if self._parting is not None:
                self._parting(key, value)
