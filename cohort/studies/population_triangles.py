"""Triangle and inverse-consistency errors of a seeded sample, registered once more for that."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from cohort.data.one_thread import one_thread
from cohort.data.processes import in_processes
from cohort.data.storage import storage_error, to_json, write_once
from cohort.engine.opening import Opening
from cohort.engine.registered_pair import spacing_on
from cohort.engine.spec import RunSpec
from cohort.engine.workbench import Workbench
from cohort.errors import StorageError
from triton_reg import Displacement
from triton_reg.metrics.consistency import inverse_consistency_error_mm
from triton_reg.metrics.transitivity import triangle_errors_mm

_SUBJECTS_IN_BLOCK = 4
_SCHEMA = {
    "a": pl.String,
    "b": pl.String,
    "c": pl.String,
    "mean_mm": pl.Float64,
    "p95_mm": pl.Float64,
    "ice_mm": pl.Float64,
}

Progress = Callable[[int, int], None]
"""Called with the number of triangles that are done, and of all."""


class Triangle(NamedTuple):
    """Three subjects: ``a`` to ``c`` by way of ``b`` is compared with ``a`` to ``c``."""

    a: str
    b: str
    c: str


@dataclass(frozen=True, kw_only=True)
class TriangleSample:
    """Which triangles are measured.

    Attributes:
        names: the subjects.
        each: triangles that start at each subject; at most as many as it has partners.
        seed: of the partners.
        with_inverse: whether ``a`` to ``b`` and back is measured too.
    """

    names: tuple[str, ...]
    each: int = 4
    seed: int = 0
    with_inverse: bool = True

    def blocks(self) -> list[list[Triangle]]:
        """The triangles of a few subjects each.

        A subject's partners form a ring, and each of its triangles goes over two neighbours on it:
        the way to a partner is the direct one of one triangle and the first leg of the next.
        """
        starts = [self._of(place) for place in range(len(self.names))]
        groups = range(0, len(starts), _SUBJECTS_IN_BLOCK)
        return [list(chain(*starts[at : at + _SUBJECTS_IN_BLOCK])) for at in groups]

    def key(self, spec: RunSpec) -> str:
        """Digest of all that the measures depend on."""
        facts = [spec.plan_digest, *self.names, self.each, self.seed, self.with_inverse]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def _of(self, place: int) -> list[Triangle]:
        others = [name for name in self.names if name != self.names[place]]
        # a generator each, so that a subject's partners do not depend on the others' number
        random = np.random.default_rng([self.seed, place])
        count = min(max(self.each, 2), len(others))
        ring = [others[one] for one in random.choice(len(others), count, replace=False)]
        following = ring[1:] + ring[:1]
        legs = zip(ring, following, strict=True)
        return [Triangle(self.names[place], b, c) for b, c in legs][: self.each]


@dataclass(frozen=True)
class _Block:
    triangles: tuple[Triangle, ...]
    path: Path


def measure_triangles(
    opening: Opening,
    sample: TriangleSample,
    folder: Path,
    workers: int = 1,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Measure a sample of triangles; what an earlier call has finished is taken from the folder.

    Args:
        opening: of the run.
        sample: which triangles.
        folder: where finished blocks are kept, in one below it for each sample.
        workers: processes; the numbers do not depend on how many.
        progress: see :data:`Progress`.

    Returns:
        A row a triangle: ``a``, ``b``, ``c``, ``mean_mm`` and ``p95_mm`` of the triangle error, and
        ``ice_mm`` of ``a`` to ``b`` and back, empty if the sample has none.

    Raises:
        SubjectError: if a subject is broken or has changed since the run.
        StorageError, SchedulerError: if a file cannot be read or written, or a process dies.
    """
    place = folder / sample.key(RunSpec.load(opening.run_dir))
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(place, error) from error
    blocks = [
        _Block(tuple(block), place / f"{number:05d}.json")
        for number, block in enumerate(sample.blocks())
    ]
    total = sum(len(block.triangles) for block in blocks)
    open_blocks = [block for block in blocks if not block.path.exists()]
    done = total - sum(len(block.triangles) for block in open_blocks)
    work = partial(_measure_block, opening, sample.with_inverse)
    for measured in in_processes(work, open_blocks, workers):
        done += measured
        if progress is not None:
            progress(done, total)
    rows = [row for block in blocks for row in _read_block(block.path)]
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def _measure_block(opening: Opening, with_inverse: bool, block: _Block) -> int:
    """Measure and commit one block; returns the number of its triangles."""
    workbench = opening.open()
    with one_thread(), torch.inference_mode():
        rows = list(_measured(workbench, block.triangles, with_inverse))
    write_once(block.path, to_json(rows))
    return len(rows)


def _measured(
    workbench: Workbench, triangles: Sequence[Triangle], with_inverse: bool
) -> Iterator[list[Any]]:
    """Rows of triangles; the ways from one start are kept, as they are legs of its next ones."""
    known: dict[tuple[str, str], Displacement] = {}

    def way(fixed: str, moving: str) -> Displacement:
        if (fixed, moving) not in known:
            known[fixed, moving] = workbench.register(fixed, moving).displacement
        return known[fixed, moving]

    for a, b, c in triangles:
        first, second, direct = way(a, b), way(b, c), way(a, c)
        shape = first.fixed_shape
        mask = workbench.subject(a).scan.on_grid(shape).mask
        spacing_mm = spacing_on(workbench.store.grid, shape)
        errors = triangle_errors_mm(first, second, direct, spacing_mm, mask)
        ice = None
        if with_inverse:
            backward = workbench.register(b, a).displacement
            ice = inverse_consistency_error_mm(first, backward, spacing_mm, mask)
        values = (errors.mean_mm, errors.p95_mm, ice)
        yield [a, b, c, *(None if one is None or one.isnan() else one.item() for one in values)]
        known = {pair: found for pair, found in known.items() if pair[0] == a}


def _read_block(path: Path) -> list[list[Any]]:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise storage_error(path, error) from error
    except ValueError:
        message = f"{path} is damaged; delete it and run `cohort population` again"
        raise StorageError("E_STORAGE", message) from None
