"""A few subjects whose files lie every which way: oblique, anisotropic, flipped, axes swapped."""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation
from small_run import planned

from cohort.data.geometry import Grid
from cohort.data.ingest import ingest
from cohort.data.ingest_settings import Align, IngestSettings
from cohort.data.nifti import write_nifti
from cohort.data.store import CohortStore
from cohort.engine.workbench import Workbench

# centre, half axes (mm) and height of the parts of a body without any symmetry
PARTS = (
    ((0.0, 0.0, 0.0), (34.0, 30.0, 26.0), 100.0),
    ((14.0, 8.0, -6.0), (10.0, 12.0, 9.0), 60.0),
    ((-13.0, -9.0, 6.0), (12.0, 9.0, 10.0), -50.0),
)


def native_grid(
    degrees: tuple[float, float, float],
    spacing_mm: tuple[float, float, float],
    order: tuple[int, int, int],
    flips: tuple[int, int, int],
    center_mm: tuple[float, float, float],
) -> Grid:
    """Axes in ``order``, turned round where ``flips`` is -1, then rotated: 96 mm a side."""
    rotation = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    linear = rotation @ (np.eye(3)[:, order] * flips) * spacing_mm
    affine = np.eye(4)
    # float32, as NIfTI keeps it
    affine[:3, :3] = linear.astype(np.float32)
    first, second, third = (round(96 / mm) for mm in spacing_mm)
    grid = Grid((first, second, third), affine)
    return Grid(grid.shape, grid.centered_on(center_mm).affine.astype(np.float32))


GRIDS = {
    "sub-a1": native_grid((12, -9, 20), (3.0, 4.0, 5.0), (0, 1, 2), (1, 1, 1), (10, -4, 7)),
    "sub-b2": native_grid((-8, 15, -11), (4.0, 3.0, 3.5), (2, 0, 1), (-1, 1, -1), (-6, 12, 0)),
    "sub-c3": native_grid((5, 25, -18), (3.0, 5.0, 3.0), (1, 0, 2), (-1, -1, -1), (0, 3, -9)),
}
STRETCH = {"sub-a1": (1.0, 1.0, 1.0), "sub-b2": (1.1, 0.95, 1.0), "sub-c3": (0.92, 1.0, 1.08)}


def body(grid: Grid, subject_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Volume and labels of a subject's body, which lies around the centre of its grid."""
    points = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    away = (grid.voxel_to_world(points) - GRIDS[subject_id].center_mm) / STRETCH[subject_id]
    volume, labels = np.zeros(grid.shape), np.zeros(grid.shape, np.uint8)
    for label, (center, half, height) in enumerate(PARTS, start=1):
        radius = np.linalg.norm((away - center) / half, axis=-1)
        volume += height / (1 + np.exp(6 * (radius - 1)))
        labels[radius < 1] = label
    return (volume - 20).astype(np.float32), labels


def native_run(folder: Path, align: Align = "center") -> Workbench:
    """Files, store and plan of the subjects in ``folder``, and the run opened."""
    for subject_id, grid in GRIDS.items():
        volume, labels = body(grid, subject_id)
        for role, data in (("images", volume), ("labels", labels)):
            (folder / "nifti" / role).mkdir(parents=True, exist_ok=True)
            write_nifti(folder / "nifti" / role / f"{subject_id}.nii.gz", data, grid.affine)
    (folder / "nifti" / "structures.json").write_text('{"1": "body", "2": "left", "3": "right"}')
    settings = IngestSettings(grid="26x26x26@4mm", align=align)
    report = ingest(folder / "nifti", folder / "cohort.zarr", settings)
    assert not report.quarantined
    store = CohortStore.open(folder / "cohort.zarr")
    return Workbench.open(planned(folder / "run", store))
