"""NIfTI files of a study: on a subject's own grid, with a sentence that says what they are."""

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image

from cohort.data.geometry import Grid
from cohort.data.storage import storage_error, write_atomic

ITK_VECTORS = 1007  # NIFTI_INTENT_VECTOR: read by ITK as it stands, so LPS
RAS_DISPLACEMENT = 1006  # NIFTI_INTENT_DISPVECT: in the file's world, RAS
_MAX_DESCRIPTION = 79
_MAX_SHEAR = 1e-4
_DATA_AT = 352  # bytes: a header of one file, and four that say nothing follows it


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


def write_volumes(
    path: Path,
    volumes: Iterable[np.ndarray],
    shape: tuple[int, int, int, int],
    grid: Grid,
    dtype: np.dtype,
    *,
    slope: float = 1.0,
) -> None:
    """Write a 4D file, one volume in memory at a time; it is there whole or not at all.

    path: ``.nii.gz``. volumes: ``[D, H, W]`` each, as many as ``shape [D, H, W, N]`` says.
    slope: what a stored 1 means.

    Raises:
        StorageError: if it cannot be written.
    """
    header = Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_sform(grid.affine, code=1)
    header.set_qform(grid.affine, code=1 if grid.shear < _MAX_SHEAR else 0)
    header.set_xyzt_units("mm")
    header.set_slope_inter(slope, 0)
    header["vox_offset"], header["magic"] = _DATA_AT, b"n+1"
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with gzip.GzipFile(unfinished, "wb", compresslevel=1, mtime=0) as file:
            file.write(header.binaryblock + bytes(4))
            for volume in volumes:
                file.write(volume.astype(dtype, copy=False).tobytes(order="F"))
        unfinished.rename(path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


def read_volumes(path: Path) -> Iterator[np.ndarray]:
    """The volumes ``[D, H, W]`` of what :func:`write_volumes` wrote, as stored, one at a time.

    Raises:
        StorageError: if it cannot be read.
    """
    try:
        with gzip.open(path, "rb") as file:
            header = Nifti1Header(file.read(_DATA_AT)[: Nifti1Header.sizeof_hdr])
            *shape, count = header.get_data_shape()
            dtype = header.get_data_dtype()
            for _ in range(count):
                content = file.read(int(np.prod(shape)) * dtype.itemsize)
                yield np.frombuffer(content, dtype).reshape(shape, order="F")
    except (OSError, EOFError) as error:
        fault = error if isinstance(error, OSError) else OSError("the file ends too early")
        raise storage_error(path, fault) from error
