"""Work memory of GPU operations, with the launches captured on it, that stays for the next call."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

import torch

Work = TypeVar("Work")
_SHARE = 4  # of a device's memory, one part in so many for all that is kept on it
_MOST = 16  # each has graphs too, whose memory nobody tells
_ON_HOST = 2**33  # what counts as a device's memory where there is none

_kept: OrderedDict[Hashable, tuple[int, object]] = OrderedDict()
_lock = threading.Lock()


def kept_work(
    key: Hashable, size_bytes: int, device: torch.device, make: Callable[[], Work]
) -> Work:
    """What was kept under a key on the current stream, or else what ``make`` makes.

    What was used longest ago is let go first, so that all that is kept fits into a quarter of the
    device's memory; what is asked for is kept in any case.

    Args:
        key: what the work depends on, and whose it is.
        size_bytes: of the memory that it holds.
        device: where it lies.
        make: called where nothing is kept.
    """
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    whole = (key, device, stream)
    with _lock:
        if whole not in _kept:
            _let_go(_most_bytes(device) - size_bytes)
            _kept[whole] = size_bytes, make()
        _kept.move_to_end(whole)
        return _kept[whole][1]  # type: ignore[return-value]


def kept_keys() -> list[Hashable]:
    """The keys of what is kept, the oldest first."""
    with _lock:
        return [key for key, _, _ in _kept]  # type: ignore[misc]


def forget_work() -> None:
    """Let go of all that is kept; the next call of each operation makes its own again."""
    with _lock:
        _kept.clear()


def _let_go(most_bytes: int) -> None:
    """Until what is left has at most so many bytes, and one more is not too many."""
    while _kept and (len(_kept) >= _MOST or sum(size for size, _ in _kept.values()) > most_bytes):
        _kept.popitem(last=False)


def _most_bytes(device: torch.device) -> int:
    whole = _ON_HOST
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
    return whole // _SHARE
