"""The volume that the first pass registers to, and what any pass registered to."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import torch

from cohort.config.atlas import AtlasSettings
from cohort.config.sums import SumSettings
from cohort.data.entries import nifti_stem
from cohort.data.one_thread import one_thread
from cohort.data.places import Where
from cohort.data.processes import in_processes
from cohort.data.store import CohortStore, Subject
from cohort.data.subject_ids import id_fault
from cohort.engine.adding import Adder, normal
from cohort.engine.atlas import Template, bring_atlas
from cohort.engine.nearest import likeness
from cohort.engine.scan import Scan
from cohort.engine.sums import Sums
from cohort.errors import SubjectError, UsageError
from cohort.studies.atlas.means import mean_volume, with_mirror_images
from triton_reg import Displacement

_FOLDER = "start"


@dataclass(frozen=True)
class _Job:
    store: Where
    subjects: tuple[str, ...]
    settings: SumSettings


def start_volume(
    out: Path, store: CohortStore, settings: AtlasSettings, workers: int
) -> np.ndarray:
    """float32 ``[D, H, W]`` on the working grid, normalised as the subjects will be.

    Raises:
        UsageError: ``E_ATLAS`` if a file cannot be used.
        SubjectError: if no subject can be read, or not the one that is named.
    """
    if settings.start == "mean":
        return affine_mean_volume(store, settings, workers)
    volume = _started(out, store, settings)
    return (volume + volume[::-1]) / 2 if settings.symmetric else volume


def _started(out: Path, store: CohortStore, settings: AtlasSettings) -> np.ndarray:
    start = settings.start
    if nifti_stem(Path(start).name) is not None:
        return _of_file(out, store, settings, Path(start))
    chosen = medoid(store, settings.subjects) if start == "medoid" else start
    return _normal(store, chosen, settings)


def check_start(store: CohortStore, settings: AtlasSettings) -> None:
    """Refuse a template that could not begin, before anything is written.

    Raises:
        UsageError: ``E_ATLAS`` if ``start`` names nothing that is there, or the template has the
            name of a subject, or none that a subject could have.
    """
    start, name = settings.start, settings.name
    is_file = nifti_stem(Path(start).name) is not None and Path(start).is_file()
    stem = nifti_stem(Path(start).name)
    if is_file and stem in store.subject_ids:
        raise UsageError(
            "E_ATLAS", f"{start} is named as a subject of the store; use --start {stem}"
        )
    if start not in ("mean", "medoid", *store.subject_ids) and not is_file:
        raise UsageError(
            "E_ATLAS",
            f"start is {start!r}; need mean, medoid, a subject of the store or a NIfTI file",
        )
    fault = id_fault(name)
    if fault:
        raise UsageError("E_ATLAS", f"--name: {fault}")
    if name.casefold() in {one.casefold() for one in store.subject_ids}:
        raise UsageError("E_ATLAS", f"{name} is a subject of the store; choose another --name")


def affine_mean_volume(store: CohortStore, settings: AtlasSettings, workers: int) -> np.ndarray:
    """The mean of the subjects where ingest left them, with their mirror images if symmetric."""
    sums = stationary_sums(store, settings, workers)
    if settings.symmetric:
        sums = with_mirror_images(sums)
    return mean_volume(sums, settings.center)


def stationary_sums(store: CohortStore, settings: AtlasSettings, workers: int) -> Sums:
    """What the subjects add up to where ingest left them, without those that cannot be read.

    Raises:
        SubjectError: ``E_EMPTY`` if none can be read.
    """
    wanted = settings.sums(detail=False)
    count = max(1, min(workers, len(settings.subjects)))  # sums in memory, whatever the subjects
    groups = [settings.subjects[first::count] for first in range(count)]
    jobs = [_Job(store.address, group, wanted) for group in groups]
    found = [one for one in in_processes(_stationary, jobs, workers) if one is not None]
    if not found:
        raise SubjectError("E_EMPTY", f"no subject of {store.where} can be read")
    return reduce(add, found)


def as_template(name: str, volume: np.ndarray) -> Template:
    """A volume on the working grid as a run takes it."""
    return Template(Subject(name, volume=volume), {"source": None})


def kept_template(run_dir: Path) -> Template:
    """What a pass registered to."""
    own = CohortStore.open(run_dir / "atlas.zarr")
    subject = own.read(own.subject_ids[0])
    return as_template(subject.subject_id, subject.volume)


def medoid(store: CohortStore, subjects: Sequence[str]) -> str:
    """The subject that looks most like all others, as ingest aligned them."""
    mean = likeness(store, subjects).mean(axis=1)
    return subjects[int(mean.argmax())]


def _stationary(job: _Job) -> Sums | None:
    store = CohortStore.open(job.store)
    adder = Adder(job.settings, store.grid.shape)
    still = Displacement(torch.zeros(1, 3, 2, 2, 2), store.grid.shape, store.grid.shape)
    with one_thread(), torch.inference_mode():
        for subject_id in job.subjects:
            try:
                adder.add(subject_id, Scan.of(store.read(subject_id)), still)
            except SubjectError:  # its pair will be a row with its fault
                continue
    return adder.sums


def _normal(store: CohortStore, subject_id: str, settings: AtlasSettings) -> np.ndarray:
    scan = Scan.of(store.read(subject_id))
    return normal(scan, settings.normalise)[0, 0].numpy()


def _of_file(out: Path, store: CohortStore, settings: AtlasSettings, image: Path) -> np.ndarray:
    """A file as ingest would bring it in."""
    folder = out / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    try:
        own = bring_atlas(folder, store, image, None)
        return _normal(own, own.subject_ids[0], settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
