"""One step of a training by several processes: each takes its share, and all add up gradients."""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


def check_shares(count: int) -> None:
    """Raise ``ValueError`` unless all processes of the group get as many of ``count`` items."""
    processes = _processes()
    if count < 1 or count % processes:
        raise ValueError(
            f"PDDTraining: pairs must be a multiple of the {processes} processes, got {count}"
        )


def own_share(items: Sequence[Item]) -> Sequence[Item]:
    """What this process does of what all of the group do; everything without a group."""
    return items[dist.get_rank() :: _processes()] if _processes() > 1 else items


def add_over_processes(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over the processes of the group, in one message."""
    if _processes() == 1:
        return
    together = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(together)
    parts = together.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
