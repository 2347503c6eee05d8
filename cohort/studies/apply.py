"""Images, labels and points of one subject, brought through a run to another: native to native."""

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
from cohort.engine.workbench import Workbench
from cohort.errors import UsageError
from cohort.studies.native_space import NativePair, NativeSubject, Route, native_pair
from cohort.studies.nifti_images import write_image
from cohort.studies.resample import Interpolation, resample_labels, resample_volume

Kind = Literal["volume", "labels", "points"]
VOLUMES = {
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
    volumes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=VOLUMES))


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
    refuse_existing(out)
    pair = native_pair(workbench, route)
    loaded = load(task, pair.of.choices)
    owner, other = (pair.onto, pair.of) if task.kind == "points" else (pair.of, pair.onto)
    check_owner(task, loaded.sha256, owner, other)
    names = workbench.store.settings.get("structures") or {}
    return write_applied(pair, task, loaded, out, names)


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
    return pl.DataFrame(rows, schema=VOLUMES, orient="row")


def load(task: Task, choices: HeaderChoices) -> Nifti | PointTable:
    """What the file holds; raises :class:`cohort.errors.SubjectError` if it cannot be read."""
    if task.kind == "points":
        return read_points(task.path)
    return read_nifti(task.path, content=task.kind, choices=choices)


def write_applied(
    pair: NativePair, task: Task, loaded: Nifti | PointTable, out: Path, names: dict[str, str]
) -> Applied:
    """Bring what was loaded through a pair, and write it; ``names`` are those of structures."""
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


def check_owner(task: Task, digest: str, owner: NativeSubject, other: NativeSubject) -> None:
    """Refuse a file that the record of ``other`` knows as its own, where one of ``owner`` goes."""
    roles = [role for role, known in other.sha256.items() if known == digest]
    if roles and digest not in owner.sha256.values():
        raise UsageError(
            "E_APPLY",
            f"{task.path} is the {roles[0]} of {other.subject_id}; need {task.kind} of"
            f" {owner.subject_id}. --inverse goes the other way",
        )


def _grid_like(like: Path | None, onto: NativeSubject) -> Grid:
    """The grid of a file in its own axis order."""
    if like is None:
        return onto.grid
    header = read_header(like)
    header.require(())
    return header.place(onto.choices).grid


def _label_dtype(labels: Nifti) -> np.dtype:
    """The file's own type if it stores the labels as they are, in 32 bits at most.

    64 bits are what numpy makes of labels, and what ANTsPy does not read.
    """
    stored = np.dtype(labels.header["dtype"])
    if stored.kind not in "iu" or labels.header["scale"] is not None:
        return np.dtype("u2")
    return stored if stored.itemsize <= 4 else np.dtype("i4")


def refuse_existing(out: Path) -> None:
    """Raise :class:`cohort.errors.UsageError` if ``out`` is there, or its folder is not."""
    if out.exists():
        raise UsageError("E_EXISTS", f"{out} is there already; need the name of a new one")
    if not out.parent.is_dir():
        raise UsageError("E_EXISTS", f"{out.parent} is no folder; need one to put {out.name} in")
