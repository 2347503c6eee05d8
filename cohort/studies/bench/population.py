"""The pairs that are measured: synthetic heads with labels and truth, or a store's subjects."""

import math
import shutil
from itertools import islice, permutations
from pathlib import Path
from typing import NamedTuple

from cohort.data.ingest import ingest
from cohort.data.ingest_settings import IngestSettings
from cohort.data.store import CohortStore
from cohort.data.synth import SynthSettings, synthesise_population
from cohort.engine.designs import Listed
from cohort.engine.pairs import select_pairs
from cohort.studies.bench.settings import BenchSettings, Shape, size_text

_LONGEST_MM = 200.0  # side of the field of view: the same heads at every shape
_DEFORMATION_MM = 5.0
_MOST = 30  # pairs of a whole run on a store, unless a file names them

Pair = tuple[str, str]


class Pairs(NamedTuple):
    """Where subjects are, and which of them are registered to which.

    Attributes:
        store: its address.
        shape: of its volumes.
        pairs: (fixed, moving) of the cells.
        run: the pairs of whole runs, as ``cohort register --pairs`` takes them.
    """

    store: str
    shape: Shape
    pairs: tuple[Pair, ...]
    run: str


def subjects_needed(settings: BenchSettings, shape: Shape) -> int:
    """Heads at a shape: for the cells' pairs, and at the first shape for whole runs."""
    count = _subjects_of(settings.pairs)
    return max(count, settings.subjects) if shape == settings.shapes[0] else count


def _subjects_of(pairs: int) -> int:
    """The fewest subjects that have so many ordered pairs."""
    return math.ceil((1 + math.sqrt(1 + 4 * pairs)) / 2)


def heads_missing(out: Path, settings: BenchSettings) -> dict[Shape, int]:
    """How many heads are yet to be made at each shape."""
    needed = {shape: subjects_needed(settings, shape) for shape in settings.shapes}
    return {shape: count for shape, count in needed.items() if _heads_of(_path(out, shape)) < count}


def synthetic_pairs(out: Path, settings: BenchSettings, shape: Shape) -> Pairs:
    """Heads at a shape, made once and kept in ``out/populations``.

    Raises:
        UsageError: ``E_SYNTH_SETTINGS`` for a shape that no head fits.
    """
    path, count = _path(out, shape), subjects_needed(settings, shape)
    if _heads_of(path) < count:
        _make(path, shape, count)
    store = CohortStore.open(path)
    first = permutations(store.subject_ids[: _subjects_of(settings.pairs)], 2)
    return Pairs(store.address, shape, tuple(islice(first, settings.pairs)), "all")


def _path(out: Path, shape: Shape) -> Path:
    return out / "populations" / size_text(shape) / "cohort.zarr"


def _heads_of(path: Path) -> int:
    return len(CohortStore.open(path).subject_ids) if path.exists() else 0


def _make(path: Path, shape: Shape, count: int) -> None:
    spacing_mm = round(_LONGEST_MM / max(shape), 2)
    most_mm = 0.05 * min(shape) * spacing_mm
    heads = SynthSettings(
        subjects=count,
        shape=shape,
        spacing_mm=spacing_mm,
        deformation_mm=min(_DEFORMATION_MM, most_mm),
    )
    files = path.with_name(f"nifti-{count}")
    synthesise_population(files, heads)
    like = files / "images" / f"{heads.subject_ids[0]}.nii.gz"
    ingest(files, path, IngestSettings(like=like))
    shutil.rmtree(files)


def stored_pairs(settings: BenchSettings) -> Pairs:
    """The pairs of a store that was named: those of its file, or its first.

    Raises:
        UsageError: ``E_STORE`` or ``E_PAIRS`` as those say what is wrong with them.
    """
    assert settings.store is not None
    store = CohortStore.open(settings.store)
    names, file = store.subject_ids, settings.pairs_file
    every = select_pairs(str(file) if file else "all", names, 0)
    listed = permutations(names, 2)
    if isinstance(every, Listed):
        listed = ((names[fixed], names[moving]) for fixed, moving in every.pairs.tolist())
    run = str(file) if file else "all" if every.n_pairs <= _MOST else f"random:{_MOST}"
    return Pairs(store.address, store.grid.shape, tuple(islice(listed, settings.pairs)), run)
