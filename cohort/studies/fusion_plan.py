"""Which atlases are registered to which targets, and how their labels are to be fused."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cohort.data.own_folder import own_folder
from cohort.data.storage import storage_error, to_json, write_atomic
from cohort.data.store import CohortStore
from cohort.data.subject_choice import chosen_subjects
from cohort.engine.nearest import likeness
from cohort.engine.run_folder import as_table
from cohort.engine.spec import RunSpec
from cohort.errors import StorageError, SubjectError, UsageError
from triton_reg import __version__
from triton_reg.ops.label_fusion import FusionSettings

RUN, PAIRS, FACTS = "run", "pairs.csv", "fusion.json"
DEFAULT = FusionSettings()
_SHOWN = 5


@dataclass(frozen=True)
class FusionTask:
    """What to fuse onto what.

    Attributes:
        targets: subjects to segment, sorted.
        atlases: subjects with labels, sorted; a subject is never its own atlas.
        settings: how atlases vote.
        select: so many of the atlases that look most like the target vote; None for all of them.
        confidence: whether the share of the weights that voted for each label is kept.
        candidates: so many atlases are registered to a target; None for all of them.
        nearest: which those are, by target.
    """

    targets: tuple[str, ...]
    atlases: tuple[str, ...]
    settings: FusionSettings = DEFAULT
    select: int | None = None
    confidence: bool = False
    candidates: int | None = None
    nearest: Mapping[str, tuple[str, ...]] | None = None

    def atlases_of(self, target: str) -> tuple[str, ...]:
        """Who is registered to a target, sorted."""
        if self.nearest is not None:
            return self.nearest[target]
        return tuple(atlas for atlas in self.atlases if atlas != target)

    @property
    def pairs(self) -> Iterator[tuple[str, str]]:
        """``(target, atlas)``: the atlas moves onto the target."""
        return ((target, atlas) for target in self.targets for atlas in self.atlases_of(target))


def plan_fusion(
    store: CohortStore,
    targets: str | None = None,
    atlases: str | None = None,
    *,
    settings: FusionSettings = DEFAULT,
    select: int | None = None,
    confidence: bool = False,
    candidates: int | None = None,
) -> FusionTask:
    """The task that a user describes.

    Args:
        store: the cohort.
        targets, atlases: ids with commas between, with ``*`` for any letters, or ``@FILE`` with one
            a line; all subjects and all subjects with labels if omitted.
        settings: how atlases vote.
        select: so many of the likest atlases vote.
        confidence: whether to keep the share of the weights that voted for each label.
        candidates: register only so many atlases to a target: those most like it where ingest left
            them, which says the more, the better it aligned them.

    Raises:
        UsageError: ``E_FUSION`` if an atlas has no labels, a target has no atlas, or fewer than
            ``candidates`` or ``select``; ``E_SUBJECTS`` as
            :func:`cohort.data.subject_choice.chosen_subjects` does; ``E_PAIRS`` if a subject's
            likeness to others cannot be told, as it cannot be read.
    """
    ids, labelled = store.subject_ids, _with_labels(store)
    chosen = ids if targets is None else chosen_subjects("--targets", targets, ids)
    models = labelled
    if atlases is not None:
        models = _all_labelled(chosen_subjects("--atlases", atlases, ids), labelled)
    if not models:
        raise UsageError(
            "E_FUSION", f"{store.where}: no atlas has labels; need some to take them from"
        )
    fewest = len(models) - any(target in models for target in chosen)
    if fewest == 0:
        raise UsageError(
            "E_FUSION", f"the only atlas, {models[0]}, is a target itself; need another one"
        )
    for option, asked in (("--candidates", candidates), ("--select", select)):
        if asked is not None and asked < 1:
            raise UsageError("E_FUSION", f"{option} {asked}: need 1 or more")
        if asked is not None and asked > fewest:
            raise UsageError(
                "E_FUSION", f"{option} {asked}: there are {fewest} atlases for a target"
            )
        fewest = min(candidates or fewest, fewest)
    nearest = _nearest(store, chosen, models, candidates) if candidates else None
    given = settings, select, confidence, candidates, nearest
    return FusionTask(tuple(chosen), tuple(models), *given)


def _nearest(
    store: CohortStore, targets: Sequence[str], atlases: Sequence[str], count: int
) -> dict[str, tuple[str, ...]]:
    """For each target the atlases that look most like it before registration, sorted."""
    everyone = sorted({*targets, *atlases})
    places = {name: place for place, name in enumerate(everyone)}
    # rounded, so that a sum that another machine orders otherwise does not choose others
    alike = likeness(store, everyone).round(4)
    found = {}
    for target in targets:
        row = alike[places[target]]
        others = [name for name in atlases if name != target]
        ranked = sorted((-row[places[name]], name) for name in others)
        found[target] = tuple(sorted(name for _, name in ranked[:count]))
    return found


def _with_labels(store: CohortStore) -> tuple[str, ...]:
    found = []
    for name in store.subject_ids:
        with suppress(SubjectError):  # a broken subject fails when its turn comes
            if "labels" in store.record(name)["arrays"]:
                found.append(name)
    return tuple(found)


def _all_labelled(atlases: Sequence[str], labelled: Sequence[str]) -> tuple[str, ...]:
    bare = [name for name in atlases if name not in labelled]
    if bare:
        known = ", ".join(bare[:_SHOWN]) + (", ..." if bare[_SHOWN:] else "")
        raise UsageError("E_FUSION", f"--atlases: no labels in {known}; need some in every atlas")
    return tuple(atlases)


def write_pairs(out: Path, task: FusionTask) -> Path:
    """The pairs to register as a table that ``--pairs`` takes.

    Raises:
        UsageError: ``E_FUSION`` if the folder holds something else, ``E_PLAN_MISMATCH`` if it holds
            other pairs, which may be a run's or the user's own.
        StorageError: if the folder cannot be written.
    """
    path, table = out / PAIRS, as_table(task.pairs)
    try:
        there = path.read_bytes() if path.exists() else None
    except OSError as error:
        raise storage_error(path, error) from error
    if there is None:
        begin_folder(out, RUN)
        write_atomic(path, table)
    elif there != table:
        raise UsageError(
            "E_PLAN_MISMATCH",
            f"{path} lists other pairs than this fusion registers. Choose another folder, or the"
            " targets and atlases that it was begun with",
        )
    return path


def begin_folder(out: Path, *ours: str) -> None:
    """Make the folder of a fusion, or go on in it; its files would replace those of others.

    Args:
        out: the folder.
        ours: what a fusion that had only begun left there.

    Raises:
        UsageError: ``E_FUSION`` if it is a file, or a folder that holds something else.
        StorageError: if it cannot be made.
    """
    own_folder(out, "E_FUSION", "fusion", mark=FACTS, begun=ours)


def open_fusion(out: Path, store: CohortStore, spec: RunSpec, task: FusionTask) -> None:
    """Begin a fusion in a folder, or go on with the same one.

    Raises:
        UsageError: ``E_PLAN_MISMATCH`` with what differs; ``E_FUSION`` if it holds something else.
        StorageError: ``E_CORRUPT`` if the facts there cannot be read.
    """
    begin_folder(out, RUN, PAIRS)
    wanted = json.loads(to_json(_facts(store, spec, task)))
    path = out / FACTS
    try:
        found = json.loads(path.read_bytes()) if path.exists() else None
    except ValueError:
        raise StorageError("E_CORRUPT", f"{path} is damaged; remove it") from None
    except OSError as error:
        raise storage_error(path, error) from error
    if found is None:
        write_atomic(path, to_json(wanted))
        return
    differing = [key for key in wanted if key not in ("store", "versions")]
    differing = [key for key in differing if found.get(key) != wanted[key]]
    if differing:
        said = "; ".join(f"{key} {found.get(key)} there, {wanted[key]} asked" for key in differing)
        raise UsageError(
            "E_PLAN_MISMATCH",
            f"{out} holds another fusion: {said}. Choose another folder; --run {out / RUN} uses"
            " the same registrations",
        )


def _facts(store: CohortStore, spec: RunSpec, task: FusionTask) -> dict[str, Any]:
    return {
        "store": store.address,
        "plan_digest": spec.plan_digest,
        "targets": task.targets,
        "atlases": task.atlases,
        "fusion": asdict(task.settings),
        "select": task.select,
        "candidates": task.candidates,
        "confidence": task.confidence,
        "versions": {**spec.versions, "triton-reg": __version__},
    }
