"""The subjects that a worker has ready: read ahead, prepared once, kept as long as they fit."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from cohort.engine.at_hand import AtHand
from cohort.engine.budgets import Budgets
from cohort.engine.scan import Scan
from cohort.errors import SubjectError
from triton_reg import Features
from triton_reg.ops.work_memory import forget_work

Timer = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A subject ready to be registered."""

    scan: Scan
    features: Features

    @property
    def size_bytes(self) -> int:
        """Memory held by the tensors."""
        return self.scan.size_bytes + sum(tensor.nbytes for tensor in self.features)

    def to(self, device: torch.device, *, pinned: bool = False) -> "Prepared":
        """The same on another device; on the host ``pinned``, so that the way back is short."""
        features = tuple(_moved(one, device, pinned) for one in self.features)
        return Prepared(scan_to(self.scan, device, pinned=pinned), features)


class Subjects:
    """A worker's subjects, by id.

    Reading goes ahead in a thread of its own; everything else is done by whoever asks.

    Args:
        prepare: makes the features of one.
        read: reads one; raises ``SubjectError`` for one that is broken.
        device: where they are prepared and registered.
        budgets: what may be kept.
        timed: a context that counts the time spent in it, by kind of work.
    """

    def __init__(
        self,
        prepare: Callable[[str, Scan], Features],
        read: Callable[[str], Scan],
        device: torch.device,
        budgets: Budgets,
        timed: Timer,
    ) -> None:
        self._features, self._read, self._device, self._timed = prepare, read, device, timed
        parting = self._to_host if budgets.host else None
        self._ready = AtHand[str, Prepared | SubjectError](budgets.device, _size, parting=parting)
        self._host = AtHand[str, Prepared | SubjectError](budgets.host, _size, fewest=0)
        self._ahead: dict[str, Future[Scan]] = {}
        self.prepared = 0  # how often a subject was
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def size(self) -> int:
        """Bytes that the subjects at hand take, where they are registered."""
        return self._ready.size

    def get(self, subject_id: str) -> Prepared:
        """A subject's scan and features, kept for the next pair that needs them.

        Raises:
            SubjectError: if the subject is broken, each time it is asked for.
        """
        kept = self._ready.get(subject_id)
        if kept is None:
            kept = self._from_host(subject_id) or self._prepare(subject_id)
            self._ready.keep(subject_id, kept)
        if isinstance(kept, SubjectError):
            # a new one each time: a traceback would hold on to the arrays of its frames
            raise SubjectError(kept.code, kept.message)
        return kept

    def name(self, subject_ids: Iterable[str], *, alone: bool = False) -> None:
        """Say what the tile at work needs; it is let go last, and all else at once if ``alone``."""
        self._ready.name(frozenset(subject_ids))
        if alone:
            self._ready.drop_unnamed()
            self._host.shrink(0)

    def read_ahead(self, subject_ids: Iterable[str]) -> None:
        """Begin to read what is not at hand; returns at once."""
        for subject_id in subject_ids:
            here = subject_id in self._ready or subject_id in self._host
            if not here and subject_id not in self._ahead:
                self._ahead[subject_id] = self._reader.submit(self._read, subject_id)

    def make_room(self) -> None:
        """Let go of all but the pair at work: memory has run out."""
        self._host.shrink(0)
        self._ready.shrink(0)
        if self._device.type == "cuda":
            self._host.shrink(0)  # what has just come from the device
            forget_work()
            torch.cuda.empty_cache()

    def _prepare(self, subject_id: str) -> Prepared | SubjectError:
        reading = self._ahead.pop(subject_id, None)
        try:
            with self._timed("read_s"):  # of what was read ahead, the waiting for it
                scan = self._read(subject_id) if reading is None else reading.result()
        except SubjectError as error:
            return SubjectError(error.code, error.message)
        with self._timed("prepare_s"):
            self.prepared += 1
            scan = scan_to(scan, self._device)
            return Prepared(scan, self._features(subject_id, scan))

    def _to_host(self, subject_id: str, value: Prepared | SubjectError) -> None:
        if isinstance(value, Prepared):
            value = value.to(torch.device("cpu"), pinned=True)
        self._host.keep(subject_id, value)

    def _from_host(self, subject_id: str) -> Prepared | SubjectError | None:
        value = self._host.take(subject_id)
        return value.to(self._device) if isinstance(value, Prepared) else value


def _size(value: Prepared | SubjectError) -> int:
    return value.size_bytes if isinstance(value, Prepared) else 0


def scan_to(scan: Scan, device: torch.device, *, pinned: bool = False) -> Scan:
    """A scan's volumes on another device; points and affines stay where they are, in float64."""
    moved = {
        one.name: _moved(value, device, pinned)
        for one in fields(scan)
        if isinstance(value := getattr(scan, one.name), Tensor) and not one.name.endswith("_mm")
    }
    return replace(scan, **moved)


def _moved(tensor: Tensor, device: torch.device, pinned: bool) -> Tensor:
    if tensor.device.type == device.type:
        return tensor
    moved = tensor.to(device, non_blocking=device.type == "cuda")
    return moved.pin_memory() if pinned and torch.cuda.is_available() else moved
