"""A small labelled cohort with sides, for tests of `cohort check`: a liver, a spleen, a spine."""

from pathlib import Path

import numpy as np

from cohort.data.geometry import Grid
from cohort.data.nifti import write_nifti

GRID = Grid.axis_aligned((20, 16, 12), (2.0, 2.0, 3.0), (0.0, 0.0, 0.0))
LIVER, SPLEEN, SPINE = 1, 2, 3


def body(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Volume and labels ``[20, 16, 12]``: liver on the right, spleen on the left."""
    random = np.random.default_rng(seed)
    axes = np.stack(np.indices(GRID.shape), -1) / (np.array(GRID.shape) - 1)
    shift = random.uniform(-0.04, 0.04, 3)
    labels = np.zeros(GRID.shape, np.uint16)
    for value, center, radius in (
        (SPINE, (0.5, 0.2, 0.5), 0.15),
        (LIVER, (0.75, 0.6, 0.5), 0.2),
        (SPLEEN, (0.22, 0.5, 0.5), 0.12),
    ):
        labels[np.linalg.norm(axes - shift - center, axis=-1) < radius] = value
    texture = random.random((4, 4, 4)).repeat(5, 0).repeat(4, 1).repeat(3, 2)
    volume = 100 * labels + 30 * texture + random.random(GRID.shape)
    return volume.astype(np.float32), labels


def write_body(source: Path, name: str, volume: np.ndarray, labels: np.ndarray | None) -> None:
    """images/ and labels/ of one subject, on `GRID`."""
    for folder, data in (("images", volume), ("labels", labels)):
        if data is not None:
            (source / folder).mkdir(parents=True, exist_ok=True)
            write_nifti(source / folder / f"{name}.nii.gz", data, GRID.affine)


def write_bodies(source: Path, subjects: int = 6) -> Path:
    """A source of sub-0, sub-1 and so on with nothing to warn about."""
    for seed in range(subjects):
        write_body(source, f"sub-{seed}", *body(seed))
    return source
