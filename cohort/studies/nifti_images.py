"""NIfTI files of a study: on a subject's own grid, with a sentence that says what they are."""

import gzip
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Image

from cohort.data.geometry import Grid
from cohort.data.storage import write_atomic

ITK_VECTORS = 1007  # NIFTI_INTENT_VECTOR: read by ITK as it stands, so LPS
RAS_DISPLACEMENT = 1006  # NIFTI_INTENT_DISPVECT: in the file's world, RAS
_MAX_DESCRIPTION = 79
_MAX_SHEAR = 1e-4


def write_image(
    path: Path, values: np.ndarray, grid: Grid, description: str, intent: int | None = None
) -> None:
    """Write ``values`` with their dtype on ``grid``; the file is there whole or not at all.

    values: ``[D, H, W]``, with further axes behind. description: kept in the header, its first 79
    characters. ``.nii.gz`` is compressed, ``.nii`` is not.
    """
    image = Nifti1Image(values, grid.affine, dtype=values.dtype)
    header = image.header
    header.set_xyzt_units("mm")
    header["descrip"] = description.encode("ascii", "replace")[:_MAX_DESCRIPTION]
    image.set_sform(grid.affine, code=1)
    # a qform cannot hold a shear, and must not say something else than the sform
    image.set_qform(grid.affine, code=1 if grid.shear < _MAX_SHEAR else 0)
    if intent is not None:
        header.set_intent(intent)
    content = image.to_bytes()
    if path.name.endswith(".gz"):
        content = gzip.compress(content, compresslevel=1, mtime=0)
    write_atomic(path, content)
