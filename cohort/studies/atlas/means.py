"""Means of sums: what the subjects have in common at every voxel."""

from collections.abc import Callable

import numpy as np

from cohort.config.atlas import Center
from cohort.engine.sums import RANGE, UNIT, Sums

_TRIM = 0.1  # of the weight, left out at either end
_HUBER = 1.345  # robust standard deviations, 95 % efficient on a normal distribution
_HUBER_STEPS = 5
_MAD = 1.4826
_SLAB = 8


def mean_volume(sums: Sums, center: Center) -> np.ndarray:
    """The template's intensities, float32 ``[D, H, W]``; the least of them where nobody was seen.

    ``mean`` is that of the sums. The others come from histograms, in which a value is shared
    between the two nearest of 64 bins: ``median``; ``trimmed``, without the lowest and the highest
    tenth; ``huber``, Huber's M-estimate at 1.345 robust standard deviations.
    """
    weight = sums.row("weight")
    seen = weight > 0
    if center == "mean" or sums.histogram is None:
        found = sums.row("image") / np.maximum(weight, 1) / UNIT
    else:
        found = _by_slabs(sums.histogram, _ROBUST[center])
    least = found[seen].min() if seen.any() else 0.0
    return np.where(seen, found, least).astype(np.float32)


def mean_displacement(sums: Sums) -> np.ndarray:
    """The mean over all subjects, float32 ``[3, D, H, W]`` in voxels."""
    total = np.stack([sums.row(name) for name in ("first", "second", "third")])
    return (total / sums.weight / UNIT).astype(np.float32)


def mean_log_jacobian(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of ln det J over the subjects, float32 ``[D, H, W]``."""
    mean = sums.row("log_jacobian") / sums.weight / UNIT
    square = sums.row("log_jacobian_squared") / sums.weight / UNIT
    spread = np.sqrt(np.maximum(square - mean**2, 0.0))
    return mean.astype(np.float32), spread.astype(np.float32)


def with_mirror_images(sums: Sums) -> Sums:
    """Sums to which every subject's mirror image is added, left to right, which is the first axis.

    A mirror image that is registered to a symmetric template gives the mirror image of what the
    subject gives.
    """
    mirrored = sums.fields[:, ::-1].copy()
    mirrored[2] *= -1  # the displacement to the right
    counted = sums.histogram
    both = None if counted is None else counted + counted[:, ::-1]
    weights = {name: 2 * weight for name, weight in sums.subjects.items()}
    return Sums(sums.fields + mirrored, both, weights)


def _by_slabs(
    histogram: np.ndarray, estimate: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """``[D, H, W]`` of estimates, a few planes at a time, as float64 takes twice the room."""
    bins = len(histogram)
    values = np.linspace(*RANGE, bins)
    found = np.empty(histogram.shape[1:])
    for first in range(0, histogram.shape[1], _SLAB):
        slab = slice(first, first + _SLAB)
        counts = histogram[:, slab].reshape(bins, -1).astype(np.float64)
        found[slab] = estimate(counts, values).reshape(found[slab].shape)
    return found


def _quantile(counts: np.ndarray, values: np.ndarray, share: float) -> np.ndarray:
    """Of histograms ``[bins, N]``, each bin's weight spread evenly around its value."""
    ends = np.cumsum(counts, axis=0)
    goal = share * ends[-1]
    place = np.minimum((ends < goal).sum(axis=0), len(values) - 1)
    column = np.arange(counts.shape[1])
    inside = counts[place, column]
    before = ends[place, column] - inside
    step = values[1] - values[0]
    part = np.divide(goal - before, inside, out=np.full_like(goal, 0.5), where=inside > 0)
    return values[place] + (part - 0.5) * step


def _median(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    return _quantile(counts, values, 0.5)


def _trimmed(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of what lies between the two quantiles, bins at the ends counted in part."""
    total = counts.sum(axis=0)
    ends = np.cumsum(counts, axis=0)
    low, high = _TRIM * total, (1 - _TRIM) * total
    kept = np.clip(np.minimum(ends, high) - np.maximum(ends - counts, low), 0, None)
    return _average(kept, values)


def _huber(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Reweighted means from the median on, with the scale of the absolute deviations from it."""
    found = _median(counts, values)
    scale = _MAD * _median_deviation(counts, values, found)
    reach = np.maximum(_HUBER * scale, values[1] - values[0])
    for _ in range(_HUBER_STEPS):
        away = np.abs(values[:, None] - found)
        weights = counts * np.minimum(1.0, reach / np.maximum(away, 1e-12))
        found = _average(weights, values)
    return found


def _median_deviation(counts: np.ndarray, values: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Weighted median of the distances from ``center [N]``."""
    away = np.abs(values[:, None] - center)
    order = np.argsort(away, axis=0, kind="stable")
    ends = np.cumsum(np.take_along_axis(counts, order, axis=0), axis=0)
    place = np.minimum((ends < 0.5 * ends[-1]).sum(axis=0), len(values) - 1)
    column = np.arange(counts.shape[1])
    return away[order[place, column], column]


def _average(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=0)
    return np.divide(values @ weights, total, out=np.zeros_like(total), where=total > 0)


_ROBUST: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "median": _median,
    "trimmed": _trimmed,
    "huber": _huber,
}
