"""What ``benchmarks/pdd_gpu.py`` times, with the bytes that it has to move.

In float32, an array that is read or written counts once; rows of costs count with their padding.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.pdd_parity import sides
from triton_reg.ops._triton.dense_cost import dense_cost, padded_labels
from triton_reg.ops._triton.grid_filter import filter_between_planes, filter_within_planes
from triton_reg.ops._triton.match_summary import summarise, write_probabilities
from triton_reg.ops._triton.min_convolution import exact_min_convolution, pooled_min_convolution
from triton_reg.ops.lattice import Lattice
from triton_reg.ops.match_settings import MatchSettings, Smoothing
from triton_reg.ops.resize import Shape


@dataclass(frozen=True)
class Search:
    """A search that is timed: features, control points, labels along an axis, reach."""

    name: str
    shape: Shape
    points: Shape
    width: int
    channels: int
    share: float
    smoothing: Smoothing = "min_convolution"

    @property
    def lattice(self) -> Lattice:
        share = self.share
        return Lattice.corner_aligned(self.shape, self.points, self.width, (share, share, share))

    @property
    def settings(self) -> MatchSettings:
        return MatchSettings(smoothing=self.smoothing)

    @property
    def volume_bytes(self) -> int:
        """Of a pair's costs."""
        return 4 * math.prod(self.points) * padded_labels(self.lattice.labels)

    def bytes(self, keep: bool) -> dict[str, int]:
        """Bytes a pair of each kernel."""
        volume, points = self.volume_bytes, 4 * math.prod(self.points)
        moving = 4 * self.channels * math.prod(self.shape)
        sizes = {
            "cost": moving + self.channels * points + volume,
            "min-convolution": 2 * volume,
            "within planes": 2 * volume,
            "between planes, next costs": 3 * volume,
            "between planes": 2 * volume,
            "summary": volume + 12 * points,
        }
        return sizes | ({"probabilities": volume + self.lattice.labels * points} if keep else {})

    def match_bytes(self, keep: bool) -> int:
        """Bytes a pair of a whole search with two rounds of messages."""
        once = self.bytes(keep)
        return sum(once.values()) + once["min-convolution"] + once["within planes"]


STAGES = (
    Search("two warps, first", (64, 53, 85), (29, 29, 29), 11, 24, 0.25),
    Search("two warps, second", (64, 53, 85), (39, 39, 39), 11, 24, 0.15),
)
SEARCHES = (
    *STAGES,
    Search("v0.1", (64, 53, 85), (32, 32, 32), 15, 16, 0.4),
    Search("default, first", (160, 192, 224), (28, 33, 38), 9, 12, 0.11, "exact_min_convolution"),
    Search("default, last", (160, 192, 224), (65, 77, 90), 5, 12, 0.016, "exact_min_convolution"),
)


def weights(device: torch.device) -> Tensor:
    """Scale, kept, spread and sharpness like those of the released network."""
    return torch.tensor([0.086, 1.05, -0.75, 1.13], device=device)


def launches(search: Search, pairs: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """One launch of each kernel of a search."""
    lattice, taps, alphas = search.lattice, search.settings.taps, weights(device)
    fixed, moving = sides(search.shape, search.points, search.channels, pairs, device)
    count = fixed[0, 0].numel()
    volumes = torch.rand(3, pairs, count, padded_labels(lattice.labels), device=device)
    cost, source, target = volumes.unbind()
    mean, covariance, scales = (
        torch.empty(pairs, channels, count, device=device) for channels in (3, 6, 2)
    )
    summary = mean, torch.empty(pairs, count, device=device), covariance
    likely = torch.empty(pairs, lattice.labels, count, device=device)
    filtered = partial(filter_between_planes, source, search.points, taps, alphas)
    convolve: Callable[[], object] = partial(
        exact_min_convolution, source, lattice.width, 1.0, target
    )
    if search.settings.label_filter == "pooled":
        convolve = partial(pooled_min_convolution, source, lattice.width, target)
    return {
        "cost": partial(dense_cost, fixed, moving, alphas, None, lattice, cost),
        "min-convolution": convolve,
        "within planes": partial(filter_within_planes, source, search.points, taps, target),
        "between planes, next costs": partial(filtered, cost, target),
        "between planes": partial(filtered, None, target),
        "summary": partial(summarise, source, alphas, lattice.width, summary, scales),
        "probabilities": partial(write_probabilities, source, alphas, scales, likely),
    }
