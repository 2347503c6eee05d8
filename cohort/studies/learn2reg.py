"""Displacements as the Learn2Reg challenges take them.

``disp_XXXX_YYYY``: fixed and moving subject by four digits, in voxels of the grid they lie on, as
scipy's ``map_coordinates`` adds them to the voxel positions, at full resolution in float32:
``.nii.gz`` as (X, Y, Z, 3) and ``.npz`` as ``arr_0`` (3, X, Y, Z).
"""

import io
import re
from pathlib import Path

import numpy as np

from cohort.data.geometry import Grid
from cohort.data.storage import write_atomic
from cohort.errors import UsageError
from cohort.studies.chain import Chain, slabs
from cohort.studies.nifti_images import write_image

_MOST = 9999


def challenge_numbers(subject_ids: tuple[str, ...]) -> dict[str, str]:
    """Four digits for each subject: those its id ends with if they single it out, else its place.

    Raises:
        UsageError: ``E_EXPORT`` if there are more subjects than four digits can count.
    """
    if len(subject_ids) > _MOST:
        raise UsageError(
            "E_EXPORT", f"Learn2Reg counts {_MOST} subjects, this run has {len(subject_ids)}"
        )
    endings = [re.search(r"\d+$", subject_id) for subject_id in subject_ids]
    numbers = [int(found.group()) for found in endings if found]
    if len(set(numbers)) < len(subject_ids) or max(numbers) > _MOST:
        numbers = list(range(1, len(subject_ids) + 1))
    return {name: f"{number:04d}" for name, number in zip(subject_ids, numbers, strict=True)}


def working_displacement(chain: Chain, grid: Grid) -> np.ndarray:
    """A chain between working spaces alone, float32 ``[3, D, H, W]`` in voxels of ``grid``."""
    matrices = (np.eye(4), *chain.matrices[1:-1], np.eye(4))
    working = Chain(chain.source, chain.target, matrices, chain.fields)
    vectors = np.empty((3, *grid.shape), dtype=np.float32)
    for slab, voxels in slabs(grid.shape):
        away = working.map(voxels, grid, grid) - voxels
        vectors[:, slab] = away.reshape(vectors[:, slab].shape)
    return vectors


def write_learn2reg(folder: Path, name: str, chain: Chain, grid: Grid) -> dict[str, str]:
    """Write both files of one pair; what each holds, by its name."""
    vectors = working_displacement(chain, grid)
    said = f"{chain.target} onto {chain.source}, voxels of the working grid"
    write_image(folder / f"{name}.nii.gz", np.moveaxis(vectors, 0, -1), grid, said)
    packed = io.BytesIO()
    np.savez_compressed(packed, vectors)
    write_atomic(folder / f"{name}.npz", packed.getvalue())
    return {f"{name}.nii.gz": f"{said}, (X, Y, Z, 3)", f"{name}.npz": f"{said}, (3, X, Y, Z)"}
