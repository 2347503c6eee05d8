"""A procedural head: intensity and structure at any point, from formulas alone.

Nothing is interpolated, so a deformed head is the head evaluated at deformed points and its true
displacement is known exactly. Coordinates are RAS millimetres from the centre of the head, which
fills a field of view of 160 x 180 x 160 mm. Deep structures are plumper than in life, so that the
overlap of two of them measures registration more than it measures voxels.

Every region is a *depth*: millimetres inside its surface, negative outside. Regions are painted in
order, each over the ones before it, with an edge as soft as the partial volume of a voxel.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FIELD_OF_VIEW_MM = (160.0, 180.0, 160.0)

Depth = Callable[[np.ndarray], np.ndarray]
"""Points ``[3, n]`` in mm -> depth ``[n]`` in mm, positive inside."""

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Region:
    """One painted region; `level` is its intensity (white matter is near 1), no `name` no label."""

    level: float
    depth: Depth
    name: str = ""


def sample_head(points_mm: np.ndarray, *, edge_mm: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Intensity (float32 ``[n]``, 0 to about 1) and label (uint8 ``[n]``) at ``points_mm [3, n]``.

    `edge_mm` is the half width of the transition between two tissues.
    """
    points = np.asarray(points_mm, np.float32)
    intensity = np.zeros(points.shape[1], np.float32)
    labels = np.zeros(points.shape[1], np.uint8)
    for region in REGIONS:
        depth = region.depth(points)
        share = np.clip(0.5 + depth / (2 * edge_mm), 0, 1)
        intensity += share * (region.level - intensity)
        labels[depth > 0] = LABELS.get(region.name, 0)
    return intensity * (1 + _texture(points)), labels


def ellipsoid_depth(points: np.ndarray, center: Triple, radii: Triple) -> np.ndarray:
    """Depth inside an ellipsoid: zero on its surface, in mm close to it."""
    scaled = [(axis - c) / r for axis, c, r in zip(points, center, radii, strict=True)]
    radius = np.sqrt(sum(s * s for s in scaled))
    slope = np.sqrt(sum((s / r) ** 2 for s, r in zip(scaled, radii, strict=True)))
    tiny = 1e-6  # at the centre both are zero, and their ratio is the shortest radius
    return (1 - radius) * (radius + tiny) / (slope + tiny / min(radii))


def _both_sides(points: np.ndarray, center: Triple, radii: Triple) -> np.ndarray:
    x, y, z = points
    return ellipsoid_depth(np.stack([np.abs(x), y, z]), center, radii)


def _deep(center: Triple, radii: Triple, *, sag: float = 0.0) -> Depth:
    """A mirrored pair of ellipsoids whose ends sag by ``sag * y²`` mm, as ventricles do."""

    def depth(points: np.ndarray) -> np.ndarray:
        x, y, z = points
        return _both_sides(np.stack([x, y, z + sag * (y - center[1]) ** 2]), center, radii)

    return depth


def _head(points: np.ndarray) -> np.ndarray:
    cranium = ellipsoid_depth(points, (0, -1, 4), (74, 86, 74))
    face = ellipsoid_depth(points, (0, 34, -34), (50, 46, 42))
    neck = ellipsoid_depth(points, (0, -14, -84), (43, 46, 60))
    nose = ellipsoid_depth(points, (0, 78, -30), (11, 10, 15))
    return np.maximum.reduce([cranium, face, neck, nose])


def _muscle(points: np.ndarray) -> np.ndarray:
    return _head(points) - 5


def _eyes(points: np.ndarray) -> np.ndarray:
    return _both_sides(points, (27, 62, -24), (12, 12, 12))


def _intracranial(points: np.ndarray) -> np.ndarray:
    return np.maximum.reduce([_hull(points), _cerebellum(points), _brainstem(points)]) + 4


def _skull(points: np.ndarray) -> np.ndarray:
    return _intracranial(points) + 5


