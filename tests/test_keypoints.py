"""Files of points: their conventions, what is kept, and messages."""

from pathlib import Path

import numpy as np
import pytest

from cohort.data.geometry import Grid
from cohort.data.keypoints import read_points, write_points
from cohort.errors import SubjectError

GRID = Grid((8, 9, 7), np.array([[0.0, -2, 0, 40], [3, 0, 0, -5], [0, 0, -1.5, 9], [0, 0, 0, 1]]))
VOXELS = np.array([[1.0, 2.0, 3.0], [0.5, 8.0, 6.0]])
RAS = GRID.voxel_to_world(VOXELS)


def table(path: Path, header: str, points: np.ndarray) -> Path:
    lines = [",".join(map(str, point)) for point in points.tolist()]
    path.write_text("\n".join([header, *lines, ""]))
    return path


@pytest.mark.parametrize(
    ("header", "points"),
    [("x,y,z", RAS), ("x_lps,y_lps,z_lps", RAS * (-1, -1, 1)), ("i,j,k", VOXELS)],
)
def test_each_convention_reads_as_ras_and_is_written_as_it_was(
    tmp_path: Path, header: str, points: np.ndarray
) -> None:
    found = read_points(table(tmp_path / "in.csv", header, points))
    np.testing.assert_allclose(found.ras_mm(GRID), RAS, atol=1e-12)
    write_points(tmp_path / "out.csv", found, RAS + 1, GRID, {"from": "a", "to": "b"})
    again = read_points(tmp_path / "out.csv")
    assert again.columns == found.columns
    np.testing.assert_allclose(again.ras_mm(GRID), RAS + 1, atol=1e-9)
    assert [(row["from"], row["to"]) for row in again.rows] == [("a", "b")] * 2


def test_other_columns_are_kept_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('name,z,y, x\n"left, front",3,2,1\ntip,6,5,4\n')
    found = read_points(tmp_path / "in.csv")
    np.testing.assert_array_equal(found.ras_mm(GRID), [[1, 2, 3], [4, 5, 6]])
    write_points(tmp_path / "out.csv", found, found.points, GRID, {})
    assert (tmp_path / "out.csv").read_text() == (
        'name,z,y,x\n"left, front",3.0,2.0,1.0\ntip,6.0,5.0,4.0\n'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"header x,y,z .*x_lps,y_lps,z_lps .*i,j,k .*; found columns a,b$"),
        ("", "found columns none"),
        ("x,y,z,i,j,k\n1,2,3,1,2,3\n", "one of them; found columns x,y,z,i,j,k"),
        ("x,y,z,x\n1,2,3,4\n", "found columns x,y,z,x"),
        ("x,y,z\n1,2,up\n", "could not convert"),
        ("x,y,z\n1,2\n", "shorter|longer"),
        ("x,y,z\n", r"values of shape \[0\]"),
        ("x,y,z\n1,2,inf\n", "found NaN or infinite"),
    ],
)
def test_messages_say_what_was_found_and_is_needed(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(SubjectError, match=message) as refused:
        read_points(tmp_path / "points.csv")
    assert refused.value.code == "E_KEYPOINTS"
    assert str(tmp_path / "points.csv") in refused.value.message
