"""Ways to spoil a head on its grid, each at a seeded random strength: inputs of benchmarks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import zoom

_HEAD = 0.05  # of the 99th percentile; below is air


@dataclass(frozen=True, eq=False)
class Scene:
    """What damages need to know beside the volume.

    Attributes:
        spacing_mm: edge of a voxel.
        others: volumes of other anatomy.
        strength: scales every damage but a wrong anatomy and a flip.
    """

    spacing_mm: float
    others: Sequence[np.ndarray]
    strength: float = 1.0


Damage = Callable[[np.ndarray, np.random.Generator, Scene], np.ndarray]


def shift(volume: np.ndarray, random: np.random.Generator, scene: Scene) -> np.ndarray:
    """Moved by 16 to 24 mm in any direction, to whole voxels; zero moves in."""
    direction = random.normal(size=3)
    length = scene.strength * random.uniform(16, 24) / scene.spacing_mm
    step = np.rint(direction / np.linalg.norm(direction) * length).astype(int)
    moved = np.zeros_like(volume)
    target = tuple(
        slice(max(s, 0), size + min(s, 0)) for s, size in zip(step, volume.shape, strict=True)
    )
    source = tuple(
        slice(max(-s, 0), size + min(-s, 0)) for s, size in zip(step, volume.shape, strict=True)
    )
    moved[target] = volume[source]
    return moved


def crop(volume: np.ndarray, random: np.random.Generator, scene: Scene) -> np.ndarray:
    """A quarter of the field of view is lost, at either end of any axis."""
    axis, end = random.integers(3), random.integers(2)
    lost = max(1, round(scene.strength * volume.shape[axis] / 4))
    cropped = volume.copy()
    ends = [slice(None)] * 3
    ends[axis] = slice(-lost, None) if end else slice(0, lost)
    cropped[tuple(ends)] = 0
    return cropped


def contrast(volume: np.ndarray, random: np.random.Generator, scene: Scene) -> np.ndarray:
    """Another contrast inside the head: bright for dark, or the middle brighter than both ends."""
    top = np.percentile(volume, 99)
    share = np.clip(volume / top, 0, 1)
    steepness = random.uniform(0.7, 1.3)
    curve = 1 - share if random.random() < 0.5 else 4 * share * (1 - share)
    changed = share + scene.strength * (curve**steepness - share)
    return np.where(share > _HEAD, top * changed, volume).astype(np.float32)


def noise(volume: np.ndarray, random: np.random.Generator, scene: Scene) -> np.ndarray:
    """Rician, its standard deviation 10 to 30 % of the 99th percentile."""
    sigma = scene.strength * random.uniform(0.1, 0.3) * np.percentile(volume, 99)
    real, imaginary = (sigma * random.normal(size=volume.shape) for _ in range(2))
    return np.hypot(volume + real, imaginary).astype(np.float32)


def wrong_anatomy(volume: np.ndarray, random: np.random.Generator, scene: Scene) -> np.ndarray:
    """Another volume stretched onto the grid, as bright as the head was."""
    other = scene.others[int(random.integers(len(scene.others)))]
    factors = [size / own for size, own in zip(volume.shape, other.shape, strict=True)]
    stretched = np.asarray(zoom(other.astype(np.float32), factors, order=1))
    scale = np.percentile(volume, 99) / max(np.percentile(stretched, 99), 1e-6)
    return (stretched * scale).astype(np.float32)


def flip(volume: np.ndarray, random: np.random.Generator, scene: Scene) -> np.ndarray:
    """Left for right."""
    del random, scene
    return np.ascontiguousarray(volume[::-1])


DAMAGES: dict[str, Damage] = {
    "shift": shift,
    "crop": crop,
    "contrast": contrast,
    "noise": noise,
    "anatomy": wrong_anatomy,
    "flip": flip,
}
