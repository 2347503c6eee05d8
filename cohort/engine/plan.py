"""A run before its first pair: which pairs, in which tiles, by which method, on what data."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cohort.config.method import MethodConfig
from cohort.data.storage import storage_error, write_atomic, write_once
from cohort.data.store import CohortStore
from cohort.engine.atlas import (
    FOLDER,
    atlas_file,
    bring_atlas,
    check_same_atlas,
    kept_atlas,
    removed_on_failure,
)
from cohort.engine.pairs import select_pairs, tile_side
from cohort.engine.spec import SCHEMA, RunSpec, current_versions, differences
from cohort.errors import StorageError, UsageError

_PAIRS_FILE = "pairs.csv"
Choice = TypeVar("Choice")


@dataclass(frozen=True)
class PlanSettings:
    """What the user chooses about a run; None is the plan's own choice, or the default.

    Attributes:
        method: the method and its settings; VoxelOpt as it comes.
        pairs: a design of :func:`cohort.engine.pairs.select_pairs`, ``all``; or ``atlas:`` or
            ``to:`` with a NIfTI file that is not in the store.
        atlas_labels: segmentation of that file.
        metrics: families of measures beyond the headline ones; none.
        keep_uncertainty: whether the run keeps how sure the method is of each displacement; no.
        seed: of random designs; 0.
        tile_size: side of a tile in subjects; from the number of pairs.
        trust_code: whether code that the method's settings name may be run; the plan forgets it.
    """

    method: MethodConfig | None = None
    pairs: str | None = None
    seed: int | None = None
    tile_size: int | None = None
    trust_code: bool = False
    atlas_labels: Path | None = None
    metrics: tuple[str, ...] | None = None
    keep_uncertainty: bool | None = None


@dataclass(frozen=True)
class Tile:
    """A block of pairs: the unit of work, of commit and of resume.

    Attributes:
        tile_id: its block, ``00003-00017``; also the name of its part.
        pairs: ``(fixed, moving)`` subject ids.
    """

    tile_id: str
    pairs: tuple[tuple[str, str], ...]

    @property
    def subject_ids(self) -> tuple[str, ...]:
        """The subjects of the tile, each once."""
        return tuple(dict.fromkeys(subject for pair in self.pairs for subject in pair))


def make_plan(
    store: CohortStore, settings: PlanSettings, atlas: CohortStore | None = None
) -> tuple[RunSpec, np.ndarray]:
    """Plan a run on a store; returns its facts and its pairs ``[P, 2]`` of subject indices.

    ``atlas`` holds the one further subject, if the pairs name a file.

    Raises:
        UsageError: ``E_PAIRS`` as :func:`cohort.engine.pairs.select_pairs` does, ``E_TRUST`` and
            ``E_WEIGHTS`` as :meth:`cohort.config.method.MethodConfig.build` does.
    """
    inventory = store.inventory()
    digests = inventory.subject_digests | (atlas.inventory().subject_digests if atlas else {})
    outside = atlas.subject_ids[0] if atlas else None
    design = _with_subject(settings.pairs or "all", outside)
    pairs = select_pairs(design, tuple(digests), settings.seed or 0)
    tile_size = settings.tile_size or tile_side(len(pairs))
    facts = {
        "store_digest": inventory.digest,
        "subject_digests": list(digests.values()),
        "pairs_digest": hashlib.sha256(pairs.tobytes()).hexdigest(),
        "tile_size": tile_size,
        **_chosen(settings, inventory.has_masks, store.grid.spacing_mm),
    }
    canonical = json.dumps({"run_schema": SCHEMA, **facts}, sort_keys=True)
    spec = RunSpec.model_validate({
        **facts,
        "plan_digest": hashlib.sha256(canonical.encode()).hexdigest(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "store": str(store.path.resolve()),
        "grid": store.grid.to_json(),
        "subject_ids": tuple(digests),
        "atlas": outside,
        "has_labels": inventory.has_labels,
        "has_truth": inventory.has_truth,
        "n_pairs": len(pairs),
        "n_tiles": len(set(_blocks(pairs, tile_size))),
        "versions": current_versions(),
    })  # fmt: skip
    return spec, pairs


def _chosen(
    settings: PlanSettings, has_masks: bool, spacing_mm: tuple[float, float, float]
) -> dict[str, Any]:
    """What the user's choices say of a run, or the defaults in their place."""
    method = (settings.method or MethodConfig()).for_cohort(has_masks, spacing_mm)
    design = settings.pairs or "all"
    return {
        "pairs": "csv" if design.endswith(".csv") else design,
        "seed": settings.seed or 0,
        "metrics": list(settings.metrics or ()),
        "keep_uncertainty": bool(settings.keep_uncertainty),
        "method": method.model_dump(mode="json", exclude_none=True),
        "fingerprint": method.build(trust_code=settings.trust_code).fingerprint,
    }


