"""Pairs that do not fit into memory: with less of it held, and fewer at a time, they may."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")
Row = TypeVar("Row")
# how torch says so of main memory, for which it has no class of its own, and CUDA and triton of a
# device's, past torch's
_SENTENCES = (
    "not enough memory", "can't allocate memory", "Cannot allocate memory", "out of memory",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, on the host or on a device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(one in str(error) for one in _SENTENCES)


def in_less_memory(
    work: Callable[[Sequence[Item]], list[Row]],
    items: Sequence[Item],
    make_room: Callable[[Sequence[Item]], None],
    give_up: Callable[[Item], Row],
) -> list[Row]:
    """Work on items together; where memory is short, once more with room, in halves.

    Args:
        work: rows of so many items; raises what :func:`is_out_of_memory` knows.
        items: a batch.
        make_room: lets go of all that these items can do without.
        give_up: the row of an item that does not even fit alone.
    """
    rows = _tried(work, items)
    if rows is not None:
        return rows
    make_room(items)  # here, where no traceback holds on to what the first try had made
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if len(items) > 1:
        middle = len(items) // 2
        halves = (items[:middle], items[middle:])
        return [row for half in halves for row in in_less_memory(work, half, make_room, give_up)]
    rows = _tried(work, items)
    return [give_up(items[0])] if rows is None else rows


def _tried(work: Callable[[Sequence[Item]], list[Row]], items: Sequence[Item]) -> list[Row] | None:
    try:
        return work(items)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None
