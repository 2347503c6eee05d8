"""Convolutions with the same bits on each call, on a GPU too."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def repeatable() -> Iterator[None]:
    """Whatever the process has set, cuDNN calculates in float32 and takes algorithms of one result.

    Else a card may round to TF32 where another does not, and choose by what is fast at the moment.
    """
    exact = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with exact:
        yield
