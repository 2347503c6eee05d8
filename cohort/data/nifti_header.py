"""What a NIfTI header claims: how many bytes follow, and where the voxels lie.

Nothing is believed before it is checked: the header decides how much memory a file may ask for.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header, data_type_codes
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from cohort.data.header_choices import HeaderChoices
from cohort.data.header_forms import Placement, place, unit_name
from cohort.errors import SubjectError

HEADER_BYTES = 540  # of NIfTI-2, the longer one
_MAGIC = {b"n+1": Nifti1Header, b"n+2": Nifti2Header}
_PAIR_MAGIC = {b"ni1", b"ni2"}


@dataclass(frozen=True, eq=False)
class Header:
    """One checked header.

    dimensions: sizes of all array axes as stored. offset: where the data start in the decoded file.
    scale: (slope, intercept), or None if values are stored as they are.
    """

    path: Path
    fields: Nifti1Header
    dimensions: tuple[int, ...]
    dtype: np.dtype
    offset: int
    scale: tuple[float, float] | None

    @property
    def size_bytes(self) -> int:
        """Where the data end in the decoded file."""
        return self.offset + math.prod(self.dimensions) * self.dtype.itemsize

    @property
    def shape(self) -> tuple[int, int, int]:
        """The three axes of space."""
        first, second, third = self.dimensions[:3]
        return first, second, third

    def require(self, trailing: tuple[int, ...]) -> None:
        """Refuse all but three axes of space followed by ``trailing`` (axes of one are no axes)."""
        found = "x".join(map(str, self.dimensions))
        if len(self.dimensions) < 3 or min(self.shape) < 2:
            raise self._error(
                "E_NDIM", f"has shape {found}; need a 3D volume of at least 2 per axis"
            )
        if tuple(size for size in self.dimensions[3:] if size > 1) != trailing:
            needed = "one vector of 3 per voxel" if trailing else "one value per voxel (3D)"
            raise self._error("E_NDIM", f"has shape {found}; need {needed}")

    def place(self, choices: HeaderChoices) -> Placement:
        """Where the voxels lie; SubjectError if the header leaves that open."""
        return place(self.fields, self.shape, choices, self.path)

    def facts(self, placement: Placement) -> dict[str, Any]:
        """What provenance keeps of this header, as JSON."""
        grid = placement.grid
        return {
            "shape": list(self.dimensions),
            "affine": grid.affine.tolist(),
            "sform_code": int(self.fields["sform_code"]),
            "qform_code": int(self.fields["qform_code"]),
            "form": placement.form,
            "fixed": list(placement.fixed),
            "axcodes": grid.axcodes,
            "handedness": "right" if grid.is_right_handed else "left",
            "oblique": grid.is_oblique,
            "spacing_mm": list(grid.spacing_mm),
            "units": unit_name(self.fields),
            "dtype": self.dtype.name,
            "scale": list(self.scale) if self.scale else None,
        }

    def _error(self, code: str, found: str) -> SubjectError:
        return SubjectError(code, f"{self.path} {found}")


def parse_header(start: bytes, path: Path) -> Header:
    """Check the first bytes of a decoded file (`HEADER_BYTES`, or all there are)."""
    kind = _header_class(start, path)
    if len(start) < kind.sizeof_hdr:
        raise SubjectError(
            "E_TRUNCATED",
            f"{path} ends after {len(start)} bytes, inside its header of {kind.sizeof_hdr}",
        )
    fields = kind(start[: kind.sizeof_hdr], check=False)
    offset = float(fields["vox_offset"])
    if not kind.sizeof_hdr <= offset < 2**63:
        raise SubjectError(
            "E_HEADER",
            f"{path} says that its data start at byte {offset}; need at least {kind.sizeof_hdr}",
        )
    dimensions = _dimensions(fields, path)
    return Header(path, fields, dimensions, _dtype(fields, path), int(offset), _scale(fields, path))


def _header_class(start: bytes, path: Path) -> type[Nifti1Header]:
    magic = start[4:7] if start[4:7] in {b"n+2", b"ni2"} else start[344:347]
    if magic in _PAIR_MAGIC:
        raise SubjectError(
            "E_PAIR", f"{path} is half of a .hdr/.img pair; need one file, .nii or .nii.gz"
        )
    if magic not in _MAGIC:
        raise SubjectError(
            "E_NOT_NIFTI",
            f"{path} is not NIfTI: its {len(start)} first bytes hold no n+1 or n+2 signature",
        )
    return _MAGIC[magic]


def _dimensions(fields: Nifti1Header, path: Path) -> tuple[int, ...]:
    stored = [int(size) for size in fields["dim"]]
    dimensions = tuple(stored[1 : 1 + stored[0]]) if 1 <= stored[0] <= 7 else ()
    if not dimensions or min(dimensions) < 1:
        raise SubjectError(
            "E_HEADER", f"{path} has dim {stored}; need 1 to 7 axes of at least 1 voxel each"
        )
    return dimensions


def _dtype(fields: Nifti1Header, path: Path) -> np.dtype:
    code = int(fields["datatype"])
    try:
        dtype = fields.get_data_dtype()
    except KeyError:
        dtype = np.dtype("V")
    if dtype.kind not in "iuf":
        name = data_type_codes.label.get(code, "unknown")
        raise SubjectError(
            "E_DTYPE", f"{path} holds data type {code} ({name}); need integers or real numbers"
        )
    return dtype


def _scale(fields: Nifti1Header, path: Path) -> tuple[float, float] | None:
    try:
        slope, intercept = fields.get_slope_inter()
    except HeaderDataError as error:
        raise SubjectError("E_HEADER", f"{path} cannot be scaled: {error}") from error
    if slope is None or intercept is None or (slope, intercept) == (1, 0):
        return None
    return float(slope), float(intercept)
