"""What a worker keeps between tiles: the open store, the method and the subjects at hand."""

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psutil
import torch

from cohort.data.align import recorded_to_native
from cohort.data.store import CohortStore
from cohort.engine.atlas import kept_atlas
from cohort.engine.prompts import prompts_of
from cohort.engine.scan import Scan
from cohort.engine.spec import RunSpec
from cohort.errors import SubjectError, UsageError
from triton_reg import Features, Method, Result

_MEMORY_SHARE = 0.25  # of what is free when a worker starts; the rest is for the pairs themselves


@dataclass(frozen=True, eq=False)
class Prepared:
    """A subject ready to be registered."""

    scan: Scan
    features: Features

    @property
    def size_bytes(self) -> int:
        """Memory held by the tensors."""
        return self.scan.size_bytes + sum(tensor.nbytes for tensor in self.features)


@dataclass(eq=False)
class Workbench:
    """An open run: everything that registering one of its pairs needs.

    Attributes:
        run_dir: the run's folder.
        spec: its facts.
        store: the cohort.
        atlas: the store of the run's atlas, if it has one of its own.
        method: built from the spec's settings.
        cache_bytes: how much the kept subjects may hold; the least recently used go first.
        seconds: time spent so far, by kind of work.
    """

    run_dir: Path
    spec: RunSpec
    store: CohortStore
    atlas: CohortStore | None
    method: Method
    cache_bytes: int
    seconds: dict[str, float] = field(default_factory=dict)
    _cache: OrderedDict[str, Prepared | SubjectError] = field(default_factory=OrderedDict)

    @classmethod
    def open(
        cls,
        run_dir: Path,
        store_path: Path | None = None,
        workers: int = 1,
        *,
        trust_code: bool = False,
    ) -> "Workbench":
        """Open a run where it lies; ``workers`` share this machine's memory.

        Raises:
            UsageError: ``E_TRUST`` if the run's settings name code that ``trust_code`` does not
                allow to run, ``E_PLAN_MISMATCH`` if they no longer give the method of the plan.
        """
        spec = RunSpec.load(run_dir)
        method = spec.method.build(trust_code=trust_code)
        if method.fingerprint != spec.fingerprint:
            raise UsageError(
                "E_PLAN_MISMATCH",
                f"{run_dir} was planned with another method than its settings now give: a file"
                f" that they name has changed, or the program, which was {spec.versions}",
            )
        return cls(
            run_dir,
            spec,
            CohortStore.open(store_path or Path(spec.store)),
            kept_atlas(run_dir) if spec.atlas else None,
            method,
            cache_bytes=int(psutil.virtual_memory().available * _MEMORY_SHARE / workers),
        )

    def subject(self, subject_id: str) -> Prepared:
        """A subject's scan and features, kept for the next pair that needs them.

        Raises:
            SubjectError: if the subject is broken, each time it is asked for.
        """
        if subject_id in self._cache:
            self._cache.move_to_end(subject_id)
        else:
            self._cache[subject_id] = self._prepare(subject_id)
            self._evict()
        kept = self._cache[subject_id]
        if isinstance(kept, SubjectError):
            # a new one each time: a traceback would hold on to the arrays of its frames
            raise SubjectError(kept.code, kept.message)
        return kept

    def register(self, fixed: str, moving: str) -> Result:
        """The result of one pair.

        Raises:
            SubjectError: if a subject is broken, or lacks what the method is to be told of it.
        """
        pair = torch.zeros(1, 2, dtype=torch.int32)
        target, source = self.subject(fixed), self.subject(moving)
        with self.timed("register_s"):
            kinds = self.spec.method.prompt_kinds
            prompts = prompts_of(target.scan, source.scan, kinds, self.store.grid)
            return self.method.register(target.features, source.features, pair, prompts)

    def store_of(self, subject_id: str) -> CohortStore:
        """Where a subject of the run lies: in the cohort's store, or in that of its atlas."""
        return self.atlas if self.atlas and subject_id == self.spec.atlas else self.store

    @cached_property
    def digests(self) -> dict[str, str]:
        """The content of each subject when the run was planned."""
        return dict(zip(self.spec.subject_ids, self.spec.subject_digests, strict=True))

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Add the time spent inside to ``seconds[kind]``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[kind] = self.seconds.get(kind, 0.0) + time.perf_counter() - start

    def _prepare(self, subject_id: str) -> Prepared | SubjectError:
        try:
            with self.timed("read_s"):
                scan = self._read(subject_id)
        except SubjectError as error:
            return SubjectError(error.code, error.message)
        with self.timed("prepare_s"):
            return Prepared(scan, self.method.prepare(scan.volume, scan.mask))

    def _read(self, subject_id: str) -> Scan:
        store = self.store_of(subject_id)
        if store.subject_digest(subject_id) != self.digests[subject_id]:
            message = f"{subject_id} is no longer what it was when the run was planned"
            raise SubjectError("E_CHANGED", message)
        try:
            to_native_mm = recorded_to_native(store.record(subject_id)["provenance"])
        except KeyError:  # it came from no file: its own world is the cohort's
            to_native_mm = None
        return Scan.of(store.read(subject_id), to_native_mm)

    def _evict(self) -> None:
        sizes = [one.size_bytes for one in self._cache.values() if isinstance(one, Prepared)]
        held = sum(sizes)
        while held > self.cache_bytes and len(self._cache) > 2:  # a pair needs two at once
            _, oldest = self._cache.popitem(last=False)
            held -= oldest.size_bytes if isinstance(oldest, Prepared) else 0
