"""NIfTI files in and out: bounded and checksummed reading, canonical RAS order, atomic writing."""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Image

from cohort.data.affine_checks import MAX_SHEAR, shear
from cohort.data.geometry import Grid
from cohort.data.header_choices import HeaderChoices
from cohort.data.nifti_bytes import read_header, read_verified
from cohort.data.nifti_header import Header
from cohort.data.storage import write_atomic
from cohort.errors import SubjectError

MAX_BYTES = 4 << 30
MAX_LABEL = 65535
CANONICAL = "RAS"
_VECTOR_INTENT = 1007
_NO_CHOICES = HeaderChoices()
Content = Literal["volume", "labels", "vectors"]


@dataclass(frozen=True, eq=False)
class Nifti:
    """One file in canonical order (RAS as close as axes can be flipped and swapped).

    data: float32 ``[D, H, W]`` after scaling; for vectors ``[3, D, H, W]``, components as stored.
    affine: ``[4, 4]`` of the canonical order. sha256: of the file. header: what the original header
    said (shape, affine, form codes, which form was used, the choices that it needed, axcodes,
    handedness, oblique, spacing_mm, units, dtype, scale).
    """

    path: Path
    data: np.ndarray
    affine: np.ndarray
    sha256: str
    header: dict[str, Any]

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        first, second, third = self.data.shape[-3:]
        return Grid((first, second, third), self.affine)


def read_nifti(
    path: Path,
    *,
    content: Content = "volume",
    choices: HeaderChoices = _NO_CHOICES,
    max_bytes: int = MAX_BYTES,
) -> Nifti:
    """Read and check one file.

    content: what its values must be: a volume is finite and not constant, labels are integers of 0
    to 65535, vectors are three finite numbers per voxel. choices: what decides where the header
    leaves its meaning open; nothing refuses such a file.

    Raises:
        SubjectError: if the file is damaged, is no such content or leaves open where it lies.
    """
    path = Path(path)
    verified = read_verified(path, max_bytes)
    header = verified.header
    header.require((3,) if content == "vectors" else ())
    placement = header.place(choices)
    data = _scaled(header, verified.content)
    _check_values(path, data, content)
    data = placement.grid.reorder(data, CANONICAL)
    if content == "vectors":
        data = np.moveaxis(data, -1, 0)
    affine = placement.grid.oriented(CANONICAL).affine
    facts = header.facts(placement)
    return Nifti(path, np.ascontiguousarray(data), affine, verified.sha256, facts)


def read_grid(path: Path, *, choices: HeaderChoices = _NO_CHOICES) -> Grid:
    """The canonical grid of a file, from its header alone."""
    header = read_header(Path(path))
    header.require(())
    return header.place(choices).grid.oriented(CANONICAL)


def write_nifti(
    path: Path,
    data: np.ndarray,
    affine: npt.ArrayLike,
    *,
    intent: Literal["none", "vector"] = "none",
) -> None:
    """Write ``data`` with its dtype; the file is there whole or not at all.

    data: ``[D, H, W]``, or with ``intent="vector"`` ``[3, D, H, W]`` in RAS mm, stored the way
    NIfTI wants vectors: (D, H, W, 1, 3). affine: voxel -> RAS mm. ``.nii.gz`` is compressed,
    ``.nii`` is not; equal input gives equal bytes.
    """
    path = Path(path)
    vectors = intent == "vector"
    if data.ndim != (4 if vectors else 3) or (vectors and data.shape[0] != 3):
        needed = "[3, D, H, W]" if vectors else "[D, H, W]"
        raise ValueError(f"write_nifti: need {needed}, got shape {data.shape} for {path}")
    if data.dtype == np.bool_:
        data = data.astype(np.uint8)
    if vectors:
        data = np.moveaxis(data, 0, -1)[:, :, :, None, :]
    affine = np.asarray(affine, dtype=np.float64)
    image = Nifti1Image(data, affine, dtype=data.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    # a quaternion holds no shear: with a code it would contradict the sform
    image.set_qform(affine, code=0 if shear(affine) > MAX_SHEAR else 1)
    if vectors:
        image.header.set_intent(_VECTOR_INTENT)
    content = image.to_bytes()
    if path.name.endswith(".gz"):
        content = gzip.compress(content, compresslevel=5, mtime=0)
    write_atomic(path, content)


def _scaled(header: Header, content: bytes | bytearray) -> np.ndarray:
    """Values as float32, ``[D, H, W]`` or ``[D, H, W, 3]``, in the order of the file."""
    stored = np.frombuffer(content, header.dtype, offset=header.offset)
    shape = header.shape + tuple(size for size in header.dimensions[3:] if size > 1)
    stored = stored.reshape(shape, order="F")
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # what does not fit becomes inf, refused later
        if header.scale is not None:
            slope, intercept = header.scale
            stored = np.multiply(stored, slope, dtype=np.float64) + intercept
        return stored.astype(np.float32)


def _check_values(path: Path, data: np.ndarray, content: Content) -> None:
    finite = np.isfinite(data)
    if not finite.all():
        bad = data.size - int(np.count_nonzero(finite))
        raise SubjectError(
            "E_NONFINITE",
            f"{path} has {bad} values of {data.size} that are NaN or infinite; need none",
        )
    if content == "volume" and data.min() == data.max():
        raise SubjectError(
            "E_CONSTANT", f"{path} is {data.flat[0]:g} everywhere; need a volume with contrast"
        )
    if content == "labels":
        wrong = data[(data != np.rint(data)) | (data < 0) | (data > MAX_LABEL)]
        if wrong.size:
            raise SubjectError(
                "E_LABEL_VALUES",
                f"{path} has {wrong.size} values such as {wrong[0]:g}; need whole numbers of 0 to "
                f"{MAX_LABEL}",
            )