def _folds(points: np.ndarray) -> np.ndarray:
    """Irregular waves in -1..1, about 30 mm long: sulci where positive, gyri where negative."""
    x, y, z = points
    bent = np.abs(x) + 6 * np.sin(0.071 * y + 0.9) + 5 * np.sin(0.083 * z + 0.03 * x)
    first = np.sin(0.20 * y + 0.08 * bent + 1.3 * np.sin(0.10 * z + 0.02 * x))
    second = np.sin(0.19 * z - 0.07 * y + 0.10 * bent + 1.2 * np.sin(0.08 * y - 0.03 * x + 2.0))
    return 0.5 * (first + second)


def _hull(points: np.ndarray) -> np.ndarray:
    """The cerebrum without its folds: two hemispheres in one shell, and the temporal lobes."""
    shell = ellipsoid_depth(points, (0, 0, 15), (59, 71, 48))
    return np.maximum(shell, _both_sides(points, (35, 10, -14), (21, 36, 22)))


def _cerebrum(points: np.ndarray) -> np.ndarray:
    beside_the_fissure = np.abs(points[0]) - 1.5
    bridge = ellipsoid_depth(points, (0, -2, 8), (60, 42, 22))
    return np.minimum(_hull(points), np.maximum(beside_the_fissure, bridge))


def _cortex(points: np.ndarray) -> np.ndarray:
    return _cerebrum(points) - 9 * np.maximum(_folds(points) - 0.05, 0)


def _white_matter(points: np.ndarray) -> np.ndarray:
    folded = _cerebrum(points) - 9 - 8 * np.maximum(_folds(points) + 0.2, 0)
    return np.maximum(folded, ellipsoid_depth(points, (0, -3, 9), (28, 40, 22)))


def _cerebellum(points: np.ndarray) -> np.ndarray:
    return _both_sides(points, (21, -41, -36), (27, 26, 20))


def _arbor_vitae(points: np.ndarray) -> np.ndarray:
    _, y, z = points
    return _cerebellum(points) - 9 - 3 * np.sin(0.5 * z + 0.25 * y)


def _brainstem(points: np.ndarray) -> np.ndarray:
    x, y, z = points
    upright = np.stack([x, y - 0.25 * (z + 32), z])
    return ellipsoid_depth(upright, (0, -15, -34), (14, 14, 34))


def _texture(points: np.ndarray) -> np.ndarray:
    """Mild smooth variation inside every tissue, so that motion shows where there is no edge."""
    x, y, z = points
    waves = (
        np.sin(0.31 * x + 0.12 * y + 0.7)
        + np.sin(0.28 * y - 0.15 * z + 2.1)
        + np.sin(0.33 * z + 0.11 * x + 4.0)
        + np.sin(0.17 * x - 0.21 * y + 0.19 * z)
    )
    return 0.015 * waves


def _halves(name: str, level: float, depth: Depth) -> tuple[Region, Region]:
    return (
        Region(level, lambda points: np.minimum(depth(points), -points[0]), f"left {name}"),
        Region(level, lambda points: np.minimum(depth(points), points[0]), f"right {name}"),
    )


REGIONS = (
    Region(0.80, _head),
    Region(0.42, _muscle),
    Region(0.26, _eyes),
    Region(0.10, _skull),
    Region(0.20, _intracranial),
    *_halves("cerebral cortex", 0.56, _cortex),
    *_halves("cerebral white matter", 0.92, _white_matter),
    *_halves("lateral ventricle", 0.14, _deep((12, -4, 21), (9, 36, 11), sag=0.008)),
    *_halves("caudate", 0.58, _deep((21, 21, 9), (10, 18, 14), sag=0.01)),
    *_halves("thalamus", 0.74, _deep((13, -18, -2), (12, 17, 13))),
    *_halves("putamen", 0.64, _deep((38, -1, 3), (10, 23, 16))),
    Region(0.82, _brainstem, "brainstem"),
    *_halves("cerebellum", 0.52, _cerebellum),
    *_halves("cerebellum", 0.86, _arbor_vitae),
)
"""In the order of painting: tissues around the brain, then the structures that have a label."""

LABELS = {
    name: label
    for label, name in enumerate(dict.fromkeys(r.name for r in REGIONS if r.name), start=1)
}
"""Name of every labelled structure -> label value."""
