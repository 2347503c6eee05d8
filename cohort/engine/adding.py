"""Add the pairs of a tile to sums, whichever of a run they are."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cohort.config.sums import Normalise, SumSettings
from cohort.engine.scan import Scan
from cohort.engine.sums import RANGE, UNIT, Sums
from cohort.errors import SubjectError
from triton_reg import Displacement
from triton_reg.displacement import jacobian_determinant
from triton_reg.ops.resize import Shape, grid_shape

_PERCENTILES = (1.0, 99.0)
_SMALLEST = 1e-3  # determinant whose logarithm is taken


@dataclass(eq=False)
class Adder:
    """Adds up the pairs of a tile.

    Attributes:
        settings: what is asked for.
        shape: of the fixed grid.
    """

    settings: SumSettings
    shape: Shape
    _fields: Tensor | None = None
    _histogram: Tensor | None = None
    _subjects: dict[str, int] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, subject_id: str, scan: Scan, displacement: Displacement) -> None:
        """Add one moving subject; a second time it is left out, as a pair may be tried again.

        Args:
            subject_id: of the moving subject.
            scan: on the grid on which it was stored.
            displacement: from the template to it.

        Raises:
            ValueError: if it is not finite, as nothing could be subtracted again.
        """
        if subject_id in self._subjects:
            return
        if not displacement.vectors.isfinite().all():
            raise ValueError(f"the displacement to {subject_id} is not finite")
        moved = on_grid(displacement, self.shape, grid_shape(scan.volume))
        weight = self.settings.weight_of(subject_id)
        inside = moved.warp(scan.mask, interpolation="nearest")[0, 0] > 0
        values = normal(scan, self.settings.normalise)
        volume = moved.warp(values, padding="border")[0, 0].double()
        rows = [weight * inside, weight * _units(volume) * inside]
        rows += list(weight * _units(moved.full()[0].double()))
        if self.settings.detail:
            logs = _log_jacobian(moved.full())
            rows += [weight * _units(logs), weight * _units(logs.square())]
            if scan.labels is not None:
                found = moved.warp(scan.labels.float(), interpolation="nearest")[0, 0]
                self.labels[subject_id] = found.cpu().numpy().astype(np.uint16)
        added = torch.stack([row.long() for row in rows])
        if self.settings.bins:
            self._count(volume, weight * inside)  # all that can fail comes before what is added
        self._fields = added if self._fields is None else self._fields.add_(added)
        self._subjects[subject_id] = weight

    @property
    def sums(self) -> Sums | None:
        """Of all that was added; None if nothing was."""
        if self._fields is None:
            return None
        counted = None if self._histogram is None else self._histogram.cpu().numpy()
        return Sums(self._fields.cpu().numpy(), counted, dict(self._subjects))

    def _count(self, volume: Tensor, weight: Tensor) -> None:
        """Add a volume to the histograms, shared between the two nearest bins."""
        bins = self.settings.bins
        if self._histogram is None:
            zeros = torch.zeros(bins, *self.shape, dtype=torch.int32, device=volume.device)
            self._histogram = zeros
        low, high = RANGE
        place = ((volume - low) / (high - low) * (bins - 1)).clamp(0, bins - 1)
        below = place.floor().clamp_max(bins - 2).long()
        above = torch.round((place - below) * weight).int()
        where, shared = torch.stack([below, below + 1]), torch.stack([weight.int() - above, above])
        self._histogram.scatter_add_(0, where, shared)


def normal(scan: Scan, normalise: Normalise) -> Tensor:
    """A scan's volume ``[1, 1, D, H, W]`` with its intensities as they are added.

    Raises:
        SubjectError: as :func:`intensity_range` does.
    """
    if normalise == "none":
        return scan.volume
    low, high = intensity_range(scan)
    return (scan.volume - low) / (high - low)


def intensity_range(scan: Scan) -> tuple[float, float]:
    """The 1st and the 99th percentile of a volume inside its mask; all of it if they are equal.

    Raises:
        SubjectError: ``E_CONSTANT`` if there is no contrast.
    """
    values = scan.volume[scan.mask > 0].cpu().numpy()
    for percentiles in (_PERCENTILES, (0.0, 100.0)):  # of a few bright voxels, the range
        low, high = np.percentile(values, percentiles) if values.size else (0.0, 0.0)
        if high > low:
            return float(low), float(high)
    raise SubjectError("E_CONSTANT", "a volume without contrast on the working grid, or its mask")


def on_grid(displacement: Displacement, shape: Shape, moving_shape: Shape) -> Displacement:
    """A displacement of coarser volumes as one of finer volumes over the same extent."""
    if displacement.fixed_shape == shape and displacement.moving_shape == moving_shape:
        return displacement
    scale = [
        (new - 1) / (old - 1)
        for new, old in zip(moving_shape, displacement.moving_shape, strict=True)
    ]
    vectors = displacement.vectors
    return Displacement(
        vectors * vectors.new_tensor(scale).view(1, 3, 1, 1, 1), shape, moving_shape
    )


def _units(values: Tensor) -> Tensor:
    return torch.round(values * UNIT)


def _log_jacobian(vectors: Tensor) -> Tensor:
    """``[D, H, W]`` float64; on the border that next to it."""
    inside = jacobian_determinant(vectors.double()).clamp_min(_SMALLEST).log()
    return torch.nn.functional.pad(inside[None], (1,) * 6, mode="replicate")[0, 0]
