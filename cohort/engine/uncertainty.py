"""What a run keeps, on request, of how sure its method is of each displacement."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cohort.data.storage import storage_error, write_atomic
from cohort.errors import StorageError, UsageError

# what a method may say in a result's extras; anything else there is not of this kind
KINDS = ("entropy", "covariance")
_FOLDER = "uncertainty"


def said(extras: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """What the extras of one registered pair say, as float16 without the batch."""
    return {kind: extras[kind][0].half().cpu().numpy() for kind in KINDS if kind in extras}


def keep(
    run_dir: Path, tile_id: str, pairs: Mapping[tuple[str, str], Mapping[str, np.ndarray]]
) -> None:
    """Write what was said of a tile's pairs to ``RUN/uncertainty/TILE.npz``.

    ``fixed`` and ``moving`` name the pairs; the other arrays have one row a pair. Pairs that failed
    are left out.

    Raises:
        StorageError: if the file cannot be written.
    """
    if not pairs:
        return
    arrays: dict[str, Any] = {
        kind: np.stack([one[kind] for one in pairs.values()])
        for kind in KINDS
        if all(kind in one for one in pairs.values())
    }
    fixed, moving = zip(*pairs, strict=True)
    content = io.BytesIO()
    np.savez_compressed(content, fixed=np.array(fixed), moving=np.array(moving), **arrays)
    folder = run_dir / _FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    write_atomic(folder / f"{tile_id}.npz", content.getvalue())


def kept(run_dir: Path, fixed: str, moving: str) -> dict[str, np.ndarray]:
    """What was kept of one pair: ``entropy [d, h, w]``, ``covariance [6, d, h, w]``.

    Raises:
        UsageError: ``E_PAIRS`` if nothing was.
        StorageError: ``E_KEPT`` if what was kept is damaged.
    """
    for file in sorted((run_dir / _FOLDER).glob("*.npz")):
        found = _of_pair(file, fixed, moving)
        if found is not None:
            return found
    raise UsageError(
        "E_PAIRS",
        f"{run_dir} keeps no uncertainty of ({fixed}, {moving}); `cohort register"
        " --keep-uncertainty` keeps that of each pair that it registers",
    )


def _of_pair(file: Path, fixed: str, moving: str) -> dict[str, np.ndarray] | None:
    try:
        # read whole first: numpy leaves a damaged file open
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            rows = np.flatnonzero((arrays["fixed"] == fixed) & (arrays["moving"] == moving))
            if not len(rows):
                return None
            return {kind: arrays[kind][rows[0]] for kind in KINDS if kind in arrays}
    except OSError as error:
        raise storage_error(file, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise StorageError("E_KEPT", f"{file} is damaged: {error}") from error
