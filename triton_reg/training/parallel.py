"""One step of a training by several processes: each takes its share, and all add up gradients."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

Item = TypeVar("Item")
# the others wait while the first scores; torch gives up after half an hour, or ten minutes
_LONGEST_WAIT = timedelta(days=1)


class ProcessesLostError(RuntimeError):
    """Another process of the group is gone, so that there is no next step."""


@contextmanager
def group_of_torchrun(device: str) -> Iterator[torch.device]:
    """Join the processes that ``torchrun`` started with this one; without it, train alone.

    Args:
        device: ``"cpu"``, or ``"cuda"``: each process then has a GPU of its own.

    Yields:
        The device of this process.
    """
    if not dist.is_torchelastic_launched():
        yield torch.device(device)
        return
    # processes that --max-restarts starts get the store of those before, where they would find, and
    # wait for, the addresses of processes that are gone
    store, rank, size = next(rendezvous("env://", timeout=_LONGEST_WAIT))
    own_store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=own_store, rank=rank, world_size=size, timeout=_LONGEST_WAIT
    )
    try:
        own = torch.device(device)
        if device == "cuda":
            own = torch.device(device, dist.get_rank() % torch.cuda.device_count())
            torch.cuda.set_device(own)
        yield own
    finally:
        dist.destroy_process_group()


def leads() -> bool:
    """Whether this is the one process of its group that writes and speaks."""
    return _processes() == 1 or dist.get_rank() == 0


def wait_for_all() -> None:
    """Until every process of the group is here.

    Raises:
        ProcessesLostError: if one of them is gone.
    """
    if _processes() > 1:
        with _losses_named():
            dist.barrier()


def check_shares(count: int) -> None:
    """Raise ``ValueError`` unless all processes of the group get as many of ``count`` items."""
    processes = _processes()
    if count < 1 or count % processes:
        raise ValueError(
            f"training: pairs must be a multiple of the {processes} processes, got {count}"
        )


def own_share(items: Sequence[Item]) -> Sequence[Item]:
    """What this process does of what all of the group do; everything without a group."""
    return items[dist.get_rank() :: _processes()] if _processes() > 1 else items


def add_over_processes(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over the processes of the group, in one message.

    Raises:
        ProcessesLostError: if one of them is gone.
    """
    if _processes() == 1:
        return
    together = torch.cat([tensor.flatten() for tensor in tensors])
    with _losses_named():
        dist.all_reduce(together)
    parts = together.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


@contextmanager
def _losses_named() -> Iterator[None]:
    """Whatever a message between processes raises, as what it means; torch has no type for it."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition(". ")[0]  # the rest is advice to torch's own developers
        raise ProcessesLostError(f"another process of this training is gone: {reason}") from error


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
