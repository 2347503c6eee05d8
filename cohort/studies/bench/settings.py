"""What is asked of the study, and the cells that this gives."""

import hashlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from cohort.engine.spec import Device
from cohort.errors import UsageError

Shape = tuple[int, int, int]
SMALL: tuple[Shape, ...] = ((96, 80, 128), (96, 112, 96))
SHAPES: tuple[Shape, ...] = (*SMALL, (160, 192, 224), (192, 160, 256))
METHODS = ("voxelopt", "pdd_net", "dio")
_CARD_BATCHES = (1, 4, 16)


@dataclass(frozen=True)
class Variant:
    """A method by name with ``KEY=VALUE`` settings, as ``--method`` and ``--set`` take them."""

    method: str
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As tables and files call it."""
        return " ".join((self.method, *self.settings))


@dataclass(frozen=True)
class Cell:
    """What one process measures: a method at a shape, on a device, so many pairs at once."""

    variant: Variant
    shape: Shape
    device: Device
    batch: int

    @property
    def key(self) -> str:
        """Name of its file."""
        return f"cell {self.variant.name} {size_text(self.shape)} {self.device} {self.batch}"


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What is measured.

    Attributes:
        variants: the methods.
        shapes: of the volumes; with a store its own.
        batches: pairs registered at once; empty for 1 on a CPU and 1, 4, 16 on a GPU.
        device: where methods run.
        workers: for whole runs, one after the other.
        repeats: of each cell, at least.
        pairs: different ones that repeats go through in turn.
        subjects: of the whole runs, which register all ordered pairs of them.
        store: a cohort to take pairs from; None for synthetic heads.
        pairs_file: CSV with columns ``fixed,moving``, for a store.
        compiles: whether compilation without kept kernels is measured too.
        peers: an interpreter that has other registration tools, to measure those too.
    """

    variants: tuple[Variant, ...] = tuple(Variant(name) for name in METHODS)
    shapes: tuple[Shape, ...] = SHAPES
    batches: tuple[int, ...] = ()
    device: Device = "cpu"
    workers: tuple[int, ...] = (1, 2)
    repeats: int = 5
    pairs: int = 2
    subjects: int = 6
    store: str | None = None
    pairs_file: Path | None = None
    compiles: bool = True
    peers: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("repeats", 5), ("pairs", 1), ("subjects", 2)):
            if getattr(self, name) < least:
                raise UsageError("E_BENCH", f"--{name} {getattr(self, name)}: need {least} or more")
        if min((1, *self.batches, *self.workers)) < 1:
            raise UsageError("E_BENCH", "--batches and --workers: need numbers of 1 or more")
        if self.device not in get_args(Device):
            raise UsageError("E_BENCH", f"--device is {self.device!r}; need cpu or cuda")
        if not self.variants:
            raise UsageError("E_BENCH", f"no method was named; need some of {', '.join(METHODS)}")
        if self.pairs_file is not None and self.store is None:
            raise UsageError("E_BENCH", "--pairs-file names subjects of a store; need --store")
        if self.peers is not None and shutil.which(self.peers) is None:
            raise UsageError(
                "E_BENCH",
                f"--peers {self.peers}: no such program; need a Python that has the other tools",
            )

    def measured(self, store: str | None) -> dict[str, str]:
        """What no key says of a measurement: two calls in one folder share it.

        store: the address of the store, if there is one.
        """
        facts = {
            "--store": store or "synthetic heads",
            "--pairs": str(self.pairs),
            "--repeats": str(self.repeats),
        }
        if self.pairs_file is not None:
            digest = hashlib.sha256(self.pairs_file.read_bytes()).hexdigest()
            facts["--pairs-file"] = f"of sha256 {digest[:12]}"
        elif store is not None:
            facts["--pairs-file"] = "none"
        if self.peers is not None:
            facts["--peers"] = str(shutil.which(self.peers))
        return facts

    @property
    def methods(self) -> tuple[str, ...]:
        """Each once, whatever settings its variants have."""
        return tuple(dict.fromkeys(one.method for one in self.variants))

    @property
    def kernel_shapes(self) -> tuple[Shape, ...]:
        """At which kernels are timed: the first and the last."""
        return tuple(dict.fromkeys((self.shapes[0], self.shapes[-1])))

    def cells(self) -> Iterator[Cell]:
        """Small volumes first, so that much is known early."""
        batches = self.batches or (_CARD_BATCHES if self.device == "cuda" else (1,))
        for shape in self.shapes:
            for batch in batches:
                for variant in self.variants:
                    yield Cell(variant, shape, self.device, batch)


def size_text(shape: Shape) -> str:
    """As users write it: ``96x80x128``."""
    return "x".join(map(str, shape))


def parse_shapes(text: str) -> tuple[Shape, ...]:
    """``96x80x128,96x112x96``; sizes from 16 to 512.

    Raises:
        UsageError: ``E_BENCH`` for anything else.
    """
    shapes = []
    for one in text.split(","):
        sizes = one.strip().split("x")
        good = len(sizes) == 3 and all(s.isdecimal() and 16 <= int(s) <= 512 for s in sizes)
        if not good:
            raise UsageError(
                "E_BENCH",
                f"--shapes: {one.strip()!r} is no shape; need three sizes of 16 to 512 such as"
                " 96x80x128, several with commas between",
            )
        shapes.append((int(sizes[0]), int(sizes[1]), int(sizes[2])))
    return tuple(dict.fromkeys(shapes))


def parse_counts(option: str, text: str) -> tuple[int, ...]:
    """``1,4``: positive whole numbers.

    Raises:
        UsageError: ``E_BENCH`` for anything else.
    """
    numbers = [one.strip() for one in text.split(",")]
    if not all(one.isdecimal() and int(one) > 0 for one in numbers):
        raise UsageError(
            "E_BENCH", f"{option} {text}: need whole numbers above 0 with commas between"
        )
    return tuple(dict.fromkeys(map(int, numbers)))


def parse_methods(text: str) -> tuple[Variant, ...]:
    """``voxelopt,dio``.

    Raises:
        UsageError: ``E_BENCH`` for a method that there is not.
    """
    names = [one.strip() for one in text.split(",")]
    for name in names:
        if name not in METHODS:
            raise UsageError(
                "E_BENCH", f"--methods: unknown method {name!r}; known: {', '.join(METHODS)}"
            )
    return tuple(Variant(name) for name in dict.fromkeys(names))


def file_name(key: str) -> str:
    """A key as the name of a file: readable, and different for different keys."""
    digest = hashlib.blake2b(key.encode(), digest_size=4).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9]+', '_', key)[:80]}_{digest}.json"
