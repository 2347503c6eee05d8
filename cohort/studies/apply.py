"""Images, labels and points of one subject, brought through a run to another: native to native."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from cohort.data.entries import NIFTI_SUFFIXES, nifti_stem
from cohort.data.geometry import Grid
from cohort.data.header_choices import HeaderChoices
from cohort.data.keypoints import PointTable, read_points, write_points
from cohort.data.nifti import Nifti, read_nifti
from cohort.data.nifti_bytes import read_header
from cohort.data.storage import write_atomic
from cohort.engine.pair_faults import pair_fault
from cohort.engine.workbench import Workbench
from cohort.errors import SubjectError, UsageError
from cohort.studies.native_space import NativePair, NativeSubject, Route, native_pair
from cohort.studies.nifti_images import write_image
from cohort.studies.resample import Interpolation, resample_labels, resample_volume

Kind = Literal["volume", "labels", "points"]
_VOLUMES = {
    "subject": pl.String,
    "label": pl.Int64,
    "name": pl.String,
    "voxels": pl.Int64,
    "volume_mm3": pl.Float64,
}


@dataclass(frozen=True)
class Task:
    """What to bring through a chain.

    kind: what the file holds. path: the file; images lie in the world of the subject that is
    resampled, points in that of the one they start from. like: a NIfTI file in the world of the
    subject that images arrive on, whose grid they get; that subject's own file if omitted.
    interpolation: of labels.
    """

    kind: Kind
    path: Path
    like: Path | None = None
    interpolation: Interpolation = "nearest"

    @property
    def stem(self) -> str:
        """The name of the file without its ending."""
        return nifti_stem(self.path.name) or self.path.stem

    def default_name(self, onto: str, of: str) -> str:
        """What the result is called if nobody says."""
        if self.kind == "points":
            return f"{self.stem}_in_{of}.csv"
        return f"{self.stem}_{self.kind}_on_{onto}.nii.gz"


@dataclass(frozen=True, eq=False)
class Applied:
    """One result.

    out: the file. direction: what was done, as a sentence. residual_voxels: of inverted
    displacements, as :class:`cohort.studies.native_space.NativePair` has it. volumes: for labels,
    one row a structure.
    """

    onto: str
    of: str
    out: Path
    direction: str
    residual_voxels: tuple[float, float] | None
    volumes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_VOLUMES))


@dataclass(frozen=True, eq=False)
class AppliedToAll:
    """The results by the subject that they belong to; failed: a code and a sentence each."""

    done: dict[str, Applied]
    failed: dict[str, SubjectError]

    @property
    def volumes(self) -> pl.DataFrame:
        """Of all structures of all subjects."""
        empty = pl.DataFrame(schema=_VOLUMES)
        return pl.concat([empty, *(one.volumes for one in self.done.values())])


def apply(workbench: Workbench, route: Route, task: Task, out: Path) -> Applied:
    """Bring a file through one route of a run and write the result to ``out``.

    Raises:
        UsageError: ``E_EXISTS`` if ``out`` is there, or its folder is not; ``E_APPLY`` if its
            ending or the file's owner does not fit; ``E_PAIRS`` as
            :func:`cohort.studies.native_space.native_pair` does.
        SubjectError: if a subject or the file cannot be used.
    """
    endings = (".csv",) if task.kind == "points" else NIFTI_SUFFIXES
    if not out.name.endswith(endings):
        raise UsageError(
            "E_APPLY",
            f"the result would be {out}; {task.kind} need a name in {' or '.join(endings)}",
        )
    _refuse_existing(out)
    pair = native_pair(workbench, route)
    loaded = _load(task, pair.of.choices)
    owner, other = (pair.onto, pair.of) if task.kind == "points" else (pair.of, pair.onto)
    _check_owner(task, loaded.sha256, owner, other)
    names = workbench.store.settings.get("structures") or {}
    return _write(pair, task, loaded, out, names)


def apply_to_all(
    workbench: Workbench,
    pairs: Sequence[tuple[str, str]],
    task: Task,
    out: Path,
    progress: Callable[[int, int, int], None] = lambda done, total, failed: None,
) -> AppliedToAll:
    """Bring one file of the moving subject to the fixed subject of every pair, into a folder.

    Args:
        pairs: ``(fixed, moving)`` of the run, all with one moving subject.
        task: images and labels of the moving subject, or points, which then go from it.
        out: a new folder; for labels it also gets ``volumes.csv``.
        progress: called with how many are done, how many there are, and how many failed.

    Raises:
        UsageError: ``E_EXISTS`` if ``out`` is there, or the folder around it is not; ``E_APPLY``
            if the file is another subject's.
        SubjectError: if the file or the moving subject cannot be used.
        StorageError: if the store or the folder cannot be read or written.
    """
    _refuse_existing(out)
    moving = pairs[0][1]
    loaded = _load(task, NativeSubject.of(workbench, moving).choices)
    _check_owner_among(workbench, pairs, task, loaded.sha256)
    names = workbench.store.settings.get("structures") or {}
    found = AppliedToAll({}, {})
    out.mkdir()
    for number, (fixed, _) in enumerate(pairs, start=1):
        route = Route(fixed, moving, inverse=task.kind == "points")
        try:
            path = out / task.default_name(onto=fixed, of=fixed)
            found.done[fixed] = _write(native_pair(workbench, route), task, loaded, path, names)
        except UsageError:
            raise
        except Exception as error:  # as in a run, whatever the method does to one pair
            found.failed[fixed] = pair_fault(workbench, [(fixed, moving)], error)
        progress(number, len(pairs), len(found.failed))
    if task.kind == "labels":
        write_atomic(out / "volumes.csv", found.volumes.write_csv().encode())
    return found


def structure_volumes(
    labels: np.ndarray, grid: Grid, subject_id: str, names: dict[str, str]
) -> pl.DataFrame:
    """Voxels and mm³ of each structure of ``labels [D, H, W]``; names by label, where known."""
    values, voxels = np.unique(labels[labels > 0], return_counts=True)
    # nine decimals: what is beyond is the rounding of float32 headers
    voxel_mm3 = round(abs(float(np.linalg.det(grid.affine[:3, :3]))), 9)
    rows = [
        (subject_id, label, names.get(str(label)), count, count * voxel_mm3)
        for label, count in zip(values.tolist(), voxels.tolist(), strict=True)
    ]
    return pl.DataFrame(rows, schema=_VOLUMES, orient="row")


def _load(task: Task, choices: HeaderChoices) -> Nifti | PointTable:
    if task.kind == "points":
        return read_points(task.path)
    return read_nifti(task.path, content=task.kind, choices=choices)


def _write(
    pair: NativePair, task: Task, loaded: Nifti | PointTable, out: Path, names: dict[str, str]
) -> Applied:
    onto, of = pair.onto.subject_id, pair.of.subject_id
    applied = Applied(onto, of, out, pair.direction, pair.residual_voxels)
    if isinstance(loaded, PointTable):
        points_mm = pair.chain.map_points(loaded.ras_mm(pair.onto.grid))
        write_points(out, loaded, points_mm, pair.of.grid, {"from": onto, "to": of})
        return applied
    grid = _grid_like(task.like, pair.onto)
    said = f"{of} resampled onto {onto}"
    if task.kind == "volume":
        volume = resample_volume(loaded.data, loaded.grid, pair.chain, grid)
        write_image(out, volume, grid, said)
        return applied
    labels = loaded.data.astype(_label_dtype(loaded))
    resampled = resample_labels(labels, loaded.grid, pair.chain, grid, task.interpolation)
    write_image(out, resampled, grid, said)
    volumes = structure_volumes(resampled, grid, onto, names)
    return Applied(onto, of, out, pair.direction, pair.residual_voxels, volumes)


def _check_owner(task: Task, digest: str, owner: NativeSubject, other: NativeSubject) -> None:
    """Refuse a file that the record of ``other`` knows as its own, where one of ``owner`` goes."""
    roles = [role for role, known in other.sha256.items() if known == digest]
    if roles and digest not in owner.sha256.values():
        raise UsageError(
            "E_APPLY",
            f"{task.path} is the {roles[0]} of {other.subject_id}; need {task.kind} of"
            f" {owner.subject_id}. --inverse goes the other way",
        )


def _check_owner_among(
    workbench: Workbench, pairs: Sequence[tuple[str, str]], task: Task, digest: str
) -> None:
    owner = NativeSubject.of(workbench, pairs[0][1])
    for fixed, _ in pairs:
        with suppress(SubjectError):  # a broken subject fails when its turn comes
            _check_owner(task, digest, owner, NativeSubject.of(workbench, fixed))


def _grid_like(like: Path | None, onto: NativeSubject) -> Grid:
    """The grid of a file in its own axis order."""
    if like is None:
        return onto.grid
    header = read_header(like)
    header.require(())
    return header.place(onto.choices).grid


def _label_dtype(labels: Nifti) -> np.dtype:
    """The file's own type if it stores the labels as they are."""
    stored = np.dtype(labels.header["dtype"])
    return stored if stored.kind in "iu" and labels.header["scale"] is None else np.dtype("u2")


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise UsageError("E_EXISTS", f"{out} is there already; need the name of a new one")
    if not out.parent.is_dir():
        raise UsageError("E_EXISTS", f"{out.parent} is no folder; need one to put {out.name} in")
