"""What a worker keeps between tiles: the open store, the method and the subjects at hand."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from cohort.data.align import recorded_to_native
from cohort.data.geometry import Grid
from cohort.data.kept_features import KeptFeatures
from cohort.data.places import Where
from cohort.data.store import CohortStore
from cohort.engine.atlas import kept_atlas
from cohort.engine.budgets import Budgets, budgets_of
from cohort.engine.prompts import prompts_of
from cohort.engine.scan import Scan
from cohort.engine.spec import Device, RunSpec
from cohort.engine.subjects import Prepared, Subjects
from cohort.errors import SubjectError, UsageError
from triton_reg import Features, Method, Prompts, Result, collate

_CUDA_BATCH = 16  # pairs; a card is idle over one


@dataclass(eq=False)
class Workbench:
    """An open run: everything that registering one of its pairs needs.

    Attributes:
        run_dir: the run's folder.
        spec: its facts.
        store: the cohort.
        atlas: the store of the run's atlas, if it has one of its own.
        method: built from the spec's settings.
        workers: that share this machine's memory.
        on_one_card: of these, how many share a card's.
        asked_batch: pairs to be registered at once; None for what the device takes.
        keeps_features: whether features are kept in the store, and taken from there.
        seconds: time spent so far, by kind of work.
    """

    run_dir: Path
    spec: RunSpec
    store: CohortStore
    atlas: CohortStore | None
    method: Method
    workers: int = 1
    on_one_card: int = 1
    asked_batch: int | None = None
    keeps_features: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        run_dir: Path,
        store_path: Where | None = None,
        workers: int = 1,
        on_one_card: int = 1,
        *,
        trust_code: bool = False,
        batch: int | None = None,
    ) -> "Workbench":
        """Open a run where it lies; ``workers`` share this machine's memory, some of them a card's.

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
        store = CohortStore.open(store_path or spec.store)
        atlas = kept_atlas(run_dir) if spec.atlas else None
        return cls(run_dir, spec, store, atlas, method, workers, on_one_card, batch)

    @cached_property
    def device(self) -> torch.device:
        """Where subjects are prepared and registered; what was kept of a run is read without it.

        Raises:
            UsageError: ``E_DEVICE`` if there is no card.
        """
        return chosen_device(self.spec.device)

    @cached_property
    def budgets(self) -> Budgets:
        """How much the kept subjects may hold."""
        return budgets_of(self.device, self.workers, self.on_one_card)

    @property
    def batch(self) -> int:
        """Pairs that are registered at once; results do not depend on it."""
        return self.asked_batch or (_CUDA_BATCH if self.device.type == "cuda" else 1)

    @cached_property
    def subjects(self) -> Subjects:
        """Those that are ready."""
        return Subjects(self._features, self._read, self.device, self.budgets, self.timed)

    def subject(self, subject_id: str) -> Prepared:
        """A subject's scan and features, kept for the next pair that needs them.

        Raises:
            SubjectError: if the subject is broken, each time it is asked for.
        """
        return self.subjects.get(subject_id)

    def register(self, fixed: str, moving: str) -> Result:
        """The result of one pair.

        Raises:
            SubjectError: if a subject is broken, or lacks what the method is to be told of it.
        """
        return self.register_many([(fixed, moving)])[0]

    def register_many(self, pairs: Sequence[tuple[str, str]]) -> list[Result]:
        """The result of each pair, of all at once; the same bits as one by one.

        Raises:
            SubjectError: if a subject is broken, or lacks what the method is to be told of it.
        """
        sides = [list(dict.fromkeys(side)) for side in zip(*pairs, strict=True)]
        fixed, moving = ({name: self.subject(name) for name in side} for side in sides)
        rows = [(sides[0].index(one), sides[1].index(other)) for one, other in pairs]
        with self.timed("register_s"):
            kinds = self.spec.method.prompt_kinds
            told = [
                prompts_of(fixed[one].scan, moving[other].scan, kinds, self.grid)
                for one, other in pairs
            ]
            result = self.method.register(
                collate([one.features for one in fixed.values()]),
                collate([one.features for one in moving.values()]),
                torch.tensor(rows, dtype=torch.int32, device=self.device),
                _together(told),
            )
            if self.device.type == "cuda":
                torch.cuda.synchronize()  # else this time would be counted as measuring
            return [result.of(row) for row in range(len(pairs))]

    def store_of(self, subject_id: str) -> CohortStore:
        """Where a subject of the run lies: in the cohort's store, or in that of its atlas."""
        return self.atlas if self.atlas and subject_id == self.spec.atlas else self.store

    @cached_property
    def grid(self) -> Grid:
        """Of the subjects as they are registered: the working grid, or a coarser one over it."""
        return self.spec.coarser(self.store.grid)

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

    def _features(self, subject_id: str, scan: Scan) -> Features:
        """Features of a subject: kept by an earlier run, or made now, and kept if that is asked."""
        if not self.keeps_features:
            return self.method.prepare(scan.volume, scan.mask)
        store, digest = self.store_of(subject_id), self.digests[subject_id]
        # of this grid too: a run on a coarser one makes others of the same subject
        made_by = f"{self.method.fingerprint}|{self.device.type}|{self.grid.shape}"
        kept = KeptFeatures(store, made_by)
        found = kept.load(subject_id, digest)
        if found is not None:
            return tuple(one.to(self.device) for one in found)
        made = self.method.prepare(scan.volume, scan.mask)
        kept.save(subject_id, digest, made)
        return made

    def _read(self, subject_id: str) -> Scan:
        store = self.store_of(subject_id)
        if store.subject_digest(subject_id) != self.digests[subject_id]:
            message = f"{subject_id} is no longer what it was when the run was planned"
            raise SubjectError("E_CHANGED", message)
        try:
            to_native_mm = recorded_to_native(store.record(subject_id)["provenance"])
        except KeyError:  # it came from no file: its own world is the cohort's
            to_native_mm = None
        return Scan.of(store.read(subject_id), to_native_mm).on_grid(self.grid.shape)


def chosen_device(kind: Device) -> torch.device:
    """Where a worker works; a card is the first that it is shown.

    Raises:
        UsageError: ``E_DEVICE`` if there is no card.
    """
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "E_DEVICE",
            "this run is planned for GPUs and torch finds none here; do this where one is",
        )
    return torch.device(kind)


def _together(told: Sequence[Prompts | None]) -> Prompts | None:
    """Prompts of several pairs as one; all pairs are told of the same kinds."""
    known = [one for one in told if one is not None]
    return Prompts.together(known) if known else None
