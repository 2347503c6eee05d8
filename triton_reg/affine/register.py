"""Affine registration of many pairs: starts, pyramid, and what became of each pair."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from triton_reg.affine.costs import COSTS, Cost
from triton_reg.affine.optimise import Descent, costs_of, descend
from triton_reg.affine.parameters import DEGREES_OF_FREEDOM, AffineParameters, Transform
from triton_reg.affine.placed import LevelVolume, PlacedVolume, at_level
from triton_reg.affine.sampling import FixedPoints, MovingVolumes
from triton_reg.affine.starts import center_of_mass, starts_of

_POINTS = 40_000
_POINTS_OF_A_START = 8_000
_STARTS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class AffineSettings:
    """How affine registration searches.

    Attributes:
        transform: ``rigid`` (6 parameters), ``similarity`` (7), ``scaling`` (9: one scale an axis)
            or ``affine`` (12).
        cost: ``ncc``, ``lncc`` (local, windows of 3 voxels), ``mse``, or ``mi`` (mutual
            information, for two kinds of scanner); of intensities scaled from 0 to 1 between 1 % of
            all and 99 % of the bright ones.
        spacings_mm: of the pyramid levels, from coarse to fine.
        iterations: steps at each level, at most; 0 takes the best start as it is.
        refined_starts: how many of the best starts are followed through the coarsest level.
        search_degrees: also start from rotations up to this angle about each axis.

    Raises:
        ValueError: for a setting out of range.
    """

    transform: Transform = "affine"
    cost: Cost = "ncc"
    spacings_mm: tuple[float, ...] = (8.0, 4.0)
    iterations: int = 40
    refined_starts: int = 2
    search_degrees: float = 0.0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("transform", self.transform, DEGREES_OF_FREEDOM),
            ("cost", self.cost, COSTS),
        ):
            if value not in known:
                needed = ", ".join(known)
                raise ValueError(f"AffineSettings: {name} must be one of {needed}, got {value!r}")
        if not self.spacings_mm or not all(0 < step < math.inf for step in self.spacings_mm):
            needed = "spacings_mm must be one or more mm above 0"
            raise ValueError(f"AffineSettings: {needed}, got {self.spacings_mm}")
        if self.iterations < 0 or self.refined_starts < 1:
            needed = "iterations must be at least 0 and refined_starts at least 1"
            found = f"{self.iterations} and {self.refined_starts}"
            raise ValueError(f"AffineSettings: {needed}, got {found}")
        if not 0 <= self.search_degrees <= 180:
            needed = "search_degrees must be from 0 to 180"
            raise ValueError(f"AffineSettings: {needed}, got {self.search_degrees}")


@dataclass(frozen=True, eq=False)
class AffineResult:
    """What affine registration found for ``B`` pairs.

    Attributes:
        matrices: float64 ``[B, 4, 4]``, fixed world mm -> moving world mm.
        score_start, score_end: float64 ``[B]``, at the finest level, of the start that won and of
            ``matrices``; high is good: the correlation, minus the mean squared difference, or the
            mutual information in nats.
        starts: which start won: ``header``, ``center``, ``axes`` with signs, or ``rotation`` with
            degrees.
        accepted: bool ``[B]``, whether the end scores better than the start; where not,
            ``matrices`` holds the start.
        iterations: int64 ``[B]``, steps tried on the way from the start to the end.
    """

    matrices: Tensor
    score_start: Tensor
    score_end: Tensor
    starts: tuple[str, ...]
    accepted: Tensor
    iterations: Tensor


def register_affine(
    fixed: Sequence[PlacedVolume],
    moving: Sequence[PlacedVolume],
    settings: AffineSettings | None = None,
) -> AffineResult:
    """Register moving volumes to fixed ones, pair by pair; shapes and voxel sizes may differ.

    Fixed points outside of the moving volume or its mask do not count. Every choice is a pair's
    own: a batch gives what each pair gives alone, to the last bit on CPUs.

    Args:
        fixed, moving: ``B`` volumes each, on one device; the i-th of each are a pair.
        settings: how to search; affine with NCC at 8 and 4 mm by default.

    Raises:
        ValueError: if the two lists are empty or differ in length, or devices differ.
    """
    settings = settings or AffineSettings()
    if not fixed or len(fixed) != len(moving):
        needed = "needs as many fixed as moving volumes, at least one"
        raise ValueError(f"register_affine: {needed}, got {len(fixed)} and {len(moving)}")
    devices = {placed.volume.device for placed in (*fixed, *moving)}
    if len(devices) > 1:
        found = sorted(map(str, devices))
        raise ValueError(f"register_affine: all volumes must be on one device, got {found}")
    # one by one on a CPU: no pair waits for another, and sums round the same in any company
    size = 1 if fixed[0].volume.is_cpu else len(fixed)
    with torch.no_grad():
        parts = [
            _register(fixed[first : first + size], moving[first : first + size], settings)
            for first in range(0, len(fixed), size)
        ]
    return AffineResult(
        torch.cat([part.matrices for part in parts]),
        torch.cat([part.score_start for part in parts]),
        torch.cat([part.score_end for part in parts]),
        tuple(name for part in parts for name in part.starts),
        torch.cat([part.accepted for part in parts]),
        torch.cat([part.iterations for part in parts]),
    )


def _register(
    fixed: Sequence[PlacedVolume], moving: Sequence[PlacedVolume], settings: AffineSettings
) -> AffineResult:
    coarsest = settings.spacings_mm[0]
    levels = [at_level(placed, coarsest) for placed in fixed]
    moving_levels = [at_level(placed, coarsest) for placed in moving]
    center_mm = torch.stack([center_of_mass(level) for level in levels])
    points, volumes = _prepared(levels, moving_levels, center_mm, settings)
    names, starts = _best_starts(levels, moving_levels, points, volumes, settings)
    chosen, start, end, tried = _followed(points, volumes, starts, settings)
    for spacing_mm in settings.spacings_mm:
        if spacing_mm != coarsest:
            levels = [at_level(placed, spacing_mm) for placed in fixed]
            moving_levels = [at_level(placed, spacing_mm) for placed in moving]
            points, volumes = _prepared(levels, moving_levels, center_mm, settings)
        descent = Descent(settings.cost, settings.transform, spacing_mm, settings.iterations)
        end, steps = descend(points, volumes, end, descent)
        tried = tried + steps
    matrices = torch.stack([start.matrix(center_mm), end.matrix(center_mm)], dim=1)
    costs = costs_of(points, volumes, matrices, settings.cost)
    accepted = costs[:, 1] < costs[:, 0]
    kept = torch.where(accepted[:, None, None], matrices[:, 1], matrices[:, 0])
    best = 1.0 if settings.cost in ("ncc", "lncc") else 0.0
    scores = best - costs
    return AffineResult(
        kept,
        scores[:, 0],
        torch.where(accepted, scores[:, 1], scores[:, 0]),
        tuple(row[choice] for row, choice in zip(names, chosen.tolist(), strict=True)),
        accepted,
        tried,
    )


def _prepared(
    levels: Sequence[LevelVolume],
    moving_levels: Sequence[LevelVolume],
    center_mm: Tensor,
    settings: AffineSettings,
) -> tuple[FixedPoints, MovingVolumes]:
    limit = None if settings.cost == "lncc" else _POINTS
    return FixedPoints.of(levels, center_mm, limit), MovingVolumes.of(moving_levels)


def _best_starts(
    levels: Sequence[LevelVolume],
    moving_levels: Sequence[LevelVolume],
    points: FixedPoints,
    volumes: MovingVolumes,
    settings: AffineSettings,
) -> tuple[list[list[str]], list[AffineParameters]]:
    """The best starts of each pair: their names ``[B][K]``, and ``K`` times their parameters."""
    named = [
        starts_of(one, other, settings.search_degrees)
        for one, other in zip(levels, moving_levels, strict=True)
    ]
    thin = points.thinned(_POINTS_OF_A_START)
    candidates = [_batched([row[name] for row in named]) for name in named[0]]
    matrices = torch.stack([each.matrix(points.center_mm) for each in candidates], dim=1)
    costs = torch.cat(
        [costs_of(thin, volumes, some, settings.cost)
         for some in matrices.split(_STARTS_AT_ONCE, dim=1)], dim=1)  # fmt: skip
    kept = min(settings.refined_starts, costs.shape[1]) if settings.iterations else 1
    order = costs.argsort(dim=1, stable=True)[:, :kept].tolist()
    names = list(named[0])
    best = [[names[index] for index in row] for row in order]
    return best, [
        _batched([named[pair][row[rank]] for pair, row in enumerate(best)]) for rank in range(kept)
    ]


def _batched(parts: Sequence[AffineParameters]) -> AffineParameters:
    return AffineParameters(
        torch.cat([part.rotation for part in parts]),
        torch.cat([part.translation_mm for part in parts]),
        torch.cat([part.log_scales for part in parts]),
        torch.cat([part.shears for part in parts]),
    )


def _followed(
    points: FixedPoints,
    volumes: MovingVolumes,
    starts: Sequence[AffineParameters],
    settings: AffineSettings,
) -> tuple[Tensor, AffineParameters, AffineParameters, Tensor]:
    """Each start moved rigidly at the coarsest level; the best: rank, start, end and steps."""
    descent = Descent(settings.cost, "rigid", settings.spacings_mm[0], settings.iterations)
    ends, steps = zip(*(descend(points, volumes, s, descent) for s in starts), strict=True)
    matrices = torch.stack([end.matrix(points.center_mm) for end in ends], dim=1)
    chosen = costs_of(points, volumes, matrices, settings.cost).argmin(dim=1)
    start, end, tried = starts[0], ends[0], steps[0]
    for rank in range(1, len(starts)):
        takes = chosen == rank
        start, end = starts[rank].where(takes, start), ends[rank].where(takes, end)
        tried = torch.where(takes, steps[rank], tried)
    return chosen, start, end, tried
