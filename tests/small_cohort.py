"""Small NIfTI cohorts for tests: a blob with contrast and three labels, each a little different."""

from pathlib import Path

import numpy as np

from cohort.data.geometry import Grid
from cohort.data.nifti import write_nifti

GRID = Grid.axis_aligned((12, 14, 10), (2.0, 2.0, 2.0), (5.0, -3.0, 7.0))


def volume(seed: int, grid: Grid = GRID) -> np.ndarray:
    """float32 ``[D, H, W]``: an off-centre blob with noise, never constant."""
    random = np.random.default_rng(seed)
    voxels = np.stack(np.indices(grid.shape), axis=-1) / np.array(grid.shape)
    blob = np.exp(-8 * ((voxels - random.uniform(0.4, 0.6, 3)) ** 2).sum(-1))
    return (100 * blob + random.random(grid.shape)).astype(np.float32)


def labels(seed: int, grid: Grid = GRID) -> np.ndarray:
    """uint16 ``[D, H, W]``: 0 outside the blob, 1 to 3 inside."""
    return np.digitize(volume(seed, grid), (40, 60, 80)).astype(np.uint16)


def write_subject(source: Path, subject_id: str, seed: int, grid: Grid = GRID) -> None:
    """images/ and labels/ of one subject."""
    for folder, data in (("images", volume(seed, grid)), ("labels", labels(seed, grid))):
        (source / folder).mkdir(parents=True, exist_ok=True)
        write_nifti(source / folder / f"{subject_id}.nii.gz", data, grid.affine)


def half_written(folder: Path) -> list[Path]:
    """What writers leave in ``folder`` when they die; nothing may be left otherwise."""
    return [path for path in folder.rglob("*") if path.name.startswith((".tmp-", ".old-"))]


def write_cohort(source: Path, subject_ids: tuple[str, ...] = ("a", "b", "c")) -> Path:
    """A folder source with images and labels."""
    for seed, subject_id in enumerate(subject_ids):
        write_subject(source, subject_id, seed)
    return source
