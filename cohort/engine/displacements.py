"""The displacements that a run keeps, on request: on the method's own grid, as 16-bit integers.

``RUN/displacements.zarr/TILE`` is one array of a tile's pairs. A component u of a pair is kept as
round(u / s) with s = max |u| / 32767, which is at most s / 2 away, wherever it lies: many times
closer than float16 at the same size. Between its points a displacement is linear, so that the
bound of a pair holds at every voxel.
"""

import hashlib
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cohort.data.layout import digest_of
from cohort.data.stacks import read_facts, read_row, write_stack
from cohort.data.storage import (
    REPLACED,
    TEMPORARY,
    is_storage_fault,
    remove,
    storage_error,
)
from cohort.engine.spec import RunSpec
from cohort.errors import StorageError, UsageError
from triton_reg.displacement import Displacement
from triton_reg.ops.resize import Shape

FOLDER = "displacements.zarr"
_SCHEMA = 1
_LEVELS = 32767
_HALF_STEP = 0.502  # of s: half, and the rounding of float32 at the largest |u|


@dataclass(frozen=True, eq=False)
class Packed:
    """One displacement as it is kept.

    Attributes:
        values: int16 ``[3, d, h, w]``.
        facts: what is said of it: ``scale`` (voxels a step, per component), ``bound_mm`` and
            ``error_mm`` (how far it can be and is from the original, at most), ``sha256`` of the
            values, ``displacement_sha256`` of the original's float32.
        shapes: of the fixed and the moving volume.
    """

    values: np.ndarray
    facts: dict[str, Any]
    shapes: tuple[Shape, Shape]


@dataclass(frozen=True, eq=False)
class KeptDisplacement:
    """A displacement that a run kept.

    Attributes:
        displacement: a batch of one, float32, on the CPU.
        bound_mm: no voxel's vector is further than this from the one that was registered.
        error_mm: the largest distance of them, as measured when it was kept.
        displacement_sha256: of what was registered, float32 ``[3, d, h, w]`` in C order.
    """

    displacement: Displacement
    bound_mm: float
    error_mm: float
    displacement_sha256: str


def packed(displacement: Displacement, spacing_mm: tuple[float, float, float]) -> Packed | None:
    """One pair's displacement in 16 bits; None if it is not finite.

    Args:
        displacement: a batch of one.
        spacing_mm: of the moving voxels, which are its unit.
    """
    vectors = displacement.vectors[0].float().cpu().numpy()
    if not np.isfinite(vectors).all():
        return None
    scale = np.abs(vectors).max(axis=(1, 2, 3)).astype(np.float64) / _LEVELS
    steps = np.where(scale > 0, scale, 1.0)[:, None, None, None]
    values = np.rint(vectors / steps).astype(np.int16)
    spacing = np.array(spacing_mm)
    away_mm = (_restored(values, scale) - vectors) * spacing[:, None, None, None]
    facts = {
        "scale": scale.tolist(),
        "bound_mm": float(np.linalg.norm(_HALF_STEP * scale * spacing)),
        "error_mm": float(np.linalg.norm(away_mm, axis=0).max()),
        "sha256": _sha256(values),
        "displacement_sha256": _sha256(vectors),
    }
    return Packed(values, facts, (displacement.fixed_shape, displacement.moving_shape))


def keep(run_dir: Path, tile_id: str, pairs: Mapping[tuple[str, str], Packed]) -> None:
    """Write what is kept of a tile, before its part, which vouches for it.

    Raises:
        StorageError: if it cannot be written.
    """
    if not pairs:
        return
    rows = [{"fixed": f, "moving": m, **one.facts} for (f, m), one in pairs.items()]
    fixed_shape, moving_shape = next(iter(pairs.values())).shapes
    document = {
        "schema": _SCHEMA,
        "fixed_shape": list(fixed_shape),
        "moving_shape": list(moving_shape),
        "pairs": rows,
    }
    values = np.stack([one.values for one in pairs.values()])
    facts = {"cohort": {**document, "digest": digest_of(document)}}
    write_stack(run_dir / FOLDER / tile_id, values, facts)


