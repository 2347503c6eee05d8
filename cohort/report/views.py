"""Ways to look at a registered pair: rows of three planes, as pictures that lie on each other."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from PIL import Image

from cohort.engine.regenerate import PairImages
from cohort.report.figures import PLANES, outlines, plane_center, window

_PIXELS_A_VOXEL = 3  # along the axis with the least spacing
_GAP = 8  # pixels between planes
_CHECKS = 8  # squares along the longer side of a plane
_GRID_STEP = 5  # voxels between the lines of a deformed grid
_LARGEST_CHANGE = float(np.log(2))  # of the logarithm of volume, at the ends of the colours
_OPACITY = 0.6  # of those colours
_QUALITY = 80
_SHOWN = {
    "fixed": "The fixed volume.",
    "warped": "The warped moving volume.",
    "checkerboard": "Squares of the fixed and of the warped volume in turn.",
    "volume change": "The fixed volume coloured by the Jacobian determinant: red where the moving"
    " volume is larger, up to twice, and was compressed; blue where it is smaller, down to half.",
    "grid": f"The warped volume under a grid of {_GRID_STEP} moving voxels, deformed with it.",
}
_OUTLINED = {
    "fixed": "The fixed volume with the outlines of its labels.",
    "warped": "The warped moving volume with the outlines of the fixed labels.",
}


@dataclass(frozen=True)
class View:
    """One picture: its name on a button, the picture as a data URI, and what it shows."""

    name: str
    uri: str
    alt: str


@dataclass(frozen=True, eq=False)
class _Plane:
    """A plane through a pair; its pictures are uint8 ``[rows, columns, 3]``, top row last."""

    images: PairImages
    axis: int
    center: tuple[int, ...]

    def grey(self, volume: np.ndarray, as_seen: np.ndarray) -> np.ndarray:
        """A volume through the window of the volume ``as_seen``."""
        low, high = window(as_seen)
        scaled = 255 * np.clip((self._cut(volume) - low) / (high - low), 0, 1)
        return np.repeat(self._enlarged(scaled)[..., None], 3, axis=-1).astype(np.uint8)

    def outlined(self, picture: np.ndarray) -> np.ndarray:
        """A picture with the rims of the fixed labels."""
        rims = outlines(self.images.fixed_labels, self.axis, self.center)
        if rims is None:
            return picture
        image = Image.fromarray((255 * rims).astype(np.uint8))
        fitted = np.asarray(image.resize(self._size, Image.Resampling.NEAREST))
        return np.where(fitted[..., 3:] > 127, fitted[..., :3], picture)

    def checkered(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Two pictures in turn."""
        side = max(first.shape) // _CHECKS
        rows, columns = np.ogrid[: first.shape[0], : first.shape[1]]
        return np.where(((rows // side + columns // side) % 2 == 0)[..., None], first, second)

    def coloured_by_change(self, picture: np.ndarray) -> np.ndarray:
        """A picture under the colours of the change of volume."""
        determinant = np.pad(self.images.jacobian, 1, mode="edge")
        logarithm = self._enlarged(self._cut(np.log(np.maximum(determinant, 1e-3))))
        share = np.clip(0.5 + 0.5 * logarithm / _LARGEST_CHANGE, 0, 1)
        colours = 255 * colormaps["coolwarm"](share)[..., :3]
        return (_OPACITY * colours + (1 - _OPACITY) * picture).astype(np.uint8)

    def coloured_by_spread(
        self, picture: np.ndarray, spread_mm: np.ndarray, bright_mm: float
    ) -> np.ndarray:
        """A picture under the colours of how unsure its displacement is."""
        share = np.clip(self._enlarged(self._cut(spread_mm)) / bright_mm, 0, 1)
        colours = 255 * colormaps["magma"](share)[..., :3]
        return (_OPACITY * colours + (1 - _OPACITY) * picture).astype(np.uint8)

    def in_colours(self, colours: np.ndarray) -> np.ndarray:
        """Colours ``[3, D, H, W]`` of their own."""
        channels = [self._enlarged(self._cut(channel)) for channel in colours]
        return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)

    def gridded(self, picture: np.ndarray) -> np.ndarray:
        """A picture under lines of equal moving position, every few voxels."""
        lines = np.zeros(picture.shape[:2], dtype=bool)
        first, second = (axis for axis in range(3) if axis != self.axis)
        for axis, steps in ((first, (0, 1)), (second, (1, 0))):
            where = self.images.displacement[axis] + _positions(self.images.fixed.shape, axis)
            square = np.floor(self._enlarged(self._cut(where)) / _GRID_STEP)
            for step in (steps, steps[::-1]):
                before = np.roll(square, step, axis=(0, 1))
                before[: step[0]], before[:, : step[1]] = square[: step[0]], square[:, : step[1]]
                lines |= square != before
        return np.where(lines[..., None], np.array([255, 214, 10], np.uint8), picture)

    @property
    def _size(self) -> tuple[int, int]:
        """Columns and rows of the pictures in pixels: square millimetres are square."""
        first, second = (axis for axis in range(3) if axis != self.axis)
        shape, spacing_mm = self.images.fixed.shape, self.images.spacing_mm
        scale = _PIXELS_A_VOXEL / min(spacing_mm)
        return round(shape[first] * spacing_mm[first] * scale), round(
            shape[second] * spacing_mm[second] * scale
        )

    def _cut(self, volume: np.ndarray) -> np.ndarray:
        return np.take(volume, self.center[self.axis], self.axis).T

    def _enlarged(self, values: np.ndarray) -> np.ndarray:
        image = Image.fromarray(values.astype(np.float32))
        return np.asarray(image.resize(self._size, Image.Resampling.BILINEAR))


def pair_views(images: PairImages) -> tuple[View, ...]:
    """Fixed, warped, both as a checkerboard, the change of volume, and the deformed grid; where
    the method tells, how unsure it is, and the features that it compares.

    Axial, coronal and sagittal planes through the middle of the fixed labels, patient left on the
    left. All views lie on each other, so that switching shows what moves.
    """
    center = plane_center(images)
    planes = [_Plane(images, axis, center) for axis, _ in PLANES]

    def fixed(plane: _Plane) -> np.ndarray:
        return plane.grey(images.fixed, images.fixed)

    def warped(plane: _Plane) -> np.ndarray:
        return plane.grey(images.warped, images.moving)

    pictures: dict[str, Callable[[_Plane], np.ndarray]] = {
        "fixed": lambda plane: plane.outlined(fixed(plane)),
        "warped": lambda plane: plane.outlined(warped(plane)),
        "checkerboard": lambda plane: plane.checkered(fixed(plane), warped(plane)),
        "volume change": lambda plane: plane.coloured_by_change(fixed(plane)),
        "grid": lambda plane: plane.gridded(warped(plane)),
    }
    shown = _SHOWN | (_OUTLINED if images.fixed_labels is not None else {})
    if images.spread_mm is not None:
        spread, bright_mm = images.spread_mm, max(float(np.percentile(images.spread_mm, 99)), 1e-3)
        shown["uncertainty"] = (
            "The fixed volume coloured by the standard deviation of the displacement's last step:"
            f" dark is certain, bright {bright_mm:.1f} mm and more."
        )
        pictures["uncertainty"] = lambda plane: plane.coloured_by_spread(
            fixed(plane), spread, bright_mm
        )
    for name, colours in images.features.items():
        shown[name] = (
            "What is compared at this level of the fixed volume, coarser by the factor named:"
            " the three main directions of its features as red, green and blue."
        )
        pictures[name] = lambda plane, colours=colours: plane.in_colours(colours)
    return tuple(
        View(name, _webp(_side_by_side([draw(plane) for plane in planes])), shown[name])
        for name, draw in pictures.items()
    )


def _positions(shape: tuple[int, ...], axis: int) -> np.ndarray:
    """The coordinate along an axis at every voxel, ``shape``."""
    steps = np.arange(shape[axis], dtype=np.float32)
    return np.broadcast_to(steps.reshape([-1 if one == axis else 1 for one in range(3)]), shape)


def _side_by_side(pictures: list[np.ndarray]) -> np.ndarray:
    tallest = max(len(picture) for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures) + _GAP * (len(pictures) - 1)
    row, begin = np.zeros((tallest, width, 3), np.uint8), 0
    for picture in pictures:
        below = (tallest - len(picture)) // 2
        row[below : below + len(picture), begin : begin + picture.shape[1]] = picture
        begin += picture.shape[1] + _GAP
    return row[::-1]


def _webp(picture: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(content, "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