def open_run(run_dir: Path, store: CohortStore, settings: PlanSettings) -> RunSpec:
    """Begin a run, or go on with one that was planned on the same store with these settings.

    Raises:
        UsageError: ``E_PLAN_MISMATCH`` if the run there was planned otherwise, ``E_RUN`` if there
            is something else.
        StorageError: if the plan cannot be written or read.
    """
    file = atlas_file(settings.pairs or "")
    if settings.atlas_labels is not None and file is None:
        raise UsageError(
            "E_ATLAS", "labels of an atlas need the atlas: --pairs atlas:FILE or --pairs to:FILE"
        )
    if not (run_dir / "run.json").exists():
        spec, pairs = _first_plan(run_dir, store, settings, file)
        _make_folder(run_dir)
        if _write_plan(run_dir, spec, pairs):
            return spec
    existing = RunSpec.load(run_dir)
    if file and existing.atlas:
        check_same_atlas(run_dir, existing.atlas, file, settings.atlas_labels)
    own = PlanSettings(
        settings.method or existing.method,
        settings.pairs or _pairs(run_dir, existing),
        _said(settings.seed, existing.seed),
        settings.tile_size or existing.tile_size,
        settings.trust_code,
        metrics=_said(settings.metrics, existing.metrics),
        keep_uncertainty=_said(settings.keep_uncertainty, existing.keep_uncertainty),
    )
    asked, _ = make_plan(store, own, kept_atlas(run_dir) if existing.atlas else None)
    if existing.plan_digest != asked.plan_digest:
        differing = "; ".join(differences(existing, asked))
        message = f"{run_dir} holds a run with another plan: {differing}"
        raise UsageError("E_PLAN_MISMATCH", f"{message}. Choose another folder for a new run")
    return existing


def _said(asked: Choice | None, planned: Choice) -> Choice:
    return planned if asked is None else asked


def _first_plan(
    run_dir: Path, store: CohortStore, settings: PlanSettings, file: Path | None
) -> tuple[RunSpec, np.ndarray]:
    """The plan of a run that is not there yet, with its atlas from a file; all of it or nothing."""
    if file is None:
        return make_plan(store, settings)
    _make_folder(run_dir)
    with removed_on_failure(run_dir):
        atlas = bring_atlas(run_dir, store, file, settings.atlas_labels)
        return make_plan(store, settings, atlas)


def tiles_of(run_dir: Path, spec: RunSpec) -> Iterator[Tile]:
    """The tiles of a run in the order in which they are worked on."""
    design = _with_subject(_pairs(run_dir, spec), spec.atlas)
    pairs = select_pairs(design, spec.subject_ids, spec.seed)
    if hashlib.sha256(pairs.tobytes()).hexdigest() != spec.pairs_digest:
        raise StorageError("E_RUN", f"{design} no longer gives the pairs that {run_dir} planned")
    blocks: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for (fixed, moving), block in zip(pairs, _blocks(pairs, spec.tile_size), strict=True):
        pair = (spec.subject_ids[fixed], spec.subject_ids[moving])
        blocks.setdefault(block, []).append(pair)
    for row, column in sorted(blocks):
        yield Tile(f"{row:05d}-{column:05d}", tuple(sorted(blocks[row, column])))


def _pairs(run_dir: Path, spec: RunSpec) -> str:
    """What a run was asked to pair; a table of pairs was copied into the run."""
    return str(run_dir / _PAIRS_FILE) if spec.pairs == "csv" else spec.pairs


def _with_subject(design: str, atlas: str | None) -> str:
    """A design with the id of the atlas in the place of its file."""
    return design if atlas is None else f"{design.partition(':')[0]}:{atlas}"


def _blocks(pairs: np.ndarray, tile_size: int) -> list[tuple[int, int]]:
    return [(int(row), int(column)) for row, column in pairs // tile_size]


def _make_folder(run_dir: Path) -> None:
    try:
        _refuse_other_content(run_dir)
        (run_dir / "parts").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(run_dir, error) from error


def _write_plan(run_dir: Path, spec: RunSpec, pairs: np.ndarray) -> bool:
    """Make the run; False if another process made one there at the same time."""
    if spec.pairs == "csv":
        lines = [f"{spec.subject_ids[f]},{spec.subject_ids[m]}" for f, m in pairs]
        write_atomic(run_dir / _PAIRS_FILE, "\n".join(["fixed,moving", *lines, ""]).encode())
    document = spec.model_dump_json(indent=2, exclude_none=True) + "\n"
    return write_once(run_dir / "run.json", document.encode())


def _refuse_other_content(run_dir: Path) -> None:
    """Only an empty folder becomes a run: parts of another one would pass for this one's."""
    if not run_dir.exists():
        return
    if not run_dir.is_dir():
        raise UsageError("E_RUN", f"{run_dir} is a file; need a new or an empty folder for a run")
    found = [*run_dir.iterdir(), *(run_dir / "parts").glob("*")]
    ours = ("parts", _PAIRS_FILE, FOLDER)  # of a plan that was not finished
    foreign = [path for path in found if path.name not in ours and not path.name.startswith(".")]
    if foreign:
        raise UsageError(
            "E_RUN",
            f"{run_dir} is no run and not empty (it holds {min(foreign).relative_to(run_dir)}); "
            "need a new or an empty folder",
        )
