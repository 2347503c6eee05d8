"""What an affine is worth: whether it places voxels at all, whether it shears or mirrors them."""

from dataclasses import dataclass

import numpy as np

# An exact rotation keeps its right angles to 1e-7 in float32, but headers are also written with
# three or four digits. At 1e-3 the far corner of 256 voxels moves by an eighth of a voxel.
MAX_SHEAR = 1e-3


@dataclass(frozen=True)
class AffineFault:
    """Why an affine places no voxels: a code for tables, and what was found and is needed."""

    code: str
    found: str


def affine_fault(affine: np.ndarray) -> AffineFault | None:
    """What keeps ``affine [4, 4]`` from placing voxels in the world, or None."""
    if affine.shape != (4, 4):
        shape = " x ".join(map(str, affine.shape))
        return AffineFault("E_AFFINE", f"affine must be 4 x 4, got {shape}")
    if not np.isfinite(affine).all():
        return AffineFault("E_AFFINE_NAN", f"affine must be finite, got {affine.tolist()}")
    if not np.allclose(affine[3], (0, 0, 0, 1)):
        found = affine[3].tolist()
        return AffineFault("E_AFFINE", f"the last row of an affine must be 0 0 0 1, got {found}")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not lengths.all():
        axes = ", ".join("ijk"[axis] for axis in np.flatnonzero(lengths == 0))
        return AffineFault(
            "E_AFFINE_ZERO",
            f"affine must give every axis a voxel size above 0, has 0 along {axes}: "
            f"{affine[:3].tolist()}",
        )
    # relative to the voxel size, so that micrometres are as good as metres
    if abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-6:
        return AffineFault(
            "E_AFFINE_SINGULAR",
            f"affine must be invertible, has axes that lie in one plane: {affine[:3].tolist()}",
        )
    return None


def shear(affine: np.ndarray) -> float:
    """How far the axes of ``affine [4, 4]`` are from orthogonal: the largest |cosine| of two."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = directions.T @ directions
    return float(np.abs(cosines[np.triu_indices(3, 1)]).max())
