"""How much memory the subjects that workers keep may take."""

from dataclasses import dataclass

import psutil
import torch

from cohort.engine.measured import Measured

_HOST_SHARE = 0.25  # of what is free when a worker starts; the rest is for the pairs themselves
_DEVICE_SHARE = 0.4  # of a card's free memory, the rest for batches of pairs


@dataclass(frozen=True)
class Budgets:
    """Bytes of subjects that a worker keeps.

    Attributes:
        device: where it registers.
        host: in the machine's memory, of what the device has no room for; 0 on CPUs.
    """

    device: int
    host: int = 0


def budgets_of(device: torch.device, workers: int, on_one_card: int = 1) -> Budgets:
    """What each of ``workers`` on this machine, of which some share a card, may keep of the memory
    that is free now."""
    host = int(psutil.virtual_memory().available * _HOST_SHARE / workers)
    if device.type == "cpu":
        return Budgets(host)
    free, _ = torch.cuda.mem_get_info()
    return Budgets(int(free * _DEVICE_SHARE / on_one_card), host)


def subjects_at_hand(measured: Measured, workers: int, on_one_card: int = 1) -> int:
    """How many subjects each of so many workers can keep; at least the two of a pair."""
    kind = "cuda" if measured.device_bytes else "cpu"
    budget = budgets_of(torch.device(kind), max(workers, 1), on_one_card).device
    return max(2, budget // max(measured.subject_bytes, 1))