def read_kept(run_dir: Path, spec: RunSpec, fixed: str, moving: str) -> KeptDisplacement:
    """The displacement that a run kept of one pair.

    For example ``read_kept(run_dir, RunSpec.load(run_dir), "a", "b").displacement.full()``.

    Raises:
        UsageError: ``E_PAIRS`` if it kept none.
        StorageError: ``E_KEPT`` if it is damaged.
    """
    blocks = sorted(spec.subject_ids.index(one) // spec.tile_size for one in (fixed, moving))
    folder = run_dir / FOLDER / "{:05d}-{:05d}".format(*blocks)
    missing = UsageError(
        "E_PAIRS",
        f"{run_dir} keeps no displacement of ({fixed}, {moving}); `cohort register"
        " --keep-displacements` says which are kept, and any pair can be registered once more",
    )
    if not folder.is_dir():
        raise missing
    try:
        document = _document(folder)
        for row, said in enumerate(document["pairs"]):
            if (said["fixed"], said["moving"]) == (fixed, moving):
                return _unpacked(folder, row, document)
    except Exception as error:  # zarr has many names for damage
        raise _damaged(folder, error) from error
    raise missing


def sweep_kept(run_dir: Path) -> None:
    """Remove what writers that died left; only the run's one driver may.

    Raises:
        StorageError: if the folder cannot be listed.
    """
    folder = run_dir / FOLDER
    try:
        left = [path for path in folder.iterdir() if path.name.startswith((TEMPORARY, REPLACED))]
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(folder, error) from error
    for path in left:
        remove(path)


def check_kept(run_dir: Path, tile_id: str, pairs: Set[tuple[str, str]] = frozenset()) -> None:
    """Read all that was kept of a tile, if anything was.

    Args:
        run_dir: the run.
        tile_id: the tile.
        pairs: of which something must be there.

    Raises:
        StorageError: ``E_KEPT`` if it is damaged, or lacks one of the pairs.
    """
    folder = run_dir / FOLDER / tile_id
    if not folder.is_dir() and not pairs:
        return
    try:
        document = _document(folder)
        there = {(said["fixed"], said["moving"]) for said in document["pairs"]}
        for row in range(len(document["pairs"])):
            _unpacked(folder, row, document)
    except Exception as error:
        raise _damaged(folder, error) from error
    if pairs - there:
        raise _damaged(folder, ValueError(f"it has nothing of {min(pairs - there)}"))


def _document(folder: Path) -> dict[str, Any]:
    shape, facts = read_facts(folder)
    document = dict(facts["cohort"])
    if document.pop("digest") != digest_of(document):
        raise ValueError("what it says of its pairs is not what was written")
    if document["schema"] != _SCHEMA:
        raise ValueError(f"it has schema {document['schema']}; this program reads {_SCHEMA}")
    full = (3, *document["fixed_shape"])
    if len(shape) != 5 or shape[0] != len(document["pairs"]) or np.prod(shape[1:]) > np.prod(full):
        raise ValueError(f"it holds {list(shape)} for {len(document['pairs'])} pairs of {full}")
    return document


def _unpacked(folder: Path, row: int, document: dict[str, Any]) -> KeptDisplacement:
    said, values = document["pairs"][row], read_row(folder, row)
    if _sha256(values) != said["sha256"]:
        raise ValueError(f"the values of ({said['fixed']}, {said['moving']}) are others")
    vectors = torch.from_numpy(_restored(values, np.array(said["scale"])))[None]
    fixed_shape, moving_shape = (tuple(document[f"{one}_shape"]) for one in ("fixed", "moving"))
    displacement = Displacement(vectors, fixed_shape, moving_shape)
    numbers = said["bound_mm"], said["error_mm"], said["displacement_sha256"]
    return KeptDisplacement(displacement, *numbers)


def _restored(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float32 ``[3, d, h, w]`` in voxels."""
    return (values * scale[:, None, None, None]).astype(np.float32)


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data.cast("B")).hexdigest()


def _damaged(folder: Path, error: Exception) -> StorageError:
    if isinstance(error, OSError) and is_storage_fault(error):
        return storage_error(folder, error)
    return StorageError(
        "E_KEPT",
        f"{folder} is damaged: {error}. Its pairs can be registered once more, without --kept",
    )
