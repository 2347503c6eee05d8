"""What morphometry leaves in its folder: maps, subjects, volumes, and the design with its t maps.

    logjacobian.nii.gz       float32 ``[D, H, W, N]``, 0 outside of the mask
    mask.nii.gz              uint8
    subjects.txt             whose volume it is, a line each
    volumes.csv              a row a subject and structure, if the template has labels
    design.mat, design.con   for randomise and PALM; design.json says what they mean
    tstat-COLUMN.nii.gz      of each column of a design

Volumes always count the affine part; means of ln det J are those of the maps before smoothing.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cohort.data.geometry import Grid
from cohort.data.storage import storage_error, to_json, write_atomic
from cohort.studies.morphometry_design import INTERCEPT, Design
from cohort.studies.morphometry_maps import SubjectMap
from cohort.studies.morphometry_space import TemplateSpace, read_values
from cohort.studies.morphometry_statistic import t_maps
from cohort.studies.nifti_images import read_volumes, write_image, write_volumes

MAPS, MASK, SUBJECTS, VOLUMES = "logjacobian.nii.gz", "mask.nii.gz", "subjects.txt", "volumes.csv"
_PERMUTATIONS = 5000


def write_maps(
    folder: Path, files: Mapping[str, Path], space: TemplateSpace, mask: np.ndarray
) -> int:
    """Write the maps of all subjects, a volume at a time, and their table of volumes.

    Args:
        folder: where to.
        files: what was found of each subject, in order.
        space: the template's.
        mask: bool ``[D, H, W]``.

    Returns:
        How many voxels were folded, over all subjects.

    Raises:
        StorageError: if something cannot be read or written.
    """
    rows: list[tuple[str, np.ndarray, np.ndarray]] = []
    folded = []

    def volumes() -> Iterator[np.ndarray]:
        for subject_id, path in files.items():
            found = SubjectMap.load(path)
            rows.append((subject_id, found.volumes_mm3, found.means))
            folded.append(found.folded)
            volume = np.zeros(mask.shape, dtype=np.float32)
            volume[mask] = found.values
            yield volume

    shape = (*space.grid.shape, len(files))
    write_volumes(folder / MAPS, volumes(), shape, space.grid, np.dtype(np.float32))
    write_atomic(folder / SUBJECTS, "".join(f"{one}\n" for one in files).encode())
    _write_table(folder / VOLUMES, rows, space)
    return sum(folded)


def write_design(
    folder: Path, design: Design, subjects: Sequence[str], grid: Grid
) -> dict[str, Any]:
    """Write a design and its t maps in the place of an earlier one's; returns what to say of it.

    Raises:
        StorageError: if the maps cannot be read, or the files cannot be written.
    """
    try:
        for path in folder.glob("tstat-*.nii.gz"):
            path.unlink()  # of an earlier design
    except OSError as error:
        raise storage_error(folder, error) from error
    write_atomic(folder / "design.mat", design.as_mat())
    write_atomic(folder / "design.con", design.as_con())
    write_atomic(folder / "design.json", to_json(design.as_json(subjects)))
    statistics = {}
    columns = [one for one in design.columns if one != INTERCEPT]
    if columns:
        mask = read_values(folder / MASK) > 0
        for name, values in t_maps(read_volumes(folder / MAPS), design).items():
            write_image(folder / f"tstat-{name}.nii.gz", values, grid, f"t of {name}")
            inside = values[mask]
            statistics[name] = {"t_min": float(inside.min()), "t_max": float(inside.max())}
    return {
        "columns": list(design.columns),
        "ignored": list(design.ignored),
        "degrees_of_freedom": design.matrix.shape[0] - design.matrix.shape[1],
        "statistics": statistics,
        "randomise": _randomise(design),
    }


def _randomise(design: Design) -> str:
    """The command to be run in the folder: permutations, threshold-free cluster enhancement."""
    tested = ["-1"]  # the mean of one group, by flipping signs
    if len(design.columns) > 1:
        tested = ["-d", "design.mat", "-t", "design.con"]
    common = ["randomise", "-i", MAPS, "-o", "randomise", "-m", MASK]
    return shlex.join([*common, *tested, "-n", str(_PERMUTATIONS), "-T"])


def _write_table(
    path: Path, rows: Sequence[tuple[str, np.ndarray, np.ndarray]], space: TemplateSpace
) -> None:
    """A row a subject and structure; no table if there are no structures."""
    names = space.structures()
    if space.labels is None or not names:
        path.unlink(missing_ok=True)
        return
    counts = np.bincount(read_values(space.labels).ravel(), minlength=max(names) + 1)
    voxel_mm3 = float(abs(np.linalg.det(space.grid.affine[:3, :3])))
    own = counts[list(names)] * voxel_mm3
    table = pl.DataFrame({
        "subject": [one for one, _, _ in rows for _ in names],
        "structure": [value for _ in rows for value in names],
        "name": [name for _ in rows for name in names.values()],
        "template_mm3": np.tile(own, len(rows)),
        "volume_mm3": np.concatenate([volumes for _, volumes, _ in rows]),
        "mean_log_jacobian": np.concatenate([means for _, _, means in rows]),
    })  # fmt: skip
    rounded = table.with_columns(pl.col("mean_log_jacobian").fill_nan(None))
    write_atomic(path, rounded.write_csv(float_precision=6).encode())
