"""Tensor-based morphometry: where subjects are larger or smaller than their template.

    morphometry_space      the template, its mask, its structures and subjects
    morphometry_maps       one subject: ln det of the Jacobian, smoothed, and volumes of structures
    morphometry_design     the subjects' table as FSL and PALM read it
    morphometry_statistic  t of each column, voxel by voxel
    morphometry_files      what is left in ``OUT/morphometry``

``OUT/morphometry/logjacobian.nii.gz`` has a volume for each line of ``subjects.txt``. Maps are made
on worker processes, each kept until all are there, so that a command that was stopped goes on.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cohort.data.layout import digest_of
from cohort.data.nifti import Nifti
from cohort.data.places import Where
from cohort.data.processes import in_processes
from cohort.data.storage import remove, storage_error, to_json, write_atomic
from cohort.engine.lock import Lease, only_driver
from cohort.engine.spec import RunSpec
from cohort.errors import SubjectError, UsageError
from cohort.studies.atlas.settings import load_settings
from cohort.studies.morphometry_design import intercept_alone, read_design
from cohort.studies.morphometry_files import MAPS, MASK, write_design, write_maps
from cohort.studies.morphometry_maps import FWHM_OF_SIGMA, MapJob, make_map
from cohort.studies.morphometry_space import SEEN, TemplateSpace
from cohort.studies.nifti_images import write_image
from triton_reg import __version__

FOLDER, FACTS = "morphometry", "morphometry.json"
_WORK = "work"
_SCHEMA = 1  # of the maps: raise it when the same settings would give others
_MOST_VOLUMES = 32767  # of a NIfTI-1 file

Progress = Callable[[int, int], None]
"""Called with the number of subjects that are done, and of all."""


@dataclass(frozen=True, kw_only=True)
class MorphometrySettings:
    """What is asked for.

    Attributes:
        affine: whether B and ingest's alignment count, and with them the size of the head.
        fwhm_mm: full width at half maximum of the Gaussian; 0 for none.
        design: CSV file of the subjects' groups, ages and so on; None for the mean of all.
        mask: NIfTI file on the template's grid, where to look; None for all of its foreground.
    """

    affine: bool = False
    fwhm_mm: float = 8.0
    design: Path | None = None
    mask: Path | None = None


def measure_volume_changes(
    out: Path,
    settings: MorphometrySettings,
    workers: int = 1,
    store: Where | None = None,
    progress: Progress = lambda done, all_: None,
) -> dict[str, Any]:
    """Compare all subjects of a template with it; returns what ``morphometry.json`` holds.

    The same call goes on where an earlier one was stopped; another design alone makes no map anew.

    Args:
        out: the folder of the template; results are in ``OUT/morphometry``.
        settings: see :class:`MorphometrySettings`.
        workers: processes; the files have the same bytes for any number.
        store: where the cohort is now; None for where it was.
        progress: see `Progress`.

    Raises:
        UsageError: ``E_MORPHOMETRY`` if there is no finished template, or the design does not fit,
            and as :meth:`TemplateSpace.given_mask` does.
        SubjectError: ``E_CHANGED`` if a subject is no longer what was registered, ``E_EMPTY`` if no
            voxel was seen in enough subjects.
        RunActiveError: ``E_ACTIVE`` if another process works on the template or is at this.
        StorageError, SchedulerError: the same call goes on from there.
    """
    if not settings.fwhm_mm >= 0:
        raise UsageError("E_MORPHOMETRY", f"--smooth {settings.fwhm_mm}: need 0 mm or more")
    if load_settings(out) is None:
        TemplateSpace.open(out)  # says what is missing; nothing is locked in a stranger's folder
    with only_driver(out, advice="wait for it") as lease:
        return _measure(TemplateSpace.open(out), lease, settings, workers, store, progress)


def _measure(
    space: TemplateSpace,
    lease: Lease,
    settings: MorphometrySettings,
    workers: int,
    store: Where | None,
    progress: Progress,
) -> dict[str, Any]:
    out, subjects = lease.run_dir, tuple(space.subjects)
    if len(subjects) > _MOST_VOLUMES:
        raise UsageError(
            "E_MORPHOMETRY",
            f"{out} has {len(subjects)} subjects; one NIfTI file holds {_MOST_VOLUMES} at most",
        )
    path = settings.design
    design = read_design(path, subjects) if path else intercept_alone(subjects)
    mask = space.given_mask(settings.mask) if settings.mask else None
    folder = out / FOLDER
    digest = _digest(space, settings, mask)
    facts = _facts_there(folder)
    if facts.get("digest") != digest:
        facts = _make_maps(folder, space, settings, mask, digest, workers, store, progress)
    lease.check()
    facts |= write_design(folder, design, subjects, space.grid)
    write_atomic(folder / FACTS, to_json(facts))  # last: it says that the others are there
    return facts


def _digest(space: TemplateSpace, settings: MorphometrySettings, mask: Nifti | None) -> str:
    """Of all that the maps depend on."""
    return digest_of({
        "schema": _SCHEMA,
        "template": space.published.sha256,
        "runs": [RunSpec.load(one).plan_digest for one in space.runs],
        "subjects": list(space.subjects),
        "affine": settings.affine,
        "fwhm_mm": settings.fwhm_mm,
        "mask": None if mask is None else mask.sha256,
    })  # fmt: skip


def _make_maps(
    folder: Path,
    space: TemplateSpace,
    settings: MorphometrySettings,
    given: Nifti | None,
    digest: str,
    workers: int,
    store: Where | None,
    progress: Progress,
) -> dict[str, Any]:
    """Make every subject's map, and of them the files that hold them all; returns the facts."""
    work = folder / _WORK / digest
    _prepare(folder, work)
    mask = space.mask(given, workers)
    if not mask.any():
        share = f"{SEEN:.0%}"
        where = "template" if given is None else f"mask {given.path}"
        raise SubjectError("E_EMPTY", f"no voxel of the {where} was seen in {share} of subjects")
    write_image(folder / MASK, mask.astype(np.uint8), space.grid, "where maps are smoothed")
    names = space.structures()
    jobs = [
        MapJob(
            subject_id,
            run_dir,
            store or space.store,
            folder / MASK,
            space.labels,
            tuple(names),
            settings.affine,
            settings.fwhm_mm,
            digest,
            work / f"{number:05d}.npz",
        )
        for number, (subject_id, run_dir) in enumerate(space.subjects.items())
    ]
    left = [job for job in jobs if not job.into.exists()]
    for done, _ in enumerate(
        in_processes(make_map, left, workers), start=len(jobs) - len(left) + 1
    ):
        progress(done, len(jobs))
    files = {subject: job.into for subject, job in zip(space.subjects, jobs, strict=True)}
    folded = write_maps(folder, files, space, mask)
    remove(folder / _WORK)
    sigma_mm = settings.fwhm_mm / FWHM_OF_SIGMA
    return {
        "digest": digest,
        "measure": "ln det of the Jacobian, template to subject; positive where it is larger",
        "affine": settings.affine,
        "fwhm_mm": settings.fwhm_mm,
        "sigma_mm": float(sigma_mm),
        "template": space.published.sha256,
        "subjects": list(space.subjects),
        "failed": space.failed,
        "mask": {
            "voxels": int(mask.sum()),
            "seen_in": SEEN,
            "sha256": None if given is None else given.sha256,
        },
        "folded_voxels": folded,
        "structures": len(names),
        "version": __version__,
    }


def _prepare(folder: Path, work: Path) -> None:
    """Drop what vouches for other maps, and what was begun of them."""
    try:
        (folder / FACTS).unlink(missing_ok=True)
        for other in (folder / _WORK).glob("*"):
            if other != work:
                remove(other)
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error


def _facts_there(folder: Path) -> dict[str, Any]:
    """What an earlier call left, if it came to its end."""
    path = folder / FACTS
    try:
        return dict(json.loads(path.read_bytes())) if (folder / MAPS).exists() else {}
    except (FileNotFoundError, ValueError):
        return {}
    except OSError as error:
        raise storage_error(path, error) from error
