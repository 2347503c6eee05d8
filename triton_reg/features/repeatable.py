"""Convolutions with the same bits on each call, whatever the process has set."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """What is float32 on the device is calculated in it, and cuDNN takes algorithms of one result.

    Else a card may round to TF32 where another does not, and choose by what is fast at the moment,
    and an autocast of the caller would round to 16 bits.
    """
    exact = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with exact, torch.autocast(device.type, enabled=False):
        yield
