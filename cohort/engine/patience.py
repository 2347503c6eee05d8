"""A file system that fails for a moment: once more after a while, and then it is an error.

Nothing that it does becomes a row: a run that cannot read or write stops, and goes on later.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from cohort.errors import StorageError

_BACK_OFF_S = 0.5
Value = TypeVar("Value")


def once_more(work: Callable[[], Value]) -> Value:
    """What ``work`` returns, the second time if storage failed the first.

    Raises:
        StorageError: what ``work`` raised the second time.
    """
    try:
        return work()
    except StorageError:
        time.sleep(_BACK_OFF_S)
    return work()
