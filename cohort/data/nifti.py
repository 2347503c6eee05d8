"""NIfTI files in and out: bounded and checksummed reading, canonical RAS order, atomic writing."""

import gzip
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Image

from cohort.data.affine_checks import MAX_SHEAR, shear
from cohort.data.geometry import Grid
from cohort.data.header_choices import NAN_BACKGROUND, HeaderChoices
from cohort.data.nifti_bytes import VerifiedFile, open_verified, read_header
from cohort.data.storage import write_atomic
from cohort.errors import SubjectError

MAX_BYTES = 4 << 30
MAX_LABEL = 65535
CANONICAL = "RAS"
_VECTOR_INTENT = 1007
_NO_CHOICES = HeaderChoices()
_BLOCK_BYTES, _BLOCK_PLANES = 1 << 20, 16  # at least, of what is decoded at once
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
    with open_verified(path, max_bytes) as verified:
        header = verified.header
        header.require((3,) if content == "vectors" else ())
        placement = header.place(choices)
        data = _canonical_values(verified, placement.grid)
        sha256 = verified.finished()
    facts = header.facts(placement)
    if choices.nan and content == "volume" and _nan_made_background(data):
        facts["fixed"].append(choices.nan)
    _check_values(path, data, content)
    affine = placement.grid.oriented(CANONICAL).affine
    return Nifti(path, data, affine, sha256, facts)


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


def _canonical_values(verified: VerifiedFile, grid: Grid) -> np.ndarray:
    """The data as float32 ``[D, H, W]``, or ``[3, D, H, W]``, of the canonical grid.

    They are put in place a few planes at a time: nothing else of the size of the volume is made.
    """
    header, canonical = verified.header, grid.oriented(CANONICAL)
    components = math.prod(header.dimensions[3:])
    data = np.empty((components, *canonical.shape), np.float32)
    stored = canonical.reorder(np.moveaxis(data, 0, -1), grid.axcodes)  # a view, in file order
    first, second, planes = header.shape
    plane_bytes = first * second * header.dtype.itemsize
    step = max(_BLOCK_BYTES // plane_bytes, _BLOCK_PLANES)
    for component in range(components):
        for start in range(0, planes, step):
            count = min(step, planes - start)
            block = np.frombuffer(verified.read(count * plane_bytes), header.dtype)
            block = block.reshape((first, second, count), order="F")
            stored[:, :, start : start + count, component] = _scaled(block, header.scale)
    return data if components > 1 else data[0]


def _scaled(block: np.ndarray, scale: tuple[float, float] | None) -> np.ndarray:
    # what does not fit becomes inf, refused later
    with np.errstate(over="ignore", invalid="ignore"):
        if scale is not None:
            slope, intercept = scale
            block = np.multiply(block, slope, dtype=np.float64) + intercept
        return block.astype(np.float32)


def _nan_made_background(data: np.ndarray) -> bool:
    """Give voxels that are no number the least value of the others; whether there were any."""
    missing = np.isnan(data)
    if not missing.any() or missing.all():
        return False
    data[missing] = np.nanmin(data)
    return True


def _check_values(path: Path, data: np.ndarray, content: Content) -> None:
    planes = data.reshape(-1, *data.shape[-2:])
    bad = sum(int(np.count_nonzero(~np.isfinite(plane))) for plane in planes)
    if bad:
        asked = ""
        if content == "volume" and np.isnan(data).any() and not np.isinf(data).any():
            asked = f", or --fix-headers {NAN_BACKGROUND} if these are background"
        raise SubjectError(
            "E_NONFINITE",
            f"{path} has {bad} values of {data.size} that are NaN or infinite; need none{asked}",
        )
    if content == "volume" and data.min() == data.max():
        raise SubjectError(
            "E_CONSTANT", f"{path} is {data.flat[0]:g} everywhere; need a volume with contrast"
        )
    if content == "labels":
        wrong = np.concatenate([_no_labels(plane) for plane in planes])
        if wrong.size:
            raise SubjectError(
                "E_LABEL_VALUES",
                f"{path} has {wrong.size} values such as {wrong[0]:.8g}; need whole numbers of 0 "
                f"to {MAX_LABEL}",
            )


def _no_labels(values: np.ndarray) -> np.ndarray:
    return values[(values != np.rint(values)) | (values < 0) | (values > MAX_LABEL)]
