"""Who works on a run: this process, processes of this machine, or those of a Dask scheduler."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from cohort.errors import UsageError


@dataclass(frozen=True)
class Team:
    """The workers that a driver is given.

    Attributes:
        workers: processes on this machine; 0 for a plain loop in this one.
        gpus: for each worker the number of its card; the same number twice puts two on one card.
        scheduler: address of a Dask scheduler that has the workers, or its scheduler file.
        insecure_network: whether that may be reached over a network without TLS.
    """

    workers: int = 0
    gpus: tuple[int, ...] = ()
    scheduler: str | Path | None = None
    insecure_network: bool = False

    def __post_init__(self) -> None:
        if self.gpus and self.scheduler is not None:
            raise UsageError(
                "E_TEAM", "--gpus starts workers here and --scheduler has its own; need one of them"
            )

    @property
    def size(self) -> int:
        """Workers that are started here."""
        return len(self.gpus) or self.workers

    @property
    def on_one_card(self) -> int:
        """Workers that share a card, where they share most."""
        return max(Counter(self.gpus).values(), default=1)

    def no_more_than(self, tiles: int) -> "Team":
        """The team without workers here that would find nothing to do."""
        return replace(self, workers=min(self.workers, tiles), gpus=self.gpus[:tiles])

    @property
    def is_plain(self) -> bool:
        """Whether all is done in this process."""
        return self.scheduler is None and not self.size


PLAIN = Team()  # everything in this process


def parse_gpus(text: str, available: int) -> tuple[int, ...]:
    """The cards that ``all`` or ``0,1`` means.

    Raises:
        UsageError: ``E_DEVICE`` if there is none, or not that one.
    """
    if not available:
        raise UsageError("E_DEVICE", f"--gpus {text}: torch finds no GPU here")
    if text == "all":
        return tuple(range(available))
    numbers = [one.strip() for one in text.split(",")]
    if not all(one.isdecimal() and int(one) < available for one in numbers):
        raise UsageError(
            "E_DEVICE",
            f"--gpus {text}: need all, or numbers from 0 to {available - 1} with commas between",
        )
    return tuple(map(int, numbers))
