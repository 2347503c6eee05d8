"""Files of points: one point a row, in millimetres or in voxels, with columns that say which."""

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cohort.data.geometry import Grid, ras_to_lps
from cohort.data.nifti_bytes import read_file
from cohort.data.storage import write_atomic
from cohort.errors import SubjectError

RAS = ("x", "y", "z")
LPS = ("x_lps", "y_lps", "z_lps")
VOXEL = ("i", "j", "k")
_CONVENTIONS = (RAS, LPS, VOXEL)
_MAX_TABLE_BYTES = 64 << 20
_NEEDED = (
    "need a CSV file with one point a line and the header x,y,z (RAS mm), x_lps,y_lps,z_lps (LPS"
    " mm) or i,j,k (voxels of the subject's own file)"
)


@dataclass(frozen=True, eq=False)
class PointTable:
    """A file of points.

    points: float64 ``[K, 3]`` as stored. columns: `RAS`, `LPS` or `VOXEL`. rows: all columns of
    each point. sha256: of the file.
    """

    points: np.ndarray
    columns: tuple[str, str, str]
    rows: tuple[dict[str, str], ...]
    sha256: str

    def ras_mm(self, grid: Grid) -> np.ndarray:
        """RAS mm ``[K, 3]``; ``grid`` is that of the subject's image file, as stored."""
        if self.columns == VOXEL:
            return grid.voxel_to_world(self.points)
        return ras_to_lps(self.points) if self.columns == LPS else self.points


def file_grid(header: dict[str, Any]) -> Grid:
    """The grid of a file in its own axis order, from what a record keeps of its header."""
    first, second, third = header["shape"][:3]
    return Grid((first, second, third), np.array(header["affine"]))


def read_points(path: Path) -> PointTable:
    """Read a CSV file of points; columns beyond its coordinates are kept as text.

    Raises:
        SubjectError: ``E_KEYPOINTS`` with what was found instead.
    """
    stored = read_file(path, _MAX_TABLE_BYTES)
    try:
        text = io.StringIO(stored.decode("utf-8-sig"), newline="")
        reader = csv.reader(text, strict=True, skipinitialspace=True)
        header, *lines = [[cell.strip() for cell in line] for line in reader if line] or [[]]
        columns = _columns(path, header)
        chosen = [header.index(name) for name in columns]
        rows = tuple(dict(zip(header, line, strict=True)) for line in lines)
        points = np.array([[float(line[index]) for index in chosen] for line in lines])
    except (ValueError, csv.Error) as error:
        raise SubjectError("E_KEYPOINTS", f"{path}: {_NEEDED}; found {error}") from error
    if not len(points):
        found = f"header {','.join(header)} and values of shape {list(points.shape)}"
        raise SubjectError("E_KEYPOINTS", f"{path}: {_NEEDED}; found {found}")
    if not np.isfinite(points).all():
        raise SubjectError("E_KEYPOINTS", f"{path}: {_NEEDED}; found NaN or infinite coordinates")
    return PointTable(points, columns, rows, hashlib.sha256(stored).hexdigest())


def write_points(
    path: Path, table: PointTable, ras_mm: np.ndarray, grid: Grid, said: dict[str, str]
) -> None:
    """Write ``table`` with other coordinates, in its own convention and with its other columns.

    ras_mm: ``[K, 3]``. grid: of the image file in whose world they lie. said: columns that hold
    one value, added to those there are.
    """
    points = ras_mm
    if table.columns == VOXEL:
        points = grid.world_to_voxel(ras_mm)
    elif table.columns == LPS:
        points = ras_to_lps(ras_mm)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table.rows[0] | said), lineterminator="\n")
    writer.writeheader()
    for row, point in zip(table.rows, points.tolist(), strict=True):
        writer.writerow(row | said | dict(zip(table.columns, point, strict=True)))
    write_atomic(path, text.getvalue().encode())


def _columns(path: Path, header: list[str]) -> tuple[str, str, str]:
    found = [columns for columns in _CONVENTIONS if set(columns) <= set(header)]
    if len(found) != 1 or len(set(header)) != len(header):
        raise SubjectError(
            "E_KEYPOINTS",
            f"{path}: {_NEEDED}, one of them; found columns {','.join(header) or 'none'}",
        )
    return found[0]
