"""Area of the surface that marching cubes lays through eight voxels."""

from functools import lru_cache
from itertools import permutations, product

import torch
from torch import Tensor

# the eight voxels around a corner have the bits 128, 64, ... 1, the last axis fastest. For each way
# to fill them that no turn, mirror or exchange of in and out makes of another: the triangles, each
# by its areas as seen along the three axes, in eighths of a voxel's face (Lorensen and Cline,
# "Marching cubes", SIGGRAPH 1987, in the triangulation of DeepMind's surface-distance)
_CASES: dict[int, tuple[tuple[int, int, int], ...]] = {
    0b00000000: (),
    0b00000001: ((1, 1, 1),),
    0b00000011: ((2, 2, 0), (2, 2, 0)),
    0b00000110: ((1, 1, 1), (1, 1, 1)),
    0b00000111: ((1, 1, 1), (2, 2, 2), (4, 0, 0)),
    0b00001111: ((4, 0, 0), (4, 0, 0)),
    0b00010110: ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    0b00010111: ((1, 1, 1), (1, 1, 1), (2, 2, 2), (2, 2, 2)),
    0b00011000: ((1, 1, 1), (1, 1, 1)),
    0b00011001: ((1, 1, 1), (0, 2, 2), (0, 2, 2)),
    0b00011011: ((1, 1, 1), (3, 3, 3), (0, 2, 2), (2, 0, 2)),
    0b00011110: ((1, 1, 1), (1, 1, 1), (2, 2, 2), (4, 0, 0)),
    0b00111100: ((2, 2, 0), (2, 2, 0), (2, 2, 0), (2, 2, 0)),
    0b01101001: ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
}
_PLACES = tuple(product((0, 1), repeat=3))


@lru_cache(maxsize=16)
def surface_areas(spacing: tuple[float, float, float]) -> Tensor:
    """Area of surface around a corner, by the code of its eight voxels.

    Bit ``128 >> (4 z + 2 y + x)`` of a code: voxel ``(z, y, x)`` of the 2 x 2 x 2 is inside.

    Args:
        spacing: of the voxels along each axis; the areas are in its square.

    Returns:
        ``[256]`` float64; 0 where all eight voxels are inside, or none.
    """
    first, second, third = spacing
    faces = torch.tensor([second * third, first * third, first * second], dtype=torch.float64) / 8
    areas = torch.zeros(256, dtype=torch.float64)
    for case, triangles in _CASES.items():
        for axes in permutations(range(3)):
            turned = torch.tensor([[one[axis] for axis in axes] for one in triangles])
            area = (turned.view(-1, 3) * faces).norm(dim=1).sum()
            for flips in _PLACES:
                code = _moved(case, axes, flips)
                areas[[code, 255 - code]] = area
    return areas


def _moved(code: int, axes: tuple[int, ...], flips: tuple[int, ...]) -> int:
    """The code of the same voxels with the axes exchanged, then flipped."""
    moved = 0
    for number, place in enumerate(_PLACES):
        source = [0, 0, 0]
        for axis, along, flip in zip(axes, place, flips, strict=True):
            source[axis] = along ^ flip
        inside = code >> (7 - _PLACES.index((source[0], source[1], source[2]))) & 1
        moved |= inside << (7 - number)
    return moved
