"""A run before its first pair: which pairs, in which tiles, by which method, on what data."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cohort.data.store import CohortStore
from cohort.engine.atlas import (
    Template,
    atlas_file,
    bring_atlas,
    check_atlas_name,
    check_same_atlas,
    keep_atlas,
    kept_atlas,
    removed_on_failure,
)
from cohort.engine.beside import kept_facts, parse_keep
from cohort.engine.budgets import subjects_at_hand
from cohort.engine.choices import PlanSettings, chosen_facts
from cohort.engine.designs import Listed, PairSet
from cohort.engine.nearest import nearest_pairs
from cohort.engine.pairs import neighbours_asked, select_pairs
from cohort.engine.room import with_room
from cohort.engine.run_folder import (
    PAIRS_FILE,
    make_folder,
    refuse_other_content,
    write_pairs,
    write_spec,
)
from cohort.engine.spec import (
    RunSpec,
    current_versions,
    differences,
    plan_digest,
)
from cohort.engine.tiles import Tiles, tile_side
from cohort.errors import StorageError, UsageError

Choice = TypeVar("Choice")


def make_plan(
    store: CohortStore,
    settings: PlanSettings,
    atlas: CohortStore | None = None,
    kept_pairs: Path | None = None,
    planned: Mapping[str, str] | None = None,
) -> tuple[RunSpec, PairSet]:
    """Plan a run on a store; returns its facts and its pairs, by index of subject.

    Args:
        store: the cohort.
        settings: what the user chose.
        atlas: holds the one further subject, if the pairs name a file.
        kept_pairs: a table that stands for the design: what it gave when a run was planned.
        planned: digests of subjects, for those that can no longer be read.

    Raises:
        UsageError: ``E_PAIRS`` as :func:`cohort.engine.pairs.select_pairs` does, ``E_TRUST`` and
            ``E_WEIGHTS`` as :meth:`cohort.config.method.MethodConfig.build` does.
    """
    inventory = store.inventory(planned)
    digests = inventory.subject_digests | (atlas.inventory().subject_digests if atlas else {})
    outside = atlas.subject_ids[0] if atlas else None
    design = _with_subject(settings.pairs or "all", outside)
    pairs = _pairs(store, str(kept_pairs or design), tuple(digests), settings.seed or 0)
    tile_size = settings.tile_size or _tile_size(pairs, len(digests), settings)
    facts = {
        "store_digest": inventory.digest,
        "subject_digests": list(digests.values()),
        "pairs_digest": pairs.digest,
        "tile_size": tile_size,
        **chosen_facts(settings, inventory.has_masks, store.grid),
    }
    tiles = Tiles.of(pairs, tuple(digests), tile_size)
    facts |= kept_facts(settings.keep_displacements or "none", tiles, digests, facts)
    spec = RunSpec.model_validate({
        **facts,
        "plan_digest": plan_digest(facts),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "store": store.address,
        "grid": store.grid.to_json(),
        "subject_ids": tuple(digests),
        "atlas": outside,
        "has_labels": inventory.has_labels,
        "has_truth": inventory.has_truth,
        "n_pairs": pairs.n_pairs,
        "n_tiles": len(tiles),
        "measured": settings.measured,
        "versions": current_versions(),
    })  # fmt: skip
    return spec, pairs


def _pairs(store: CohortStore, design: str, subject_ids: tuple[str, ...], seed: int) -> PairSet:
    if neighbours := neighbours_asked(design, len(subject_ids)):
        return nearest_pairs(store, neighbours)
    return select_pairs(design, subject_ids, seed)


def _tile_size(pairs: PairSet, subjects: int, settings: PlanSettings) -> int:
    if settings.measured is None:
        return tile_side(pairs, subjects, workers=settings.workers)
    fit = subjects_at_hand(settings.measured, settings.workers)
    return tile_side(pairs, subjects, settings.measured.pair_s, settings.workers, fit)


def check_first_plan(run_dir: Path, store: CohortStore, settings: PlanSettings) -> None:
    """Refuse at once what :func:`open_run` would refuse after a trial; writes nothing.

    Raises:
        UsageError: ``E_ATLAS``, ``E_KEEP``, ``E_PAIRS`` or ``E_RUN``, as planning would.
    """
    refuse_other_content(run_dir)
    parse_keep(settings.keep_displacements or "none")
    file, names = _atlas_asked(settings), store.subject_ids
    if file is not None:
        check_atlas_name(file, store)
    elif neighbours_asked(settings.pairs or "all", len(names)) is None:
        select_pairs(settings.pairs or "all", names, settings.seed or 0)


def _atlas_asked(settings: PlanSettings) -> Path | None:
    file = atlas_file(settings.pairs or "")
    if settings.atlas_labels is not None and file is None:
        raise UsageError(
            "E_ATLAS", "labels of an atlas need the atlas: --pairs atlas:FILE or --pairs to:FILE"
        )
    return file


def open_run(
    run_dir: Path, store: CohortStore, settings: PlanSettings, template: Template | None = None
) -> RunSpec:
    """Begin a run, or go on with one that was planned on the same store with these settings.

    Args:
        run_dir: the run.
        store: the cohort.
        settings: what the user chose.
        template: on the working grid, kept by the run as an atlas from a file would be; the pairs,
            a table, may name it.

    Raises:
        UsageError: ``E_PLAN_MISMATCH`` if the run there was planned otherwise, ``E_RUN`` if there
            is something else.
        StorageError: if the plan cannot be written or read.
    """
    file = _atlas_asked(settings)
    if not (run_dir / "run.json").exists():
        spec, pairs = _first_plan(run_dir, store, settings, file or template)
        make_folder(run_dir)
        if spec.pairs == "csv" or neighbours_asked(spec.pairs, len(spec.subject_ids)):
            write_pairs(run_dir, _listed(pairs, spec.subject_ids))
        document = spec.model_dump_json(indent=2, exclude_none=True) + "\n"
        if write_spec(run_dir, document):
            return spec
    existing = RunSpec.load(run_dir)
    design = settings.pairs or existing.pairs
    if file and existing.atlas:
        check_same_atlas(run_dir, existing.atlas, file, settings.atlas_labels)
        planned_kind, _, _ = existing.pairs.partition(":")
        if design.startswith(f"{planned_kind}:"):  # the file may lie elsewhere now
            design = existing.pairs
    own = PlanSettings(
        settings.method or existing.method,
        design,
        _said(settings.seed, existing.seed),
        settings.tile_size or existing.tile_size,
        settings.trust_code,
        metrics=_said(settings.metrics, existing.metrics),
        keep_uncertainty=_said(settings.keep_uncertainty, existing.keep_uncertainty),
        keep_displacements=settings.keep_displacements or existing.keep_displacements,
        device=settings.device or existing.device,
        shrink=settings.shrink,
        sums=settings.sums or existing.sums,
    )
    atlas = kept_atlas(run_dir) if existing.atlas else None
    planned = dict(zip(existing.subject_ids, existing.subject_digests, strict=True))
    asked, _ = make_plan(store, own, atlas, _kept_pairs(run_dir, existing, own.pairs), planned)
    if existing.plan_digest != asked.plan_digest:
        differing = "; ".join(differences(existing, asked))
        message = f"{run_dir} holds a run with another plan: {differing}"
        raise UsageError("E_PLAN_MISMATCH", f"{message}. Choose another folder for a new run")
    return existing


def _said(asked: Choice | None, planned: Choice) -> Choice:
    return planned if asked is None else asked


def _first_plan(
    run_dir: Path, store: CohortStore, settings: PlanSettings, outside: Path | Template | None
) -> tuple[RunSpec, PairSet]:
    """The plan of a run that is not there yet, with its atlas, if any; all of it or nothing."""
    if outside is None:
        return with_room(run_dir, store, make_plan(store, settings), settings.trust_code)
    make_folder(run_dir)
    with removed_on_failure(run_dir):
        if isinstance(outside, Template):
            atlas = keep_atlas(run_dir, store, outside)
        else:
            atlas = bring_atlas(run_dir, store, outside, settings.atlas_labels)
        plan = make_plan(store, settings, atlas)
        return with_room(run_dir, store, plan, settings.trust_code, atlas)


def tiles_of(run_dir: Path, spec: RunSpec, at_hand: int = 0) -> Tiles:
    """The tiles of a run in the order in which they are worked on.

    Args:
        run_dir: the run.
        spec: its facts.
        at_hand: subjects that a worker keeps, see :meth:`cohort.engine.tiles.Tiles.of`.

    Raises:
        StorageError: ``E_RUN`` if the pairs are no longer those that were planned.
    """
    design = str(_kept_pairs(run_dir, spec, spec.pairs) or _with_subject(spec.pairs, spec.atlas))
    pairs = select_pairs(design, spec.subject_ids, spec.seed)
    if pairs.digest != spec.pairs_digest:
        raise StorageError("E_RUN", f"{design} no longer gives the pairs that {run_dir} planned")
    return Tiles.of(pairs, spec.subject_ids, spec.tile_size, at_hand)


def _kept_pairs(run_dir: Path, spec: RunSpec, design: str | None) -> Path | None:
    """The table that was copied into a run whose facts alone would not give its pairs again."""
    is_kept = spec.pairs == "csv" or spec.pairs.startswith("knn:")
    return run_dir / PAIRS_FILE if is_kept and design == spec.pairs else None


def _listed(pairs: PairSet, subject_ids: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    assert isinstance(pairs, Listed)
    return ((subject_ids[fixed], subject_ids[moving]) for fixed, moving in pairs.pairs.tolist())


def _with_subject(design: str, atlas: str | None) -> str:
    """A design with the id of the atlas in the place of its file."""
    return (
        design
        if atlas is None or atlas_file(design) is None
        else f"{design.partition(':')[0]}:{atlas}"
    )
